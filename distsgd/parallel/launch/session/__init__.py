"""How a Ray is found, joined or started, and left."""
