"""A run on Ray from the joining of it to its end: it is placed, started, and kept alive."""
