"""Functions of JAX as models. The only room that loads JAX."""
