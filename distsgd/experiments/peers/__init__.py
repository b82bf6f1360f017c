"""What a user would take instead: one process of another library, on the same rows and target."""
