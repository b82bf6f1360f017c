"""Which module of a PyTorch model breaks a rule: its calls are watched by hooks, and compared.

Modules end in the order in which they compute, inner ones first: the first that breaks the rule is
the one to blame.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch

from distsgd.models.inspector import Inspector
from distsgd.models.protocol import Program
from distsgd.models.rehearsal import Block, Rehearsal

Tensor: TypeAlias = torch.Tensor
INSTEAD = {  # Of classes whose name begins so.
    "BatchNorm": "GroupNorm keeps them apart",
    "SyncBatchNorm": "GroupNorm keeps them apart",
    "LazyBatchNorm": "GroupNorm keeps them apart",
}


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a module: its label, what went in and what came out, copied."""

    label: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]


class ModuleInspector(Inspector):
    """See `Inspector`."""

    def mixing(self, rehearsal: Rehearsal, others: Block, row: int, *, is_training: bool) -> str:
        """The first module whose output row changes though its input row does not."""
        program = rehearsal.program()
        count = len(rehearsal.block)
        before = _calls(rehearsal, program, rehearsal.block, is_training=is_training)
        after = _calls(rehearsal, program, others, is_training=is_training)
        for a, b in zip(before, after, strict=False):
            if _same(a.inputs, b.inputs, row, count) and not _same(
                a.outputs, b.outputs, row, count
            ):
                kind = a.label.partition(" ")[0]
                instead = next((it for name, it in INSTEAD.items() if kind.startswith(name)), "")
                return f"{a.label} mixes samples{instead and f'; {instead}'}"
        return ""

    def shared(self, first: Program, second: Program) -> str:
        """The first module that is in both."""
        there = {id(module) for module in _module(second).modules()}
        for name, module in _module(first).named_modules():
            if id(module) in there:
                return _label(name, module)
        return ""

    def random(self, rehearsal: Rehearsal) -> str:
        """The first module that gives other outputs for the same inputs."""
        program = rehearsal.program()
        once = _calls(rehearsal, program, rehearsal.block, is_training=True)
        twice = _calls(rehearsal, program, rehearsal.block, is_training=True)
        return _first_other(once, twice)

    def remembering(self, rehearsal: Rehearsal, others: Block, *, is_training: bool) -> str:
        """The first module that does in a program that has trained on `others`."""
        found = []
        for block in (rehearsal.block, others):
            program = rehearsal.program()
            rehearsal.train(program, block)
            found.append(_calls(rehearsal, program, rehearsal.block, is_training=is_training))
        return _first_other(*found)

    def not_finite(self, rehearsal: Rehearsal) -> str:
        """The first module that makes finite inputs into something else."""
        for call in _calls(rehearsal, rehearsal.program(), rehearsal.block, is_training=True):
            if all(map(_is_finite, call.inputs)) and not all(map(_is_finite, call.outputs)):
                return call.label
        return ""

    def left_behind(self, rehearsal: Rehearsal) -> str:
        """The first buffer that a forward in training changes."""
        program = rehearsal.program()
        module = _module(program)
        before = {name: it.clone() for name, it in module.named_buffers()}
        rehearsal.look(program, rehearsal.block, is_training=True)
        after = dict(module.named_buffers())
        for name, it in after.items():
            if name not in before or not _same((before[name],), (it,)):
                owner, _, buffer = name.rpartition(".")
                label = _label(owner, module.get_submodule(owner))
                way_out = (
                    "set track_running_stats = False"
                    if hasattr(module.get_submodule(owner), "track_running_stats")
                    else "make it a parameter, or do without"
                )
                return (
                    f"changes the buffer {buffer!r} of {label} in training; nothing but parameters "
                    f"is shared between workers and kept ({way_out})"
                )
        return ""


def _module(program: Program) -> torch.nn.Module:
    module: torch.nn.Module = program.parts.module  # type: ignore[attr-defined]  # A TorchProgram.
    return module


def _label(name: str, module: torch.nn.Module) -> str:
    kind = type(module).__name__
    return f"{kind} {name!r}" if name else f"its {kind}"


def _calls(
    rehearsal: Rehearsal, program: Program, block: Block, *, is_training: bool
) -> list[Call]:
    """All calls of modules in a forward, in the order in which they end."""
    calls: list[Call] = []
    with _watched(_module(program), calls.append):
        rehearsal.look(program, block, is_training=is_training)
    return calls


def _first_other(once: Sequence[Call], twice: Sequence[Call]) -> str:
    """The first module that gives other outputs for the same inputs."""
    for a, b in zip(once, twice, strict=False):
        if _same(a.inputs, b.inputs) and not _same(a.outputs, b.outputs):
            return a.label
    return ""


@contextmanager
def _watched(root: torch.nn.Module, seen: Callable[[Call], None]) -> Iterator[None]:
    """Call `seen` with each call of a module of `root` inside the block."""
    open_inputs: list[tuple[Tensor, ...]] = []
    handles: list[Any] = []

    def watch(label: str, module: torch.nn.Module) -> None:
        def before(_: torch.nn.Module, args: Any, kwargs: Any) -> None:
            open_inputs.append(_tensors((args, kwargs)))

        def after(_: torch.nn.Module, __: Any, ___: Any, outputs: Any) -> None:
            seen(Call(label, open_inputs.pop(), _tensors(outputs)))

        handles.append(module.register_forward_pre_hook(before, with_kwargs=True))
        handles.append(module.register_forward_hook(after, with_kwargs=True))

    for name, module in root.named_modules():
        watch(_label(name, module), module)
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _tensors(value: Any) -> tuple[Tensor, ...]:
    """Copies of all tensors in nested tuples, lists and dicts."""
    if torch.is_tensor(value):
        return (value.detach().clone(),)
    if isinstance(value, dict):
        value = tuple(value.values())
    if isinstance(value, tuple | list):
        return tuple(tensor for it in value for tensor in _tensors(it))
    return ()


def _same(a: Sequence[Tensor], b: Sequence[Tensor], row: int | None = None, count: int = 0) -> bool:
    """The same bits; of one row of `count`, where that is given."""
    if len(a) != len(b):
        return False
    return all(
        _bits(_part(x, row, count)) == _bits(_part(y, row, count))
        for x, y in zip(a, b, strict=True)
    )


def _part(tensor: Tensor, row: int | None, count: int) -> Tensor:
    """What belongs to a row: samples come first, maybe each as several, or second."""
    if row is None or not tensor.ndim:
        return tensor
    if tensor.shape[0] and tensor.shape[0] % count == 0:
        return tensor.reshape(count, -1)[row]
    if tensor.ndim > 1 and tensor.shape[1] == count:
        return tensor[:, row]
    return tensor


def _bits(tensor: Tensor) -> bytes:
    found: bytes = tensor.contiguous().numpy().tobytes()
    return found


def _is_finite(tensor: Tensor) -> bool:
    return bool(torch.isfinite(tensor).all())
