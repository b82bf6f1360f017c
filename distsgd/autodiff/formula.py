"""Formulas of arrays, ``d * np.cos(x)``, made operations that allocate nothing when they run.

Place in the loop: what an element-wise gate is written in. A formula is a plain function; it is
called once, when a gate is staged, with terms in place of arrays, and each ufunc or operator that
it uses becomes one operation in the order of the calls. So the bits are those of the same ufuncs
called by hand. No I/O here, and no values: only shapes and dtypes are known.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

from distsgd.autodiff.gate import OpContext, Operation, constant
from distsgd.base.arrays import Array

_ANSWERS = frozenset({np.greater, np.greater_equal, np.less, np.less_equal, np.signbit})


def arguments_of(formula: Callable[..., Any]) -> tuple[str, ...]:
    """What a formula reads, by its parameters' names; a ufunc ``x``, or ``a`` and ``b``."""
    if isinstance(formula, np.ufunc):
        return ("x",) if formula.nin == 1 else ("a", "b")
    return tuple(inspect.signature(formula).parameters)


class Term(NDArrayOperatorsMixin):
    """An array of a formula while it is taken down: given, or the result of one of its steps.

    Attributes:
        shape: Of the array.
        dtype: In which the formula is computed: that of the gate's output.
    """

    __slots__ = ("_steps", "array", "dtype", "is_answer", "shape")
    # A term is itself alone: ``==`` is no step of a formula.
    __eq__, __ne__, __hash__ = object.__eq__, object.__ne__, object.__hash__

    def __init__(self, steps: list[_Step], like: Array, array: Array | None = None) -> None:
        self._steps, self.array = steps, array
        self.shape, self.dtype, self.is_answer = like.shape, like.dtype, False

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *operands: Any) -> Term:
        assert method == "__call__", f"a formula has {ufunc.__name__}.{method}"
        result = Term(self._steps, np.broadcast_to(np.zeros((), self.dtype), self.shape))
        result.is_answer = ufunc in _ANSWERS
        taken = (
            operand if isinstance(operand, Term | np.ndarray) else constant(operand, self.dtype)
            for operand in operands
        )
        self._steps.append(_Step(ufunc, tuple(taken), result))
        return result


class _Step(NamedTuple):
    ufunc: np.ufunc
    operands: tuple[Term | Array, ...]
    result: Term

    def reads(self, terms: Iterable[Term]) -> bool:
        return any(operand is term for operand in self.operands for term in terms)


def stage_formula(
    formula: Callable[..., Any],
    context: OpContext,
    out: Array,
    *,
    arrays: Mapping[str, Array],
    settings: object = None,
) -> list[Operation]:
    """Operations that write what `formula` gives into `out`.

    Intermediate results take memory that is free by then: `out` itself where that is not the memory
    of an array still to be read, or buffers of the context, as few as the formula needs.

    Args:
        formula: A function of arrays by name that uses ufuncs and operators only, or a ufunc. Of
            its parameters, those that are not in `arrays` are attributes of `settings`.
        context: Whose buffers are used.
        out: Overwritten; may be the very memory of one of `arrays`.
        arrays: What the formula may read, by name; never written, but for `out`.
        settings: The gate.
    """
    steps: list[_Step] = []
    given = {name: Term(steps, out, array) for name, array in arrays.items()}
    names = arguments_of(formula)
    result = formula(*(given[name] if name in given else getattr(settings, name) for name in names))
    if not isinstance(result, Term):
        return [partial(out.fill, result)]
    if result.array is not None:
        return [partial(np.copyto, out, result.array)]
    assert steps[-1].result is result, "a formula has a step that it does not use"
    shared = [term for name, term in given.items() if np.may_share_memory(arrays[name], out)]
    free_from = max((i for i, step in enumerate(steps) if step.reads(shared)), default=0)
    memory = _Memory(context, out)
    operations: list[Operation] = []
    for i, step in enumerate(steps):
        spent = [
            term
            for term in dict.fromkeys(o for o in step.operands if isinstance(o, Term))
            if term.array is None and not any(later.reads([term]) for later in steps[i + 1 :])
        ]
        operands = [o if isinstance(o, np.ndarray) else memory.of(o) for o in step.operands]
        memory.release(spent)
        into = memory.take(step.result, is_last=step.result is result, out_is_free=i >= free_from)
        # By position, which is faster; numpy takes it so of all but these two.
        by_name = step.ufunc in (np.maximum, np.minimum)
        operations.append(
            partial(step.ufunc, *operands, out=into)
            if by_name
            else partial(step.ufunc, *operands, into)
        )
    return operations


class _Memory:
    """Where the intermediate results of a formula lie."""

    def __init__(self, context: OpContext, out: Array) -> None:
        self._site, self._out = context, out
        self._places: dict[Term, Array] = {}

    def of(self, term: Term) -> Array:
        return self._places[term] if term.array is None else term.array

    def release(self, terms: Iterable[Term]) -> None:
        for term in terms:
            del self._places[term]

    def take(self, term: Term, *, is_last: bool, out_is_free: bool) -> Array:
        taken = self._places.values()
        if is_last or (
            out_is_free and not term.is_answer and not any(place is self._out for place in taken)
        ):
            place = self._out
        else:
            kind, dtype = ("answer", np.bool_) if term.is_answer else ("term", self._out.dtype)
            number = 0
            while any(place is self._buffer(kind, number, dtype) for place in taken):
                number += 1
            place = self._buffer(kind, number, dtype)
        self._places[term] = place
        return place

    def _buffer(self, kind: str, number: int, dtype: Any) -> Array:
        return self._site.buffer(f"{kind}_{number}", self._out.shape, dtype)
