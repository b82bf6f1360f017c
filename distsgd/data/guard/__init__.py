"""Does this decode within memory? Asked of a file before anything of it is decoded.

What a file says of its sizes is not believed: `parquet.rows_at_once`, `arrow.check_decoded_size`
and `arrow.check_views` look at what would be decoded. `batches` says how much may be at once.
"""
