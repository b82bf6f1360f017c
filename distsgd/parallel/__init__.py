"""The exact parallel step: server, workers, the exchanges between them, the tree, and Ray."""
