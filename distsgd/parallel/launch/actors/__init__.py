"""What runs on Ray for a run, and how its driver reaches it."""
