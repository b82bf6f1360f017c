"""A module of PyTorch as a model.

It is made anew wherever it is needed, by its factory; its weights are views of the shared vector.

Shape letters: N samples, P parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from threading import Lock
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import DTypeLike

from distsgd.autodiff.gate import Shape
from distsgd.autodiff.graph import ParameterSpec, total_size, views
from distsgd.autodiff.ops.domain import EVERY_NUMBER, Domain
from distsgd.base.arrays import Array
from distsgd.models.factory import Recipe, model_again
from distsgd.models.own_errors import own_code
from distsgd.models.probe import probe
from distsgd.models.protocol import Chance
from distsgd.models.torch.parts import Parts, made_with
from distsgd.models.torch.program import TorchProgram, array_of, torch_dtype
from distsgd.models.torch.settings import Computing
from distsgd.models.torch.trial import try_out

PREDICTION_ROWS = 256  # Fixed, since cutting differently gives other bits.


class OwnModel:
    """The model that a recipe makes; see `distsgd.models.Model`.

    Parameters are named and ordered as ``named_parameters()`` has them. Each of its programs makes
    a module of its own, whose buffers are those that seed 0 gives.

    Raises:
        ConfigError: The factory cannot be found or called.
        ModelError: What it makes cannot be trained.
    """

    output_advice = ""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        parts = made_with(recipe, seed=0)
        self.parameters = tuple(
            ParameterSpec(name, tuple(it.shape)) for name, it in parts.module.named_parameters()
        )
        self.num_parameters = total_size(self.parameters)
        self.has_probabilities = parts.prediction is not None
        with own_code(recipe.name):
            self.numbers_per_sample = try_out(parts, recipe.rows)
        self._predicting: TorchProgram | None = None
        self._one_at_a_time = Lock()

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Recipe]]:
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
    def num_outputs(self) -> int:
        """Classes, or numbers of a target."""
        return self.recipe.rows.num_outputs

    @property
    def chance(self) -> Chance:
        """One key a block, for dropout and whatever else draws numbers."""
        return "block"

    def views(self, flat: Array) -> dict[str, Array]:
        """The parameters by name, as views of `flat`."""
        return views(self.parameters, flat)

    def state_dict(self, flat: Array) -> dict[str, Array]:
        """What ``module.load_state_dict`` takes strictly: parameters, aliases, lasting buffers."""
        module = made_with(self.recipe, seed=0, dtype=torch_dtype(flat.dtype)).module
        named = self.views(flat)
        first = {id(it): named[name] for name, it in module.named_parameters()}
        # With `keep_vars`, so that a parameter is known by itself, whatever its name.
        state = module.state_dict(keep_vars=True)
        return {
            name: first[id(it)] if id(it) in first else array_of(it) for name, it in state.items()
        }

    def initialise(self, init: str, seed: int, dtype: DTypeLike = np.float32) -> Array:
        """The weights that the module is made with, under a generator seeded by `seed`."""
        del init  # It is the module's own.
        flat = np.empty(self.num_parameters, dtype)
        parts = made_with(self.recipe, seed=seed, dtype=torch_dtype(dtype))
        named = dict(parts.module.named_parameters())
        for name, view in self.views(flat).items():
            view[...] = array_of(named[name])
        return flat

    def program(self, max_rows: int, dtype: DTypeLike, *, per_sample: bool) -> TorchProgram:
        """Forward and backward over at most `max_rows` samples."""
        return TorchProgram(self.recipe, self.parameters, max_rows, dtype, per_sample=per_sample)

    def predict(self, flat: Array, x: Array) -> Array:
        """Predictions ``[N, *output_shape]`` of any number of samples, in blocks of 256."""
        x = np.ascontiguousarray(x, flat.dtype)
        with self._one_at_a_time:  # A program computes with the weights it was told last.
            program = self._predicting
            if program is None or program.dtype is not torch_dtype(flat.dtype):
                program = self.program(PREDICTION_ROWS, flat.dtype, per_sample=False)
                self._predicting = program
            pieces = [
                program.predict(flat, x[first : first + PREDICTION_ROWS])
                for first in range(0, max(len(x), 1), PREDICTION_ROWS)
            ]
        return np.concatenate(pieces)

    def seen(self, outputs_NO: Array, target: Array) -> tuple[Array, Array]:
        """Predictions, and the gradient of each row's loss by its outputs."""
        parts = self._parts
        outputs = torch.from_numpy(outputs_NO.copy()).requires_grad_()
        with own_code(self.recipe.name), Computing(dtype=outputs.dtype, grad=True):
            losses = parts.losses(outputs, torch.from_numpy(target.copy()))
            (deltas,) = torch.autograd.grad(losses.sum(), outputs)
            shown = outputs if parts.prediction is None else parts.prediction(outputs)
        return array_of(shown), array_of(deltas)

    def arithmetic(self, dtype: DTypeLike) -> Mapping[str, str]:
        """PyTorch's version, the processor features it uses, and the model's own probe."""
        return {
            "torch": torch.__version__,
            "capability": torch.backends.cpu.get_cpu_capability(),
            "probe": probe(self, self.recipe.rows, dtype),
        }

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

    @cached_property
    def _parts(self) -> Parts:
        return made_with(self.recipe, seed=0)
