"""Where rows come from: files of each format as record batches of bounded size, in row order."""
