"""Models of one's own: a module of PyTorch or functions of JAX, and the protocol all models keep.

`torch_model` and `jax_model` load neither library before a model is made.
"""

from distsgd.models.factory import Factory, Recipe, RowSpec, jax_model, model_of, torch_model
from distsgd.models.own_errors import OwnCodeError
from distsgd.models.protocol import Bound, Chance, Model, Program

__all__ = [
    "Bound",
    "Chance",
    "Factory",
    "Model",
    "OwnCodeError",
    "Program",
    "Recipe",
    "RowSpec",
    "jax_model",
    "model_of",
    "torch_model",
]
