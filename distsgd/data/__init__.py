"""From files to rows: reading, preparing, shards, standardising, the cache and the sampler."""
