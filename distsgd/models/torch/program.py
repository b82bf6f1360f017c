"""A module's program: its weights are views of the shared vector, its gradients go into the slot.

Shape letters: N samples, P parameters.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from threading import Lock

import numpy as np
import torch
from numpy.typing import DTypeLike

from distsgd.autodiff.graph import ParameterSpec, views
from distsgd.base.arrays import Array
from distsgd.errors import ModelError
from distsgd.models.factory import Recipe
from distsgd.models.own_errors import own_code
from distsgd.models.torch.norms import SampleNorms
from distsgd.models.torch.parts import Tensor, made_with
from distsgd.models.torch.settings import Computing

_FILTERS = Lock()


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
        self.max_rows, self.specs = max_rows, parameters
        self.dtype, self.name = torch_dtype(dtype), recipe.name
        self.is_integer = recipe.rows.num_levels is not None
        self.parts = made_with(recipe, seed=0, dtype=self.dtype)
        named = dict(self.parts.module.named_parameters())
        self.parameters = [named[spec.name] for spec in parameters]
        self._weights: Array | None = None
        self.sample_norms = SampleNorms(self.parts) if per_sample else None

    def use(self, weights: Array, *, is_training: bool) -> None:
        """Have the module's parameters be views of `weights`, ``[P]``, and its mode be right."""
        module = self.parts.module
        if module.training is not is_training:
            module.train(is_training)
        if weights is not self._weights:
            for parameter, view in zip(
                self.parameters, views(self.specs, weights).values(), strict=True
            ):
                parameter.data = tensor_of(view)
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
        """The program over these arrays; with `keys` as in training, without as in evaluation."""
        del x_squared_norms  # Layers find them in what they see.
        if not 1 <= len(x) <= self.max_rows:
            raise ModelError(f"{len(x)} rows; must be 1 to {self.max_rows}")
        return TorchBound(self, x, target, weights, gradients, keys)

    def predict(self, weights: Array, x: Array) -> Array:
        """Predictions of at most `max_rows` samples."""
        self.use(weights, is_training=False)
        parts = self.parts
        with own_code(self.name), Computing(dtype=self.dtype):
            outputs = parts.outputs(self.inputs(tensor_of(x)))
            shown = outputs if parts.prediction is None else parts.prediction(outputs)
        return array_of(shown)

    def inputs(self, x: Tensor) -> Tensor:
        """Samples as the module takes them."""
        return x.long() if self.is_integer else x


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
        self._program, self._weights, self._keys = program, weights, keys
        self._x, self._target = tensor_of(x), tensor_of(target)
        self._has_gradients = gradients is not None
        if gradients is not None:
            self._slots = [tensor_of(it) for it in views(program.specs, gradients).values()]
            self._ones = torch.ones(len(x), dtype=program.dtype)
        self.squared_norms_N: Array | None = None
        self.losses_N = self.outputs_NO = np.empty(0)

    def forward(self) -> None:
        """Losses and outputs; with gradients bound, all that the backward needs."""
        program, parts = self._program, self._program.parts
        program.use(self._weights, is_training=self._keys is not None)
        computing = Computing(self._key, program.dtype, grad=self._has_gradients)
        with own_code(program.name), computing:
            if program.sample_norms is not None and self._has_gradients:
                program.sample_norms.begin(len(self._x))
            outputs = parts.outputs(program.inputs(self._x))
            self._losses = parts.losses(outputs, self._target)
        self.losses_N, self.outputs_NO = array_of(self._losses), array_of(outputs)

    def backward(self) -> None:
        """Gradient sums into the slot; zeros where a parameter was not used."""
        program, losses = self._program, self._losses
        with own_code(program.name), Computing(self._key, program.dtype):
            ones = self._ones if losses.dtype is program.dtype else self._ones.to(losses.dtype)
            found = torch.autograd.grad(
                losses, program.parameters, ones, allow_unused=True, materialize_grads=True
            )
            torch._foreach_copy_(self._slots, [_dense(it) for it in found])
            if program.sample_norms is not None:
                self.squared_norms_N = array_of(program.sample_norms.end())

    @property
    def _key(self) -> int:
        return 0 if self._keys is None else int(self._keys[0]) >> 1


def torch_dtype(dtype: DTypeLike) -> torch.dtype:
    """PyTorch's name of it."""
    found: torch.dtype = torch.from_numpy(np.empty(0, dtype)).dtype
    return found


def tensor_of(array: Array) -> Tensor:
    """The same memory as a tensor; what may not be written, is not."""
    if array.flags.writeable:
        return torch.from_numpy(array)
    # The filters are the process's: two threads that change them at once leave them wrong.
    with _FILTERS, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array)


def array_of(tensor: Tensor) -> Array:
    """The same memory as an array."""
    found: Array = tensor.detach().numpy()
    return found


def _dense(gradient: Tensor) -> Tensor:
    """That of an embedding made with ``sparse=True`` too."""
    return gradient.to_dense() if gradient.is_sparse else gradient
