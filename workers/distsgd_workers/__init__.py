"""What runs only inside a worker process: a block of rows in, a partial out."""
