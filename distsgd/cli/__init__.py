"""The command line: words in, one call into `distsgd.run` or `distsgd.data`, words out."""
