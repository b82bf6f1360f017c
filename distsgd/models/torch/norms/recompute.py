"""A module without a rule: it is run again, and its gradients are taken row by row.

Shape letter: N samples.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from distsgd.models.torch.norms.axes import RowAxis, tensors_of

Weights = dict[str, Tensor]
Given = Callable[[Weights, list[Tensor]], list[Tensor]]
"""What one row gets, from the parameters and what it takes."""


class Recomputation:
    """A call of a module, as a function of one row and of the module's parameters.

    Args:
        module: What was called.
        names: Its parameters whose gradients are wanted.
        taken: Arguments and keyword arguments.
        in_axes: For each tensor in them, where the rows lie.
    """

    def __init__(
        self, module: nn.Module, names: list[str], taken: Any, in_axes: list[RowAxis]
    ) -> None:
        self._module, self._in_axes = module, in_axes
        named = dict(module.named_parameters())
        self._weights = {name: named[name].detach() for name in names}
        leaves, self._tree = pytree.tree_flatten(taken)
        self._leaves = [it.detach() if isinstance(it, Tensor) else it for it in leaves]
        self._tensors = [it for it in self._leaves if isinstance(it, Tensor)]

    def gradients(
        self, deltas: list[Tensor | None], out_axes: list[RowAxis], rows: slice
    ) -> Weights:
        """Per-sample gradients of some rows, ``[n, *shape]``.

        Args:
            deltas: The gradient by each tensor given; None where nothing flowed back.
            out_axes: For each of them, where the rows lie.
            rows: Which rows.
        """
        wanted = [(at, out_axes[at] or 0) for at, it in enumerate(deltas) if it is not None]
        flowing = [deltas[at].movedim(axis, 0)[rows] for at, axis in wanted]  # type: ignore[union-attr]
        taken = [
            it if axis is None else it.movedim(axis, 0)[rows]
            for it, axis in zip(self._tensors, self._in_axes, strict=True)
        ]

        def given(weights: Weights, taken: list[Tensor]) -> list[Tensor]:
            outputs = self._call(weights, taken)
            return [outputs[at].squeeze(axis) for at, axis in wanted]

        try:
            return self._at_once(given, taken, flowing)
        except RuntimeError:  # Some layers it cannot run, such as LSTM.
            return self._row_by_row(given, taken, flowing)

    def _at_once(self, given: Given, taken: list[Tensor], flowing: list[Tensor]) -> Weights:
        def each(taken: list[Tensor], flowing: list[Tensor]) -> Weights:
            pull = torch.func.vjp(lambda weights: given(weights, taken), self._weights)[1]
            return cast(Weights, pull(flowing)[0])

        in_dims = [None if axis is None else 0 for axis in self._in_axes]
        with warnings.catch_warnings():  # Slow it may be; it is exact.
            warnings.filterwarnings("ignore", message="There is a performance drop")
            every = torch.func.vmap(each, in_dims=(in_dims, 0))(taken, flowing)
        return cast(Weights, every)

    def _row_by_row(self, given: Given, taken: list[Tensor], flowing: list[Tensor]) -> Weights:
        weights = {name: it.detach().requires_grad_() for name, it in self._weights.items()}
        found = []
        for row, deltas in enumerate(zip(*flowing, strict=True)):
            seen = [
                it if axis is None else it[row]
                for it, axis in zip(taken, self._in_axes, strict=True)
            ]
            with torch.enable_grad():
                outputs = given(weights, seen)
            found.append(
                torch.autograd.grad(
                    outputs,
                    list(weights.values()),
                    deltas,
                    allow_unused=True,
                    materialize_grads=True,
                )
            )
        return dict(zip(weights, map(torch.stack, zip(*found, strict=True)), strict=True))

    def _call(self, weights: Weights, taken: list[Tensor]) -> list[Tensor]:
        given = iter(
            it if axis is None else it.unsqueeze(axis)
            for it, axis in zip(taken, self._in_axes, strict=True)
        )
        leaves = [next(given) if isinstance(it, Tensor) else it for it in self._leaves]
        args, kwargs = pytree.tree_unflatten(leaves, self._tree)
        return tensors_of(torch.func.functional_call(self._module, weights, args, kwargs))
