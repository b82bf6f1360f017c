"""Who uses which parameter, found once, by running the module on 2 rows and on 3.

A site is a call of a module that holds parameters. Where their gradients cannot be seen from that
call alone (a function outside of it takes the parameter too, or what it gives has no axis of rows),
its caller is taken as a whole.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from distsgd.models.torch.leaves import uses_of
from distsgd.models.torch.norms.axes import FEW, MIXED, MORE, RowAxis, row_axis
from distsgd.models.torch.norms.calls import Call, calls_of
from distsgd.models.torch.norms.refusal import refused
from distsgd.models.torch.norms.rules import ROWS_ANYWHERE, Rule, rule_of

Parameters = dict[str, Tensor]


@dataclass(frozen=True, slots=True)
class Site:
    """A call of a module, as every forward has it.

    Attributes:
        module: What is called.
        label: Its type and name, for people.
        parameters: Those that learn and are counted here, by their names in the module; none where
            a caller is taken as a whole.
        rule: None where the module is run again.
        in_axes: For each tensor taken, where the rows lie.
        out_axes: For each tensor given.
        is_alone: Whether no other site has any of its parameters.
    """

    module: nn.Module
    label: str
    parameters: Parameters
    rule: Rule | None
    in_axes: list[RowAxis]
    out_axes: list[RowAxis]
    is_alone: bool

    @property
    def is_run_again(self) -> bool:
        """Whether its gradients come from running the module again."""
        return bool(self.parameters) and self.rule is None


def holds_parameters(module: nn.Module) -> bool:
    """Whether some of its own, not of a module in it, learn."""
    return any(it.requires_grad for it in module.parameters(recurse=False))


@dataclass(frozen=True, slots=True)
class Plan:
    """What every forward does.

    Attributes:
        sites: In the order in which the calls end.
        uses: How often functions take each parameter; without those that are taken more often
            where there are more rows.
    """

    sites: list[Site]
    uses: Mapping[Tensor, int]

    def is_followed(self, outputs: list[Tensor]) -> bool:
        """Whether functions took each parameter as often in the forward that gave these."""
        found = Counter(parameter for _, parameter in uses_of(outputs))
        return all(found[it] == count for it, count in self.uses.items())


def plan_of(module: nn.Module, args: Any, kwargs: Any) -> Plan:
    """The plan of every forward, from one of few rows and one of more.

    Raises:
        ModelError: Exact norms cannot be had: which module, why, and the way out.
    """
    few, more = (calls_of(module, args, kwargs, num_rows) for num_rows in (FEW, MORE))
    if [call.module for call in few] != [call.module for call in more]:
        raise refused(
            f"{more[-1].label} calls other layers for {MORE} rows than for {FEW}; must call the "
            "same ones for any rows"
        )
    for call in more:
        if call.draws_itself and call.reads and any(True for _ in call.module.parameters()):
            raise refused(
                f"{call.label} draws random numbers and looks at numbers, as where layers are left "
                "out by chance; must compute the same way in each forward (multiply by what is "
                "drawn, in place of a condition on it)"
            )
    counts, others = (Counter(it for call in each for it in call.used) for each in (more, few))
    uses = {it: counts[it] for it in module.parameters() if counts[it] == others[it]}
    return Plan(_Planner(few, more).sites(), uses)


class _Planner:
    def __init__(self, few: list[Call], more: list[Call]) -> None:
        self._calls = more
        pairs = list(zip(few, more, strict=True))
        self._in_axes = {it: list(map(row_axis, small.taken, it.taken)) for small, it in pairs}
        self._out_axes = {it: list(map(row_axis, small.given, it.given)) for small, it in pairs}
        self._whole: dict[Call, str] = {}  # Taken as a whole, and why.

    def sites(self) -> list[Site]:
        for call in self._calls:
            own = set(call.module.parameters(recurse=False))
            for parameter in set(call.used) - own:
                self._take_whole_for(parameter, call)
        for call in self._calls:  # A caller comes after the calls that it makes.
            self._widen(call)
        held = {call: self._held(call) for call in self._calls}
        uses = Counter(it for each in held.values() for it in each.values())
        whole = {call.module for call in self._whole}
        return [
            self._site(call, parameters, max((uses[it] for it in parameters.values()), default=1))
            for call, parameters in held.items()
            if holds_parameters(call.module) or call.module in whole
        ]

    def _take_whole_for(self, parameter: Tensor, call: Call) -> None:
        reason = f"a parameter of another module is used inside {call.label}"
        while parameter not in set(call.module.parameters()) and call.caller is not None:
            call = call.caller
        self._whole.setdefault(call, reason)

    def _widen(self, call: Call) -> None:
        """Take the caller as a whole where the rows are no axis of what the call gives."""
        if not self._held(call):
            return
        for axis, shape, flows in zip(self._out_axes[call], call.given, call.flows, strict=True):
            if not flows or (axis is not None and axis != MIXED):
                continue
            reason = f"{call.label} gives {shape} for {MORE} rows, which has no axis of rows"
            if call.caller is None:
                raise refused(f"{reason}; {_way_out(axis)}")
            self._whole.setdefault(call.caller, f"{reason} ({_way_out(axis)})")

    def _held(self, call: Call) -> Parameters:
        caller = call.caller
        while caller is not None:
            if caller in self._whole:
                return {}
            caller = caller.caller
        named = call.module.named_parameters(recurse=call in self._whole)
        return {name: it for name, it in named if it.requires_grad}

    def _site(self, call: Call, parameters: Parameters, most_uses: int) -> Site:
        in_axes, out_axes = self._in_axes[call], self._out_axes[call]
        rule = None if call in self._whole else rule_of(call.module)
        is_usual = len(in_axes) == 1 and in_axes == out_axes
        if not is_usual or (out_axes != [0] and type(call.module) not in ROWS_ANYWHERE):
            rule = None
        if parameters and rule is None:
            self._check_can_run_again(call)
        return Site(call.module, call.label, parameters, rule, in_axes, out_axes, most_uses == 1)

    def _check_can_run_again(self, call: Call) -> None:
        why = self._whole.get(call, "it has parameters of its own")
        says = f"{call.label} must be run again, since {why}; but it "
        if any(isinstance(it, _BatchNorm) and it.training for it in call.module.modules()):
            raise refused(f"{says}mixes samples (GroupNorm keeps them apart)")
        if call.draws:
            raise refused(
                f"{says}draws random numbers, which would be others (set dropout in it to 0, or "
                "move the parameters into a module of their own without chance)"
            )
        if call.writes:
            raise refused(f"{says}writes into what it takes (work on a copy: x = x.clone())")
        if MIXED in self._in_axes[call]:
            raise refused(f"{says}takes rows that are no axis; {_way_out(MIXED)}")


def _way_out(axis: RowAxis) -> str:
    if axis is None:
        return "give it one row for each sample, as in ids.expand(len(x), -1)"
    return "keep the rows an axis of their own, as in x.view(len(x), -1, size)"
