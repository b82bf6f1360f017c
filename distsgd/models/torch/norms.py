"""Squared norms of each sample's own gradient.

Shape letter: N samples.
"""

from __future__ import annotations

import torch

from distsgd.models.torch.parts import Parts, Tensor


def squared_norms(parts: Parts, x: Tensor, target: Tensor) -> Tensor:
    """``[N]``, over all parameters, by ``vmap(grad)`` of the whole module."""
    weights = {name: it.detach() for name, it in parts.module.named_parameters()}
    buffers = dict(parts.module.named_buffers())

    def loss_of(weights: dict[str, Tensor], x: Tensor, target: Tensor) -> Tensor:
        outputs = torch.func.functional_call(parts.module, (weights, buffers), (x[None],))
        return parts.sample_losses(outputs, target[None]).sum()

    each = torch.func.vmap(torch.func.grad(loss_of), in_dims=(None, 0, 0))(weights, x, target)
    return torch.stack([it.flatten(1).square().sum(1) for it in each.values()]).sum(0)
