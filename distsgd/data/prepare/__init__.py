"""From files to a prepared data set, once; `prepare.prepare` is the map of it."""
