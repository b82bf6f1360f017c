"""Fault injection, soak, bench, doctor: tests and measurements. Only cli imports them."""
