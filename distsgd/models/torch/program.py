"""A module's program: its weights are views of the shared vector, its gradients go into the slot.

Shape letters: N samples, P parameters.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import DTypeLike

from distsgd.autodiff.graph import ParameterSpec, views
from distsgd.base.arrays import Array
from distsgd.errors import ModelError
from distsgd.models.factory import Recipe
from distsgd.models.torch.norms import squared_norms
from distsgd.models.torch.parts import Parts, Tensor, made_with
from distsgd.models.torch.settings import as_runs_compute, chance_by


class TorchProgram:
    """Forward and backward of a module of its own; see `distsgd.models.Program`."""

    def __init__(
        self,
        recipe: Recipe,
        parameters: Sequence[ParameterSpec],
        max_rows: int,
        dtype: DTypeLike,
        *,
        per_sample: bool,
    ) -> None:
        self.max_rows, self.dtype, self.per_sample = max_rows, np.dtype(dtype), per_sample
        self.is_integer = recipe.rows.num_levels is not None
        parts = made_with(recipe, seed=0)
        self.parts = Parts(
            parts.module.to(torch.from_numpy(np.empty(0, dtype)).dtype),
            parts.sample_losses,
            parts.prediction,
        )
        self.specs = parameters
        self._parameters = dict(self.parts.module.named_parameters())
        self._weights: Array | None = None

    @property
    def parameters(self) -> list[Tensor]:
        """The module's, in the order of the flat vector."""
        return [self._parameters[spec.name] for spec in self.specs]

    def use(self, weights: Array) -> None:
        """Have the module's parameters be views of `weights`, ``[P]``."""
        if weights is self._weights:
            return
        for name, view in views(self.specs, weights).items():
            self._parameters[name].data = tensor_of(view)
        self._weights = weights

    def bind(
        self,
        x: Array,
        target: Array,
        *,
        weights: Array,
        gradients: Array | None = None,
        x_squared_norms: Array | None = None,
        keys: Array | None = None,
    ) -> TorchBound:
        """The program over these arrays."""
        del x_squared_norms  # Layers find them in what they see.
        if not 1 <= len(x) <= self.max_rows:
            raise ModelError(f"{len(x)} rows; must be 1 to {self.max_rows}")
        return TorchBound(self, x, target, weights, gradients, keys)

    def predict(self, weights: Array, x: Array) -> Array:
        """Predictions of at most `max_rows` samples."""
        self.use(weights)
        self.parts.module.eval()
        with as_runs_compute(), torch.no_grad():
            outputs = self.parts.module(self.inputs(x))
            shown = outputs if self.parts.prediction is None else self.parts.prediction(outputs)
        found: Array = shown.numpy()
        return found

    def inputs(self, x: Array) -> Tensor:
        """Samples as the module takes them."""
        tensor = tensor_of(x)
        return tensor.long() if self.is_integer else tensor


class TorchBound:
    """See `distsgd.models.Bound`."""

    def __init__(
        self,
        program: TorchProgram,
        x: Array,
        target: Array,
        weights: Array,
        gradients: Array | None,
        keys: Array | None,
    ) -> None:
        self._program, self._x, self._weights, self._keys = program, x, weights, keys
        self._target = tensor_of(target)
        self._slots: list[Tensor] = []
        if gradients is not None:
            self._slots = [tensor_of(it) for it in views(program.specs, gradients).values()]
        self.squared_norms_N: Array | None = None
        self.losses_N = self.outputs_NO = np.empty(0)

    def forward(self) -> None:
        """Losses and outputs; with gradients bound, all that the backward needs."""
        program, is_training = self._program, bool(self._slots) or self._keys is not None
        program.use(self._weights)
        program.parts.module.train(is_training)
        key = 0 if self._keys is None else int(self._keys[0]) >> 1
        with as_runs_compute(), chance_by(key), torch.set_grad_enabled(bool(self._slots)):
            outputs = program.parts.module(program.inputs(self._x))
            self._losses = program.parts.sample_losses(outputs, self._target)
        if self._losses.shape != (len(self._x),):
            raise ModelError(
                f"sample_losses gives {tuple(self._losses.shape)} for {len(self._x)} rows; must be "
                f'({len(self._x)},), one loss for each row (reduction="none", and the sum or mean '
                "over the rest)"
            )
        self.losses_N = self._losses.detach().numpy()
        self.outputs_NO = outputs.detach().numpy()

    def backward(self) -> None:
        """Gradient sums into the slot."""
        program = self._program
        with as_runs_compute():
            found = torch.autograd.grad(
                self._losses.sum(), program.parameters, allow_unused=True, materialize_grads=True
            )
            torch._foreach_copy_(self._slots, list(found))
            if program.per_sample:
                norms = squared_norms(program.parts, program.inputs(self._x), self._target)
                self.squared_norms_N = norms.numpy()


def tensor_of(array: Array) -> Tensor:
    """The same memory as a tensor; what may not be written, is not."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array)
