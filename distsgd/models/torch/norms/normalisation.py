"""Layer, RMS and group norm: ``y = z * w + b``, where z is x normalised.

Shape letter: N samples.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional


def layer_norm(layer: nn.LayerNorm, x: Tensor, d: Tensor) -> dict[str, Tensor]:
    """``[N, *normalized_shape]`` each."""
    z = functional.layer_norm(x, layer.normalized_shape, eps=layer.eps)
    return _affine(layer, z, d, range(1, x.ndim - len(layer.normalized_shape)))


def rms_norm(layer: nn.RMSNorm, x: Tensor, d: Tensor) -> dict[str, Tensor]:
    """``[N, *normalized_shape]``."""
    z = functional.rms_norm(x, layer.normalized_shape, eps=layer.eps)
    return _affine(layer, z, d, range(1, x.ndim - len(layer.normalized_shape)))


def group_norm(layer: nn.GroupNorm, x: Tensor, d: Tensor) -> dict[str, Tensor]:
    """``[N, num_channels]`` each."""
    z = functional.group_norm(x, layer.num_groups, eps=layer.eps)
    return _affine(layer, z, d, range(2, x.ndim))


def _affine(layer: nn.Module, z: Tensor, d: Tensor, axes: range) -> dict[str, Tensor]:
    """Of w and b, where `axes` are those that share them."""
    found = {}
    for name, parameter in layer.named_parameters():
        if parameter.requires_grad:
            each = d * z if name == "weight" else d
            found[name] = each.sum(tuple(axes)) if axes else each
    return found
