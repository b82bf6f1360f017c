"""Admission: what must hold of a model of one's own before its first step, tried on real rows.

Worker invariance rests on it: a block computed twice has the same bits, a row knows nothing of the
others in its block, a step leaves nothing behind but the weights. No I/O here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from distsgd.base.arrays import Array
from distsgd.errors import ModelError
from distsgd.models.factory import Recipe
from distsgd.models.inspector import Inspector, inspector_of
from distsgd.models.own_errors import OwnCodeError
from distsgd.models.rehearsal import Found, Rehearsal

ROWS_ALONE = 8
CLOSE, CLOSE_FLOAT32 = 1e-6, 1e-3  # Relative: what rounding in float64 and float32 stays below.
_NOT_SEEDED = (
    "what is left to chance must be drawn by the framework, which a run seeds for each block (not "
    "by random, numpy.random or the time)"
)
_OWN_ROWS = "each row must be computed by itself, or other bits come out for other workers"


class Admission:
    """The checks of one model; each raises a `ModelError` with what is wrong and the way out.

    Args:
        recipe: Of the model.
        rehearsal: The model with its first rows and weights, as the run has them.
    """

    def __init__(self, recipe: Recipe, rehearsal: Rehearsal) -> None:
        self._recipe, self._rehearsal = recipe, replace(rehearsal, per_sample=False)
        self._moved, self._per_sample = self._rehearsal.moved(), rehearsal.per_sample
        self._inspector: Inspector = inspector_of(recipe)
        self._program = self._rehearsal.program()

    def first(self) -> Found:
        """The block as the first step has it: of one loss a row, and finite."""
        found, count = self._rehearsal.train(self._program), len(self._rehearsal.block)
        if found.losses_N.shape != (count,):
            raise self._refused(
                f"gives losses of shape {found.losses_N.shape} for {count} rows; must be ({count},)"
            )
        self._check_finite(found)
        return found

    def check(self, first: Found) -> None:
        """All that must hold besides; `first` is what `first` gave.

        Norms last: their rules trust that rows are apart.
        """
        self._check_twice(first)
        moved = self._moved
        if not np.isfinite(moved.train(self._program).losses_N).all():
            self._moved = moved = self._rehearsal  # Its weights have a domain of their own.
        if len(moved.block) > 1:
            for is_training in (True, False):
                self._check_apart(is_training=is_training)
        if left := self._inspector.left_behind(moved):
            raise self._refused(left)
        if self._per_sample:
            self._check_norms()
        self._check_alone()

    def _refused(self, what: str) -> ModelError:
        return ModelError(f"{self._recipe.name} {what}")

    def _check_finite(self, found: Found) -> None:
        rehearsal, model = self._rehearsal, self._rehearsal.model
        for name, view in model.views(rehearsal.weights_P).items():
            if not np.isfinite(view).all():
                raise self._refused(
                    f"begins with weights that are not finite, in {name}; mend how they are made"
                )
        wrong_N = ~np.isfinite(found.losses_N)
        if wrong_N.any():
            row = int(wrong_N.argmax())
            where = self._inspector.not_finite(rehearsal) or "sample_losses"
            raise self._refused(
                f"gives row {row} the loss {found.losses_N[row]} by its first weights; {where} is "
                "the first whose output is not finite (mend it, or the weights it begins with)"
            )
        assert found.gradient_P is not None
        for name, view in model.views(found.gradient_P).items():
            if not np.isfinite(view).all():
                raise self._refused(
                    f"gives a gradient by {name} that is not finite, by its first weights, though "
                    "the losses are (a root or a logarithm at 0, or a mask that is multiplied?)"
                )

    def _check_twice(self, first: Found) -> None:
        """The same weights and the same block again, by the same program and by another one."""
        rehearsal, dtype = self._rehearsal, self._rehearsal.weights_P.dtype
        if not _equal(*(rehearsal.model.initialise("glorot", 0, dtype) for _ in range(2))):
            raise self._refused(f"begins with other weights a second time; {_NOT_SEEDED}")
        another = rehearsal.program()
        if shared := self._inspector.shared(self._program, another):
            raise self._refused(
                f"makes {shared} once and gives it out again; make a new one in each call"
            )
        if what := _differs(first, rehearsal.train(self._program)):
            raise self._refused(self._inspector.left_behind(rehearsal) or self._drawn(what))
        if what := _differs(first, rehearsal.train(another)):
            raise self._refused(
                f"made a second time gives other {what} for the same block: it holds numbers that "
                f"are no parameters and come by chance; {_NOT_SEEDED}"
            )

    def _drawn(self, what: str) -> str:
        where = self._inspector.random(self._rehearsal) or "its code"
        return (
            f"gives other {what} for the same block a second time: {where} gives other numbers for "
            f"the same; {_NOT_SEEDED}"
        )

    def _check_apart(self, *, is_training: bool) -> None:
        """With every other row changed, a row's loss keeps its bits."""
        rehearsal, block = self._moved, self._moved.block
        program = self._program
        before = rehearsal.look(program, block, is_training=is_training)
        for row in (0, len(block) - 1):
            for others in block.with_other_rows(row, self._recipe.rows):
                try:
                    after = rehearsal.look(program, others, is_training=is_training)
                except OwnCodeError:  # Rows far off may be none that it takes.
                    continue
                if _equal(before.losses_N[row], after.losses_N[row]):
                    continue
                said = self._inspector.mixing(rehearsal, others, row, is_training=is_training)
                if not said and _equal(before.outputs_NO[row], after.outputs_NO[row]):
                    said = 'sample_losses mixes samples; give one loss a row (reduction="none")'
                mode = "training" if is_training else "evaluation"
                raise ModelError(
                    f"{self._recipe.name}: {said or 'its forward mixes samples'} (in {mode} a "
                    f"row's loss changes with the other rows of its block; {_OWN_ROWS})"
                )

    def _check_norms(self) -> None:
        """They can be had, and are the same twice."""
        rehearsal = replace(self._rehearsal, per_sample=True)
        try:
            program = rehearsal.program()
            once, twice = rehearsal.train(program), rehearsal.train(program)
        except OwnCodeError as error:  # Without norms it did not.
            raise self._refused(
                f"gives no norms of per-sample gradients, since it raises {error.reason} where "
                f"they are computed (set [statistics] per_sample = false):\n{error.frames}".rstrip()
            ) from error
        if what := _differs(once, twice):
            raise self._refused(self._drawn(what))

    def _check_alone(self) -> None:
        """Each row as a block of its own: its loss, and its share in gradient and norms."""
        rehearsal = replace(self._moved, per_sample=self._per_sample)
        try:
            self._compare_alone(rehearsal.cast(np.float64), CLOSE)
        except OwnCodeError:  # It computes in one dtype alone.
            self._compare_alone(rehearsal, CLOSE_FLOAT32)

    def _compare_alone(self, rehearsal: Rehearsal, close: float) -> None:
        block = rehearsal.block.first(ROWS_ALONE)
        count, program = len(block), rehearsal.program(ROWS_ALONE)
        together = rehearsal.train_without_chance(program, block)
        alone = [rehearsal.train_without_chance(program, block.alone(row)) for row in range(count)]
        losses_N = np.array([found.losses_N[0] for found in alone])
        if (row := _first_apart(together.losses_N, losses_N, close)) is not None:
            raise self._refused(
                f"gives row {row} the loss {together.losses_N[row]:.6g} among {count} rows and "
                f"{losses_N[row]:.6g} alone: sample_losses must not divide by the number of rows "
                f"(the mean is the run's), and {_OWN_ROWS}"
            )
        gradients = [found.gradient_P for found in alone if found.gradient_P is not None]
        norms_N = np.array([(gradient_P**2).sum() for gradient_P in gradients])
        assert together.gradient_P is not None
        gap = np.linalg.norm(together.gradient_P - np.sum(gradients, axis=0))
        if gap > close * np.sqrt(norms_N).sum():
            raise self._refused(
                f"gives for {count} rows a gradient that is not the sum of theirs alone (by "
                f"{gap:.3g}); look at backward methods of its own, and at hooks"
            )
        found_N = together.squared_norms_N
        if found_N is not None and (row := _first_apart(found_N, norms_N, close)) is not None:
            raise self._refused(
                f"gives row {row} the squared gradient norm {found_N[row]:.6g}, and computed alone "
                f"it is {norms_N[row]:.6g}: a module does not fit the rule for norms of its kind "
                "(set [statistics] per_sample = false)"
            )


def _equal(a: Array, b: Array) -> bool:
    return np.ascontiguousarray(a).tobytes() == np.ascontiguousarray(b).tobytes()


def _differs(first: Found, second: Found) -> str:
    """What of two computings of a block has other bits; "" where nothing."""
    named: dict[str, Callable[[Found], Array | None]] = {
        "losses": lambda it: it.losses_N,
        "gradients": lambda it: it.gradient_P,
        "norms": lambda it: it.squared_norms_N,
    }
    for name, part in named.items():
        a, b = part(first), part(second)
        if a is not None and b is not None and not _equal(a, b):
            return name
    return ""


def _first_apart(found_N: Array, wanted_N: Array, close: float) -> int | None:
    """The first row whose numbers are further apart than rounding makes them."""
    scale = max(float(np.abs(wanted_N).max()), np.finfo(np.float64).tiny)
    apart_N = ~(np.abs(found_N - wanted_N) <= close * np.maximum(np.abs(wanted_N), close * scale))
    return int(apart_N.argmax()) if apart_N.any() else None
