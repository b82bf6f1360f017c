"""A program of JAX: it reads the shared vector and a block, and gives losses and gradient sums.

What is differentiated is the sum of the losses of the rows that were given. Each set of shapes is
compiled once, whole: losses, outputs, gradients and norms come of one call.

Shape letters: N samples, R rows of a program, P parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from numpy.typing import DTypeLike

from distsgd.autodiff.graph import ParameterSpec, total_size
from distsgd.base.arrays import Array
from distsgd.errors import ModelError
from distsgd.models.factory import Recipe
from distsgd.models.jax.bound import JaxBound
from distsgd.models.jax.device import Compiled, Shaped, wrapped
from distsgd.models.jax.functions import Block, Functions, gradients_of
from distsgd.models.jax.norms import with_squared_norms
from distsgd.models.jax.parts import Parts
from distsgd.models.jax.sizes import Padded
from distsgd.models.jax.tree import leaves_of
from distsgd.models.own_errors import own_code

_TARGET = np.dtype(np.int32)  # JAX's own integers, of classes and of integer features.


class JaxProgram:
    """Forward and backward of functions of JAX; see `distsgd.models.Program`."""

    def __init__(
        self,
        recipe: Recipe,
        parts: Parts,
        specs: Sequence[ParameterSpec],
        max_rows: int,
        dtype: DTypeLike,
        *,
        per_sample: bool,
    ) -> None:
        self.recipe, self.parts, self.specs = recipe, parts, specs
        self.max_rows, self.dtype, self.per_sample = max_rows, np.dtype(dtype), per_sample
        self._tree = jax.tree_util.tree_structure(parts.shapes)
        self._compiled: dict[tuple[Any, ...], Compiled] = {}

    def bind(
        self,
        x: Array,
        target: Array,
        *,
        weights: Array,
        gradients: Array | None = None,
        x_squared_norms: Array | None = None,
        keys: Array | None = None,
    ) -> JaxBound:
        """The program over these arrays; compiled where it is the first of its shapes."""
        del x_squared_norms  # The program has the rows themselves.
        self._check_rows(len(x))
        rows = self.padded(x), self.target(target)
        takes_key = self.parts.takes_key
        key = keys.view(np.uint32) if keys is not None and takes_key else None
        # Without chance there are no keys; then what is bound tells.
        is_training = keys is not None if takes_key else gradients is not None
        run = self._program("gradients" if gradients is not None else "losses", rows, is_training)
        slots = [] if gradients is None else leaves_of(self.specs, gradients)
        return JaxBound(run, weights, rows, len(x), slots, key)

    def predict(self, weights: Array, x: Array) -> Array:
        """Predictions of at most `max_rows` samples."""
        self._check_rows(len(x))
        rows = self.padded(x)
        run = self._program("predictions", (rows,), is_training=False)
        found: Array = np.asarray(run(weights, rows.current()))[: len(x)]
        return found

    def seen(self, outputs_NO: Array, target: Array) -> tuple[Array, Array]:
        """What is shown of outputs, and the gradient of each row's own loss by them."""
        rows = Padded(outputs_NO, self.dtype), self.target(target)
        arrays = [it.current() for it in rows]
        run = self._once("seen", is_training=False, shapes=[_shape_of(it) for it in arrays])
        shown, deltas = (np.asarray(it)[: len(target)] for it in run(*arrays))
        return shown, deltas

    def padded(self, x: Array) -> Padded:
        """Samples as the functions take them."""
        return Padded(x, _TARGET if self.recipe.rows.num_levels is not None else self.dtype)

    def target(self, target: Array) -> Padded:
        """Targets as the functions take them."""
        return Padded(target, _TARGET if target.dtype.kind == "i" else self.dtype)

    def _check_rows(self, num_rows: int) -> None:
        if not 1 <= num_rows <= self.max_rows:
            raise ModelError(f"{num_rows} rows; must be 1 to {self.max_rows}")

    def _program(self, what: str, rows: tuple[Padded, ...], is_training: bool) -> Compiled:  # noqa: FBT001
        shapes: list[Shaped | None] = [Shaped((total_size(self.specs),), self.dtype)]
        shapes += [_shape_of(it.array) for it in rows]
        if what != "predictions":
            has_key = is_training and self.parts.takes_key
            shapes += [Shaped((), np.int32), Shaped((2,), np.uint32) if has_key else None]
        return self._once(what, is_training, shapes)

    def _once(self, what: str, is_training: bool, shapes: Sequence[Shaped | None]) -> Compiled:  # noqa: FBT001
        """The program for arguments of these shapes, compiled where it is the first of them."""
        kind = (what, is_training, *shapes)
        found = self._compiled.get(kind)
        if found is None:
            function = getattr(self, f"_{what}")(is_training)
            with own_code(self.recipe.name):
                found = self._compiled[kind] = Compiled(function, self.dtype, *shapes)
        return found

    def _outputs(self, leaves: Sequence[Any], x: Any, key: Any, is_training: bool) -> Any:  # noqa: FBT001
        parameters = jax.tree_util.tree_unflatten(self._tree, leaves)
        outputs = self.parts.apply(parameters, x, key, is_training)
        shape = getattr(outputs, "shape", None)
        if shape is None or shape[:1] != x.shape[:1]:
            shown = type(outputs).__name__ if shape is None else shape
            raise ModelError(
                f"apply of {self.recipe.name} gives {shown} for {len(x)} rows; must be an array "
                f"({len(x)}, ...), the outputs of each row"
            )
        return outputs

    def _row_losses(self, outputs: Any, target: Any) -> Any:
        losses = self.parts.sample_losses(outputs, target)
        if getattr(losses, "shape", None) != target.shape[:1]:
            shown = getattr(losses, "shape", type(losses).__name__)
            raise ModelError(
                f"sample_losses of {self.recipe.name} gives {shown} for {len(target)} rows; must "
                f"be ({len(target)},), one loss for each row (no mean or sum over the rows)"
            )
        return losses.astype(self.dtype)

    def _losses(self, is_training: bool) -> Callable[..., Any]:  # noqa: FBT001
        def losses(flat: Any, x: Any, target: Any, num_rows: Any, data: Any) -> Any:
            del num_rows  # What comes of the others is cut off.
            outputs = self._outputs(leaves_of(self.specs, flat), x, wrapped(data), is_training)
            return self._row_losses(outputs, target), outputs.astype(self.dtype)

        return losses

    def _gradients(self, is_training: bool) -> Callable[..., Any]:  # noqa: FBT001
        def outputs(leaves: Any, x: Any, key: Any) -> Any:
            return self._outputs(leaves, x, key, is_training)

        functions = Functions(outputs, self._row_losses)

        def gradients(flat: Any, x: Any, target: Any, num_rows: Any, data: Any) -> Any:
            block = Block(x, target, num_rows, wrapped(data))
            leaves, norms = leaves_of(self.specs, flat), None
            if self.per_sample:
                found, norms = with_squared_norms(functions, leaves, block)
            else:
                found = gradients_of(functions, leaves, block)
            return found.losses, found.outputs.astype(self.dtype), found.gradients, norms

        return gradients

    def _predictions(self, is_training: bool) -> Callable[..., Any]:  # noqa: FBT001
        def predictions(flat: Any, x: Any) -> Any:
            outputs = self._outputs(leaves_of(self.specs, flat), x, None, is_training)
            shown = self.parts.prediction
            return (outputs if shown is None else shown(outputs)).astype(self.dtype)

        return predictions

    def _seen(self, is_training: bool) -> Callable[..., Any]:  # noqa: FBT001
        del is_training  # What made the outputs is not run.

        def seen(outputs: Any, target: Any) -> tuple[Any, Any]:
            shown = self.parts.prediction
            predictions = outputs if shown is None else shown(outputs)
            deltas = jax.grad(lambda it: self._row_losses(it, target).sum())(outputs)
            return predictions.astype(self.dtype), deltas

        return seen


def _shape_of(array: Array) -> Shaped:
    return Shaped(array.shape, array.dtype)
