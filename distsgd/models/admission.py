"""Admission: what must hold of a model of one's own before its first step, tried on real rows.

Worker invariance rests on it: a block computed twice has the same bits, a row knows nothing of the
others in its block, a step leaves nothing behind but the weights. No I/O here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import numpy as np

from distsgd.base.arrays import Array
from distsgd.errors import ModelError
from distsgd.models.comparison import differs, equal, first_apart, some_rows
from distsgd.models.factory import Recipe
from distsgd.models.inspector import Inspector, inspector_of
from distsgd.models.own_errors import OwnCodeError
from distsgd.models.protocol import Program
from distsgd.models.rehearsal import Block, Found, Rehearsal

CLOSE, CLOSE_FLOAT32 = 1e-6, 1e-3  # Relative: what rounding in float64 and float32 stays below.
_NOT_SEEDED = (
    "what is left to chance must be drawn by the framework, which a run seeds for each block (not "
    "by random, numpy.random or the time)"
)
_OWN_ROWS = "each row must be computed by itself, or other bits come out for other workers"


Train = Callable[[Block], Found]


class First(NamedTuple):
    """The block as the first step has it, and as an evaluation after it."""

    trained: Found
    looked: Found

    @property
    def digest(self) -> str:
        """Of all bits."""
        return self.trained.digest + self.looked.digest


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

    def first(self) -> First:
        """The block in training: of one loss a row, and finite; and in evaluation, of its shape."""
        rehearsal, count = self._rehearsal, len(self._rehearsal.block)
        with self._unwritten("training"):
            found = rehearsal.train(self._program)
        if found.losses_N.shape != (count,):
            raise self._refused(
                f"gives losses of shape {found.losses_N.shape} for {count} rows; must be ({count},)"
            )
        self._check_finite(found)
        with self._unwritten("evaluation"):
            looked = rehearsal.look(self._program, rehearsal.block, is_training=False)
            shown = rehearsal.model.predict(rehearsal.weights_P, rehearsal.block.x)
        self._check_shape(looked.outputs_NO if self._is_class else shown)
        return First(found, looked)

    def check(self, first: First) -> None:
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
        self._check_kept(first)
        if self._per_sample:
            self._check_norms()
        self._check_alone()
        self._compare_again(first, self._program)

    def _refused(self, what: str) -> ModelError:
        return ModelError(f"{self._recipe.name} {what}")

    @property
    def _is_class(self) -> bool:
        return self._recipe.rows.target_kind == "class"

    @contextmanager
    def _unwritten(self, mode: str) -> Iterator[None]:
        """What a run lends stays as it is, to the bit."""
        block = self._rehearsal.block
        lent = {"weights": self._rehearsal.weights_P, "inputs": block.x, "targets": block.target}
        before = {name: array.copy() for name, array in lent.items()}
        yield
        for name, array in lent.items():
            if not equal(before[name], array):
                raise self._refused(
                    f"changes its {name} while it runs, in {mode}; they are shared, and weights "
                    "are changed by the optimiser only (compute in new tensors, and leave out "
                    ".data and what ends in _)"
                )

    def _check_shape(self, found: Array) -> None:
        """Outputs for classes, predictions for numbers: they must fit the targets."""
        rows = self._recipe.rows
        target_shape = (len(found), *rows.target_shape)
        must = (*target_shape, rows.num_outputs) if self._is_class else target_shape
        if found.shape == must:
            return
        if not self._is_class:
            way_out = "have its last layer, or prediction, fit the targets"
        elif found.shape == (len(found), rows.num_outputs, *rows.target_shape):
            way_out = "transpose(1, 2): classes come last"
            if len(rows.target_shape) > 1:
                way_out = "movedim(1, -1): classes come last"
        else:
            way_out = 'give an output for each class, or [data] label_kind = "number"'
        what = "outputs" if self._is_class else "predictions"
        raise self._refused(
            f"gives {what} of shape {found.shape} for targets of shape {target_shape}; must be "
            f"{must} ({way_out})"
        )

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

    def _check_twice(self, first: First) -> None:
        """The same weights and the same block again, by the same program and by another one."""
        rehearsal, dtype = self._rehearsal, self._rehearsal.weights_P.dtype
        if not equal(*(rehearsal.model.initialise("glorot", 0, dtype) for _ in range(2))):
            raise self._refused(f"begins with other weights a second time; {_NOT_SEEDED}")
        another = rehearsal.program()
        if shared := self._inspector.shared(self._program, another):
            raise self._refused(
                f"makes {shared} once and gives it out again; make a new one in each call"
            )
        if what := differs(first.trained, rehearsal.train(self._program)):
            raise self._refused(self._inspector.left_behind(rehearsal) or self._drawn(what))
        if what := differs(first.trained, rehearsal.train(another)):
            raise self._refused(
                f"made a second time gives other {what} for the same block: it holds numbers that "
                f"are no parameters and come by chance; {_NOT_SEEDED}"
            )

    def _check_kept(self, first: First) -> None:
        """What a program has seen before decides about nothing."""
        rehearsal, program = self._rehearsal, self._rehearsal.program()
        for others in rehearsal.block.with_other_rows(0, self._recipe.rows):
            with suppress(OwnCodeError):  # Rows far off may be none that it takes.
                rehearsal.train(program, others)
        self._compare_again(first, program)

    def _compare_again(self, first: First, program: Program) -> None:
        """The first block has its bits still, in a program that has trained on others."""
        rehearsal = self._rehearsal
        # First, while it knows the others last.
        looked = rehearsal.look(program, rehearsal.block, is_training=False)
        in_training = differs(first.trained, rehearsal.train(program))
        if what := in_training or differs(first.looked, looked):
            is_training = bool(in_training)
            others = rehearsal.block.keeping(0, rehearsal.block.turned())
            who = self._inspector.remembering(rehearsal, others, is_training=is_training)
            raise self._refused(
                f"gives other {what} in {'training' if is_training else 'evaluation'} for the same "
                f"block once it has trained on other rows: {who or 'its code'} keeps numbers that "
                "are no parameters; nothing but parameters is shared between workers and kept "
                "(make it a parameter, or do without)"
            )

    def _drawn(self, what: str) -> str:
        where = self._inspector.random(self._rehearsal) or "its code"
        return (
            f"gives other {what} for the same block a second time: {where} gives other numbers for "
            f"the same; {_NOT_SEEDED}"
        )

    def _check_apart(self, *, is_training: bool) -> None:
        """With other rows changed, the rest keep the bits of their losses.

        Kept are the rows whose numbers have a binary digit in common: of any two rows, one is kept
        once where the other changes.
        """
        number_N = np.arange(len(self._moved.block))
        for digit in range(int(number_N[-1]).bit_length()):
            for value in (0, 1):
                kept = np.flatnonzero((number_N >> digit) & 1 == value)
                self._check_kept_rows(kept, is_training=is_training)

    def _check_kept_rows(self, kept: Array, *, is_training: bool) -> None:
        rehearsal, block, program = self._moved, self._moved.block, self._program
        before = rehearsal.look(program, block, is_training=is_training)
        for others in block.with_other_rows(kept, self._recipe.rows):
            try:
                after = rehearsal.look(program, others, is_training=is_training)
            except OwnCodeError:  # Rows far off may be none that it takes.
                continue
            for row in kept.tolist():
                if equal(before.losses_N[row], after.losses_N[row]):
                    continue
                said = self._inspector.mixing(rehearsal, others, row, is_training=is_training)
                if not said and equal(before.outputs_NO[row], after.outputs_NO[row]):
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
        if what := differs(once, twice):
            raise self._refused(self._drawn(what))

    def _check_alone(self) -> None:
        """Each row as a block of its own: its loss, and its share in gradient and norms."""
        rehearsal = replace(self._moved, per_sample=self._per_sample)
        try:
            self._compare(rehearsal.cast(np.float64), CLOSE)
        except OwnCodeError:  # It computes in one dtype alone.
            self._compare(rehearsal, CLOSE_FLOAT32)

    def _compare(self, rehearsal: Rehearsal, close: float) -> None:
        """In evaluation, and in training: by halves of the block, and alone where chance allows."""
        program, train = rehearsal.program(), rehearsal.train
        self._compare_alone(
            rehearsal.block, partial(rehearsal.train_without_chance, program), close
        )
        self._compare_halves(rehearsal, program, close)
        if rehearsal.model.chance == "none":  # That was training already.
            return
        if not differs(train(program), train(program, seed=1)):
            self._compare_alone(rehearsal.block, partial(train, program), close)

    def _compare_halves(self, rehearsal: Rehearsal, program: Program, close: float) -> None:
        """What half of the rows gives to the gradient in training is the same among other rows.

        With halves A, B and others A', B' in their places, ``AB + A'B' = AB' + A'B`` of gradients.
        """
        block, others = rehearsal.block, rehearsal.block.turned()
        half = np.arange(len(block) // 2)
        blocks = block, others, block.keeping(half, others), others.keeping(half, block)
        found = [rehearsal.train(program, it).gradient_P for it in blocks]
        gradients = [it for it in found if it is not None]
        a, b, c, d = gradients
        gap = np.linalg.norm((a + b) - (c + d))
        if gap > close * sum(map(np.linalg.norm, gradients)):
            raise self._refused(
                "mixes samples in its backward: in training the share of rows in the gradient "
                f"changes with the other rows (by {gap:.3g}); look at backward methods of its own, "
                f"and at hooks; {_OWN_ROWS}"
            )

    def _compare_alone(self, all_rows: Block, train: Train, close: float) -> None:
        rows_N = some_rows(len(all_rows))
        block, count = all_rows.take(rows_N), len(rows_N)
        whole, together = train(all_rows), train(block)
        alone = [train(block.alone(place)) for place in range(count)]
        losses_N = np.array([found.losses_N[0] for found in alone])
        for found, its_N in ((whole, rows_N), (together, np.arange(count))):
            together_N = found.losses_N[its_N]
            if (at := first_apart(together_N, losses_N, close)) is not None:
                raise self._refused(
                    f"gives row {rows_N[at]} the loss {together_N[at]:.6g} among "
                    f"{len(found.losses_N)} rows and {losses_N[at]:.6g} alone: sample_losses must "
                    f"not divide by the number of rows (the mean is the run's), and {_OWN_ROWS}"
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
        if found_N is not None and (at := first_apart(found_N, norms_N, close)) is not None:
            raise self._refused(
                f"gives row {rows_N[at]} the squared gradient norm {found_N[at]:.6g}, and computed "
                f"alone it is {norms_N[at]:.6g}: a module does not fit the rule for norms of its "
                "kind (set [statistics] per_sample = false)"
            )
