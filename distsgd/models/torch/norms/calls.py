"""The calls of modules in one forward: what each took and gave, and who used which parameter."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from distsgd.autodiff.gate import Shape
from distsgd.models.torch.norms.axes import tensors_of, versions_of


@dataclass(slots=True, eq=False)
class Call:
    """One call of a module.

    Attributes:
        module: What was called.
        label: Its type and name, for people.
        caller: The call inside which it was made; None for the outermost.
        taken: Shapes of the tensors it took.
        given: Shapes of the tensors it gave.
        flows: Which of these a gradient can flow back to.
        draws: Whether it drew random numbers.
        writes: Whether it wrote into what it took.
        used: The parameters that functions took inside it, outside of the calls that it made.
    """

    module: nn.Module
    label: str
    caller: Call | None
    taken: list[Shape]
    given: list[Shape] = field(default_factory=list)
    flows: list[bool] = field(default_factory=list)
    draws: bool = False
    writes: bool = False
    used: list[Tensor] = field(default_factory=list)
    span: tuple[int, int] = (0, 0)


def calls_of(module: nn.Module, args: Any, kwargs: Any, num_rows: int) -> list[Call]:
    """Those of a forward on some rows of these, in the order in which they end.

    Nothing drawn inside changes what is drawn afterwards.
    """
    args, kwargs = pytree.tree_map_only(
        torch.Tensor, lambda it: it[torch.arange(num_rows) % len(it)], (args, kwargs)
    )
    recorder = _Recorder()
    with torch.random.fork_rng(devices=[]), torch.enable_grad(), recorder.watching(module):
        outputs = module(*args, **kwargs)
    recorder.attribute(tensors_of(outputs))
    return recorder.ended


class _Recorder:
    def __init__(self) -> None:
        self.ended: list[Call] = []
        self._open: list[tuple[Call, list[int], Tensor]] = []

    @contextmanager
    def watching(self, module: nn.Module) -> Iterator[None]:
        with ExitStack() as stack:
            for name, each in module.named_modules():
                label = f"{type(each).__name__} '{name}'" if name else type(each).__name__

                def begin(each: nn.Module, args: Any, kwargs: Any, label: str = label) -> None:
                    self._begin(each, label, tensors_of((args, kwargs)))

                def end(_: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
                    self._end(tensors_of((args, kwargs)), tensors_of(output))

                before = each.register_forward_pre_hook(begin, prepend=True, with_kwargs=True)
                stack.callback(before.remove)
                stack.callback(each.register_forward_hook(end, with_kwargs=True).remove)
            yield

    def _begin(self, module: nn.Module, label: str, taken: list[Tensor]) -> None:
        caller = self._open[-1][0] if self._open else None
        call = Call(module, label, caller, [tuple(it.shape) for it in taken])
        call.span = (_now(), 0)
        self._open.append((call, versions_of(taken), torch.get_rng_state()))

    def _end(self, taken: list[Tensor], given: list[Tensor]) -> None:
        call, versions, chance = self._open.pop()
        call.span = (call.span[0], _now())
        call.given = [tuple(it.shape) for it in given]
        call.flows = [it.requires_grad for it in given]
        call.draws = not torch.equal(chance, torch.get_rng_state())
        call.writes = versions != versions_of(taken)
        self.ended.append(call)

    def attribute(self, outputs: list[Tensor]) -> None:
        """Find who used which parameter, from the graph behind the outputs."""
        waiting = [it.grad_fn for it in outputs if it.grad_fn is not None]
        seen = set(waiting)
        while waiting:
            node = waiting.pop()
            for behind, _ in node.next_functions:
                parameter = getattr(behind, "variable", None)
                if parameter is not None:
                    self._innermost(_number(node)).used.append(parameter)
                elif behind is not None and behind not in seen:
                    seen.add(behind)
                    waiting.append(behind)

    def _innermost(self, number: int) -> Call:
        inside = [it for it in self.ended if it.span[0] < number < it.span[1]]
        return max(inside, key=lambda it: it.span[0])


def _now() -> int:
    """The number that the next step of a graph gets, about."""
    return _number(torch.zeros((), requires_grad=True).view(()).grad_fn)


def _number(step: Any) -> int:
    """PyTorch numbers the steps of graphs as they are made."""
    return int(step._sequence_nr())  # noqa: SLF001 - not public, and nothing public tells it.
