"""Convolutions over any number of axes, as a linear layer over their patches.

Shape letters: N samples, G groups, O outputs of a group, I inputs of a patch, L places.
"""

from __future__ import annotations

from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional

from distsgd.models.torch.norms.linear import product_squares, row_squares

Convolution: TypeAlias = nn.Conv1d | nn.Conv2d | nn.Conv3d
CHUNK_NUMBERS = 1 << 18
"""Patches at a time, so that they stay in the cache."""


def gradients(layer: Convolution, x: Tensor, d: Tensor) -> dict[str, Tensor]:
    """``[N, *weight.shape]`` and ``[N, out_channels]``."""
    found = {}
    if layer.weight.requires_grad:
        patches, places = _patches(layer, padded(layer, x)), _grouped(layer, d)
        each = torch.bmm(places, patches.mT)
        found["weight"] = each.view(len(x), *layer.weight.shape)
    if layer.bias is not None and layer.bias.requires_grad:
        found["bias"] = d.flatten(2).sum(2)
    return found


def squares(layer: Convolution, x: Tensor, d: Tensor) -> Tensor:
    """``[N]``."""
    total = x.new_zeros(len(x))
    if layer.weight.requires_grad:
        x, groups = padded(layer, x), layer.groups
        numbers = layer.weight[0].numel() * groups * d[0, 0].numel()
        size = max(1, CHUNK_NUMBERS // numbers)
        for rows in (slice(at, at + size) for at in range(0, len(x), size)):
            patches, places = _patches(layer, x[rows]), _grouped(layer, d[rows])
            each = product_squares(patches.mT, places.mT)
            total[rows] = each.view(-1, groups).sum(1)
    if layer.bias is not None and layer.bias.requires_grad:
        total += row_squares(d.flatten(2).sum(2))
    return total


def padded(layer: Convolution, x: Tensor) -> Tensor:
    """The input with what the layer pads it with."""
    sizes = layer._reversed_padding_repeated_twice  # noqa: SLF001 - "same" is worked out only there.
    if not any(sizes):
        return x
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    return functional.pad(x, sizes, mode=mode)


def _patches(layer: Convolution, x: Tensor) -> Tensor:
    """What each place sees, ``[N * G, I, L]``, of a padded input."""
    num_rows, num_channels, *sizes = x.shape
    row, channel, *steps = x.stride()
    kernel, dilation, stride = layer.kernel_size, layer.dilation, layer.stride
    places = [
        (size - by * (width - 1) - 1) // step + 1
        for size, width, by, step in zip(sizes, kernel, dilation, stride, strict=True)
    ]
    view = x.as_strided(
        (num_rows, num_channels, *kernel, *places),
        (
            row,
            channel,
            *(by * step for by, step in zip(dilation, steps, strict=True)),
            *(by * step for by, step in zip(stride, steps, strict=True)),
        ),
        x.storage_offset(),
    )
    num_inputs = layer.weight[0].numel()
    return view.reshape(num_rows * layer.groups, num_inputs, -1)


def _grouped(layer: Convolution, d: Tensor) -> Tensor:
    """The gradient by each place, ``[N * G, O, L]``."""
    return d.reshape(len(d) * layer.groups, layer.out_channels // layer.groups, -1)
