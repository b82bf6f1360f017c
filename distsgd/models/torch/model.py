"""A module of PyTorch as a model.

It is made anew wherever it is needed, by its factory; its weights are views of the shared vector.

Shape letters: N samples, P parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import DTypeLike

from distsgd.autodiff.gate import Shape
from distsgd.autodiff.graph import ParameterSpec, total_size, views
from distsgd.autodiff.ops.domain import EVERY_NUMBER, Domain
from distsgd.base.arrays import Array
from distsgd.errors import ModelError
from distsgd.models.factory import Recipe, model_of
from distsgd.models.protocol import Chance
from distsgd.models.torch.parts import Parts, made_with
from distsgd.models.torch.program import TorchProgram
from distsgd.models.torch.settings import as_runs_compute

PREDICTION_ROWS = 256  # Fixed, since cutting differently gives other bits.


class OwnModel:
    """The model that a recipe makes; see `distsgd.models.Model`.

    Parameters are named and ordered as ``named_parameters()`` has them.
    """

    squared_error_factor: float | None = None
    output_advice = ""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        parts = made_with(recipe, seed=0)
        self.parameters = tuple(
            ParameterSpec(name, tuple(it.shape)) for name, it in parts.module.named_parameters()
        )
        if not self.parameters:
            raise ModelError(f"{recipe.name} makes a module without parameters; nothing can learn")
        self.num_parameters = total_size(self.parameters)
        self.has_probabilities = parts.prediction is not None

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Recipe]]:
        return model_of, (self.recipe,)

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
        """Every number."""
        return EVERY_NUMBER

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
    def num_outputs(self) -> int:
        """Classes, or numbers of a target."""
        return self.recipe.rows.num_outputs

    @property
    def chance(self) -> Chance:
        """One key a block, for dropout and whatever else draws numbers."""
        return "block"

    @property
    def numbers_per_sample(self) -> int:
        """Unknown before it runs: as many as the parameters have, at most a million."""
        return min(self.num_parameters, 1_000_000)

    def views(self, flat: Array) -> dict[str, Array]:
        """The parameters by name, as views of `flat`."""
        return views(self.parameters, flat)

    def initialise(self, init: str, seed: int, dtype: DTypeLike = np.float32) -> Array:
        """The weights that the module is made with, under a generator seeded by `seed`."""
        del init  # It is the module's own.
        flat = np.empty(self.num_parameters, dtype)
        parts = made_with(self.recipe, seed=seed)
        named = dict(parts.module.named_parameters())
        for name, view in self.views(flat).items():
            view[...] = named[name].detach().numpy()
        return flat

    def program(self, max_rows: int, dtype: DTypeLike, *, per_sample: bool) -> TorchProgram:
        """Forward and backward over at most `max_rows` samples."""
        return TorchProgram(self.recipe, self.parameters, max_rows, dtype, per_sample=per_sample)

    def predict(self, flat: Array, x: Array) -> Array:
        """Predictions of any number of samples, in blocks of 256."""
        program = self.program(PREDICTION_ROWS, flat.dtype, per_sample=False)
        x = np.ascontiguousarray(x, flat.dtype)
        pieces = [
            program.predict(flat, x[first : first + PREDICTION_ROWS])
            for first in range(0, len(x), PREDICTION_ROWS)
        ]
        return np.concatenate(pieces)

    def seen(self, outputs_NO: Array, target: Array) -> tuple[Array, Array]:
        """Predictions, and the gradient of each row's loss by its outputs."""
        parts = self._parts()
        outputs = torch.from_numpy(outputs_NO.copy()).requires_grad_()
        with as_runs_compute():
            losses = parts.sample_losses(outputs, torch.from_numpy(target.copy()))
            (deltas,) = torch.autograd.grad(losses.sum(), outputs)
            shown = outputs if parts.prediction is None else parts.prediction(outputs)
        return shown.detach().numpy(), deltas.numpy()

    def arithmetic(self, dtype: DTypeLike) -> Mapping[str, str]:
        """PyTorch's version, and the processor features it uses."""
        del dtype
        capability = torch.backends.cpu.get_cpu_capability()
        return {"torch": torch.__version__, "capability": capability}

    def to_dict(self) -> dict[str, Any]:
        """What it is made from, and its parameters."""
        recipe = self.recipe
        return {
            "factory": recipe.name,
            "options": dict(recipe.options),
            "input_shape": list(self.input_shape),
            "parameters": [[spec.name, list(spec.shape)] for spec in self.parameters],
        } | ({"loss": recipe.loss} if recipe.loss else {})

    def _parts(self) -> Parts:
        return made_with(self.recipe, seed=0)
