"""Gates: each operation with its local gradient, staged over arrays of others. No I/O here."""
