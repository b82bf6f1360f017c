"""Fault injection, soak, bench, doctor: what tries the house. Imported by the command line only."""
