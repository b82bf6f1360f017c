"""Scaling experiments: what batch size and workers buy, from one command, with its report."""
