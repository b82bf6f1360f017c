"""The nodes of a cluster: what is on them, and where a run's processes go."""
