"""The exact parallel step: server, workers, the transports between them, the tree, and Ray."""
