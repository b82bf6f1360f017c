"""What the server actor does: the loop, the update, the record."""
