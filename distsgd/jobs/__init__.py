"""Runs as jobs of a Ray cluster: submitted by name, followed, started again, looked at."""
