"""distsgd: distributed data-parallel mini-batch SGD, the same bits for any number of workers."""

__version__ = "0.1.0"
