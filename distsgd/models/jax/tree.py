"""Parameters in a tree of arrays, named by their paths, and one flat vector of them.

Shape letter: P parameters.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from distsgd.autodiff.graph import ParameterSpec, views
from distsgd.errors import ModelError


def specs_of(tree: Any, made_by: str) -> tuple[ParameterSpec, ...]:
    """Names and shapes of the arrays of `tree`, in the order in which JAX flattens it.

    >>> import numpy as np
    >>> specs_of({"layers": [{"w": np.zeros((2, 3))}]}, "make")
    (ParameterSpec(name='layers.0.w', shape=(2, 3)),)

    Raises:
        ModelError: What is no floating-point array stands in it, or two have one name.
    """
    found: dict[str, ParameterSpec] = {}
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        name = ".".join(map(_part, path)) or "parameters"
        dtype = jnp.result_type(leaf)
        if not jnp.issubdtype(dtype, jnp.floating):
            raise ModelError(
                f"{made_by} has {dtype} in parameter {name}; must be floating-point numbers (keep "
                "what is not trained out of the parameters)"
            )
        if name in found:
            raise ModelError(f"{made_by} has two parameters {name}; rename one")
        found[name] = ParameterSpec(name, jnp.shape(leaf))
    return tuple(found.values())


def leaves_of(specs: Sequence[ParameterSpec], flat: Any) -> list[Any]:
    """The arrays of a tree, from their vector ``[P]``."""
    return list(views(specs, flat).values())


def _part(key: Any) -> str:
    """A step of a path."""
    for attribute in ("key", "idx", "name"):
        if hasattr(key, attribute):
            return str(getattr(key, attribute))
    return str(key)
