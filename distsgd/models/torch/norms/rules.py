"""From the type of a layer to its rule. Another layer is run again, see `recompute`.

A rule looks at one call of the layer: x, what it took, and d, the gradient of each sample's own
loss by what it gave; in both the rows are the first axis. Only parameters that learn are counted.

Shape letter: N samples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from distsgd.models.torch.norms import convolution, embedding, linear, normalisation
from distsgd.models.torch.norms.linear import row_squares
from distsgd.models.torch.norms.tables import Factors


@dataclass(frozen=True, slots=True)
class Rule:
    """How a layer's per-sample gradients are found.

    Attributes:
        gradients: By name of the parameter, ``[N, *shape]``, from the layer, x and d.
        squares: The sum of their squares, ``[N]``, where that can be had for less.
        factors: Of the weight's gradients, where it is a table, ``[V, C]``.
    """

    gradients: Callable[[Any, Tensor, Tensor], dict[str, Tensor]]
    squares: Callable[[Any, Tensor, Tensor], Tensor] | None = None
    factors: Callable[[Any, Tensor, Tensor], Factors] | None = None

    def squared_norms(self, layer: nn.Module, x: Tensor, d: Tensor) -> Tensor:
        """``[N]``, over the parameters of the layer that learn."""
        if self.squares is not None:
            return self.squares(layer, x, d)
        return squared(self.gradients(layer, x, d).values(), d.new_empty(len(d)))


def squared(gradients: Iterable[Tensor], like: Tensor) -> Tensor:
    """The squares of per-sample gradients, added over each row, in the shape of `like`, ``[N]``."""
    total = torch.zeros_like(like)
    for each in gradients:
        total += row_squares(each)
    return total


RULES: dict[type[nn.Module], Rule] = {
    nn.Linear: Rule(linear.gradients, linear.squares, linear.factors),
    nn.Embedding: Rule(embedding.gradients, embedding.squares, embedding.factors),
    nn.LayerNorm: Rule(normalisation.layer_norm),
    nn.RMSNorm: Rule(normalisation.rms_norm),
    nn.GroupNorm: Rule(normalisation.group_norm),
    nn.Conv1d: Rule(convolution.gradients, convolution.squares),
    nn.Conv2d: Rule(convolution.gradients, convolution.squares),
    nn.Conv3d: Rule(convolution.gradients, convolution.squares),
}


ROWS_ANYWHERE = (nn.Linear, nn.Embedding)
"""The others have a rule only where the rows are the first axis."""


def rule_of(layer: nn.Module) -> Rule | None:
    """The rule; None where the layer is not plainly of its type, so that it must be run again."""
    rule = RULES.get(type(layer))
    is_changed = layer._forward_hooks or "forward" in vars(layer)  # noqa: SLF001 - no public way.
    if is_changed or not dict(layer.named_parameters()).keys() <= {"weight", "bias"}:
        return None
    return rule
