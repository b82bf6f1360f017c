"""Modules of PyTorch as models. The only room that loads PyTorch."""
