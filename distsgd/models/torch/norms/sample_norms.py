"""Watches a module through one forward and backward, and adds up each row's squared norm.

Shape letter: N samples.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from distsgd.errors import ModelError
from distsgd.models.torch.norms.axes import tensors_of
from distsgd.models.torch.norms.joined import joined
from distsgd.models.torch.norms.plan import Plan, holds_parameters, plan_of
from distsgd.models.torch.norms.refusal import refused
from distsgd.models.torch.norms.use import Use
from distsgd.models.torch.parts import Parts


class SampleNorms:
    """Squared norms of each row's own gradient over all parameters, from the one backward.

    Args:
        parts: Whose module to watch, from now on.

    Raises:
        ModelError: Exact norms cannot be had, here or in the first forward after `begin`.
    """

    def __init__(self, parts: Parts) -> None:
        self._module = parts.module
        for name, layer in parts.module.named_modules():
            _check_options(name, layer)
        self._plan = Plan([], {})
        self._planned_for: bool | None = None  # Whether in training.
        self._again: frozenset[nn.Module] = frozenset()
        self._hooks: list[Any] = []
        self._uses: list[Use] = []
        self._taken: list[Any] = []  # By the calls that have begun and may be run again.
        self._num_rows = 0
        self._is_watching = False
        parts.module.register_forward_pre_hook(self._plan_once, prepend=True, with_kwargs=True)

    def begin(self, num_rows: int) -> None:
        """Watch the next forward and its backward."""
        self._num_rows, self._uses, self._is_watching = num_rows, [], True
        self._taken = []

    def end(self) -> Tensor:
        """The norms after the backward, ``[N]``, in the dtype of the parameters."""
        uses, self._uses, self._is_watching = self._uses, [], False
        if len(uses) != len(self._plan.sites):
            raise _other_calls(self._module)
        told = [use.squares for use in uses if use.squares is not None]
        late = [use for use in uses if use.is_open]
        if late or not told:
            like = next(self._module.parameters())
            with torch.no_grad(), self._paused():
                told.append(joined(late, self._num_rows, like))
        for use in uses:
            use.close()
        return functools.reduce(torch.add, told)

    def _plan_once(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        if not self._sees() or self._planned_for is module.training:
            return
        for hook in self._hooks:
            hook.remove()
        with self._paused():
            self._plan = plan_of(module, args, kwargs)
        self._planned_for = module.training
        again = {site.module: None for site in self._plan.sites if site.is_run_again}
        self._hooks = [
            # First, since what other hooks make of the arguments, they make again.
            each.register_forward_pre_hook(self._keep, prepend=True, with_kwargs=True)
            for each in again
        ]
        # Also a module that was not called: when it is, the plan is wrong.
        watched = {each: None for each in module.modules() if holds_parameters(each)} | again
        self._hooks += [
            each.register_forward_hook(self._record, with_kwargs=True) for each in watched
        ]
        self._hooks.append(module.register_forward_hook(self._check_uses))
        self._again = frozenset(again)
        if module in again:  # Its new hook comes too late for the call that has begun.
            self._keep(module, args, kwargs)

    def _keep(self, _: nn.Module, args: Any, kwargs: Any) -> None:
        if self._sees():
            self._taken.append((args, kwargs))

    def _record(self, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        if not self._sees():
            return
        taken = args[0] if len(args) == 1 and not kwargs else (args, kwargs)
        if module in self._again:
            taken = self._taken.pop()
        at = len(self._uses)
        sites = self._plan.sites
        if at >= len(sites) or sites[at].module is not module:
            raise _other_calls(self._module)
        site = sites[at]
        given = tensors_of(output) if site.parameters else []
        use = Use(site, taken if site.parameters else (), given)
        self._uses.append(use)
        for index, tensor in enumerate(given):
            if tensor.requires_grad:
                tensor.register_hook(functools.partial(use.receive, index))

    def _check_uses(self, module: nn.Module, _: Any, output: Any) -> None:
        if self._sees() and not self._plan.is_followed(tensors_of(output)):
            raise refused(
                f"{type(module).__name__} uses a parameter more or less often than in its first "
                "forward; must compute the same way in each"
            )

    def _sees(self) -> bool:
        # Inside a backward a forward is a checkpoint that is run again: its calls were seen.
        is_backward = torch._C._current_graph_task_id() != -1  # noqa: SLF001 - as torch's own does.
        return self._is_watching and torch.is_grad_enabled() and not is_backward

    @contextmanager
    def _paused(self) -> Iterator[None]:
        was, self._is_watching = self._is_watching, False
        try:
            yield
        finally:
            self._is_watching = was


def _check_options(name: str, layer: nn.Module) -> None:
    if not isinstance(layer, nn.Embedding | nn.EmbeddingBag) or not layer.weight.requires_grad:
        return
    for option in ("max_norm", "scale_grad_by_freq", "sparse"):
        value = getattr(layer, option)
        if value:
            raise refused(
                f"{type(layer).__name__} '{name}' has {option}={value}, "
                "under which rows of a block change one another's gradient, or it is no plain "
                f"array; must be {'None' if option == 'max_norm' else False} (leave it out)"
            )


def _other_calls(module: nn.Module) -> ModelError:
    return refused(
        f"{type(module).__name__} calls other layers than in its first "
        "forward; must call the same ones in the same order in each"
    )
