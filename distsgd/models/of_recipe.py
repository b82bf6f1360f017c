"""What any model that a factory makes says of itself. No I/O here.

Shape letters: N samples, O outputs, P parameters.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np

from distsgd.autodiff.gate import Shape
from distsgd.autodiff.graph import ParameterSpec, total_size, views
from distsgd.autodiff.ops.domain import EVERY_NUMBER, Domain
from distsgd.base.arrays import Array
from distsgd.errors import ModelError
from distsgd.models.factory import LIBRARY_BYTES, Recipe, model_again
from distsgd.models.protocol import Model
from distsgd.nn.network import PREDICTION_ROWS


class RecipeModel:
    """The half of a `distsgd.models.Model` that its recipe and its parameters know."""

    output_advice = ""

    def __init__(self, recipe: Recipe, parameters: tuple[ParameterSpec, ...]) -> None:
        if not parameters:
            raise ModelError(
                f"{recipe.name} makes a model without parameters; must have at least one"
            )
        self.recipe, self.parameters = recipe, parameters
        self.num_parameters = total_size(parameters)
        # Unknown before it runs: as many as the parameters have, at most a million.
        self.numbers_per_sample = min(self.num_parameters, 1_000_000)

    def __reduce__(self) -> tuple[Callable[..., Model], tuple[Recipe]]:
        return model_again, (self.recipe,)

    @property
    def input_shape(self) -> Shape:
        """Shape of one sample."""
        return self.recipe.rows.input_shape

    @property
    def target_kind(self) -> Literal["class", "number"]:
        """What a target is."""
        return self.recipe.rows.target_kind

    @property
    def target_shape(self) -> Shape:
        """Shape of one sample's target."""
        return self.recipe.rows.target_shape

    @property
    def target_domain(self) -> Domain:
        """Of a loss by name, its own; else every number."""
        loss = self.recipe.named_loss
        return EVERY_NUMBER if loss is None else loss.target_domain

    @property
    def outline(self) -> str:
        """The factory and its options."""
        options = ", ".join(f"{key}={it!r}" for key, it in self.recipe.options.items())
        return f"{self.recipe.name}({options})"

    @property
    def loss_name(self) -> str:
        """Of a factory that makes a module alone; else its own."""
        return self.recipe.loss or f"of {self.recipe.name}"

    @property
    def squared_error_factor(self) -> float | None:
        """From the loss to the squared error; None for losses of its own, and for others."""
        loss = self.recipe.named_loss
        return None if loss is None else loss.squared_error_factor(self.num_outputs)

    @property
    def library_bytes(self) -> int:
        """That of its framework."""
        return LIBRARY_BYTES[self.recipe.framework]

    @property
    def num_outputs(self) -> int:
        """Classes, or numbers of a target."""
        return self.recipe.rows.num_outputs

    def views(self, flat: Array) -> dict[str, Array]:
        """The parameters by name, as views of `flat`."""
        return views(self.parameters, flat)

    def state_dict(self, flat: Array) -> dict[str, Array]:
        """What its library takes: the parameters by name."""
        return self.views(flat)

    def predict(self, flat: Array, x: Array) -> Array:
        """Predictions ``[N, *output_shape]`` of any number of samples, in blocks of 256."""
        x = np.ascontiguousarray(x, flat.dtype)
        if not len(x):  # The shape of an output is known when there is one.
            return self._predict_block(flat, np.zeros((1, *self.input_shape), flat.dtype))[:0]
        pieces = [
            self._predict_block(flat, x[first : first + PREDICTION_ROWS])
            for first in range(0, len(x), PREDICTION_ROWS)
        ]
        return np.concatenate(pieces)

    def _predict_block(self, flat: Array, x_N: Array) -> Array:
        """Predictions of 1 to 256 samples."""
        raise NotImplementedError

    def to_dict(self) -> dict[str, Any]:
        """What it is made from, and its parameters."""
        recipe = self.recipe
        return {
            "factory": recipe.name,
            "options": dict(recipe.options),
            "input_shape": list(self.input_shape),
            "parameters": [[spec.name, list(spec.shape)] for spec in self.parameters],
        } | (
            {"loss": recipe.loss, "loss_options": dict(recipe.loss_options)} if recipe.loss else {}
        )
