"""Fault injection: plans, their observer, its log."""
