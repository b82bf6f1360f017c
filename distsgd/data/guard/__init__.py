"""Does this decode within memory? Asked of a file before anything of it is decoded.

What a file says of its sizes is not believed: `parquet_pages.check_sizes`,
`parquet_lists.check_lengths`, `arrow.check_decoded_size` and `arrow.check_views` look at what would
be decoded. `tables.batch_rows` says how much may be at once.
"""
