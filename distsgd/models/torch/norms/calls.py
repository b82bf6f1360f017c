"""The calls of modules in one forward: what each took and gave, and who used which parameter."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from distsgd.autodiff.gate import Shape
from distsgd.models.torch.leaves import uses_of
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
        draws_itself: Whether it did so outside of the calls that it made.
        reads: Whether it looked at a number in a tensor outside of them, as a condition does.
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
    draws_itself: bool = False
    reads: bool = False
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
        self._chance = torch.get_rng_state()  # When a call began or ended last.

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
            stack.enter_context(_Reads(self._read))
            yield

    def _read(self) -> None:
        if self._open:
            self._open[-1][0].reads = True

    def _begin(self, module: nn.Module, label: str, taken: list[Tensor]) -> None:
        caller = self._open[-1][0] if self._open else None
        self._see_draws(caller)
        call = Call(module, label, caller, [tuple(it.shape) for it in taken])
        call.span = (_now(), 0)
        self._open.append((call, versions_of(taken), self._chance))

    def _end(self, taken: list[Tensor], given: list[Tensor]) -> None:
        call, versions, chance = self._open.pop()
        call.span = (call.span[0], _now())
        call.given = [tuple(it.shape) for it in given]
        call.flows = [it.requires_grad for it in given]
        self._see_draws(call)
        call.draws = not torch.equal(chance, self._chance)
        call.writes = versions != versions_of(taken)
        self.ended.append(call)

    def _see_draws(self, call: Call | None) -> None:
        before, self._chance = self._chance, torch.get_rng_state()
        if call is not None and not torch.equal(before, self._chance):
            call.draws_itself = True

    def attribute(self, outputs: list[Tensor]) -> None:
        """Find who used which parameter, from the graph behind the outputs."""
        for step, parameter in uses_of(outputs):
            self._innermost(_number(step)).used.append(parameter)

    def _innermost(self, number: int) -> Call:
        inside = [it for it in self.ended if it.span[0] < number < it.span[1]]
        return max(inside, key=lambda it: it.span[0])


_READING = {"__bool__", "__int__", "__float__", "__index__", "item", "tolist", "numpy"}


class _Reads(TorchFunctionMode):  # type: ignore[misc]
    """Tells when a number of a tensor becomes one of Python, on which calls may depend."""

    def __init__(self, tell: Callable[[], None]) -> None:
        super().__init__()
        self._tell = tell

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """See `torch.overrides.TorchFunctionMode`."""
        if getattr(function, "__name__", "") in _READING:
            self._tell()
        return function(*args, **(kwargs or {}))


def _now() -> int:
    """The number that the next step of a graph gets, about."""
    return _number(torch.zeros((), requires_grad=True).view(()).grad_fn)


def _number(step: Any) -> int:
    """PyTorch numbers the steps of graphs as they are made."""
    return int(step._sequence_nr())  # noqa: SLF001 - not public, and nothing public tells it.
