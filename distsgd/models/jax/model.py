"""Functions of JAX, or a module of flax nnx, as a model.

It is made anew wherever it is needed, by its factory; its weights are read from the shared vector.

Shape letters: N samples, P parameters.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jaxlib
import numpy as np
from numpy.typing import DTypeLike

from distsgd.base.arrays import Array
from distsgd.errors import ModelError
from distsgd.models.factory import Recipe
from distsgd.models.jax.device import as_runs_compute
from distsgd.models.jax.parts import made_with
from distsgd.models.jax.program import JaxProgram
from distsgd.models.jax.tree import specs_of
from distsgd.models.of_recipe import RecipeModel
from distsgd.models.own_errors import own_code
from distsgd.models.probe import probe
from distsgd.models.protocol import Chance
from distsgd.nn.network import PREDICTION_ROWS


class OwnModel(RecipeModel):
    """The model that a recipe makes; see `distsgd.models.Model`.

    Parameters are named by their paths in the tree, joined by dots, and lie in the order in which
    JAX flattens it.
    """

    def __init__(self, recipe: Recipe) -> None:
        self._parts = made_with(recipe)
        super().__init__(recipe, specs_of(self._parts.shapes, recipe.name))
        self.has_probabilities = self._parts.prediction is not None
        self._showing: dict[str, JaxProgram] = {}  # By dtype, so that it is compiled once.

    @property
    def chance(self) -> Chance:
        """One key a block where ``apply`` takes a key, or the module has streams of chance."""
        return "block" if self._parts.takes_key else "none"

    def initialise(self, init: str, seed: int, dtype: DTypeLike = np.float32) -> Array:
        """The weights that ``init`` makes from the key of `seed`; or the module, made with it.

        Raises:
            ModelError: It raises an error, or makes other shapes than before or no finite numbers.
        """
        del init  # It is the model's own.
        with as_runs_compute(dtype), own_code(self.recipe.name):
            tree = self._parts.start(seed)
        if (specs := specs_of(tree, self.recipe.name)) != self.parameters:
            raise ModelError(
                f"{self.recipe.name} makes the parameters {_shown(specs)} for seed {seed}; must "
                f"be {_shown(self.parameters)}, as for any other"
            )
        flat = np.empty(self.num_parameters, dtype)
        leaves = jax.tree_util.tree_leaves(tree)
        for (name, view), leaf in zip(self.views(flat).items(), leaves, strict=True):
            view[...] = np.asarray(leaf)
            if not np.isfinite(view).all():
                raise ModelError(
                    f"{self.recipe.name} starts {name} with numbers that are not finite in "
                    f"{view.dtype}; must be finite (mend its init)"
                )
        return flat

    def program(self, max_rows: int, dtype: DTypeLike, *, per_sample: bool) -> JaxProgram:
        """Forward and backward over at most `max_rows` samples."""
        return JaxProgram(
            self.recipe, self._parts, self.parameters, max_rows, dtype, per_sample=per_sample
        )

    def seen(self, outputs_NO: Array, target: Array) -> tuple[Array, Array]:
        """Predictions, and the gradient of each row's loss by its outputs."""
        return self._shows(outputs_NO.dtype).seen(outputs_NO, target)

    def arithmetic(self, dtype: DTypeLike) -> Mapping[str, str]:
        """Versions of JAX, and the model's own probe."""
        return {
            "jax": jax.__version__,
            "jaxlib": jaxlib.__version__,
            "probe": probe(self, self.recipe.rows, dtype),
        }

    def _predict_block(self, flat: Array, x_N: Array) -> Array:
        return self._shows(flat.dtype).predict(flat, x_N)

    def _shows(self, dtype: np.dtype[Any]) -> JaxProgram:
        found = self._showing.get(dtype.name)
        if found is None:
            found = self.program(PREDICTION_ROWS, dtype, per_sample=False)
            self._showing[dtype.name] = found
        return found


def _shown(specs: Any) -> str:
    return ", ".join(f"{spec.name} {spec.shape}" for spec in specs)
