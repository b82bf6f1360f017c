"""Runs: from a configuration to weights on disk, and what can be done with a run afterwards."""
