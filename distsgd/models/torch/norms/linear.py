"""The linear layer: ``y = x @ W.T + b``, over any axes between rows and numbers (time, places).

Sample n's weight gradient is the sum over time of outer products of d and x. Over one time its
squared norm is the product of theirs; over several, the sum of the products of two Gram matrices
(Goodfellow, "Efficient Per-Example Gradient Computations", 2015, arXiv:1510.01799).

Shape letters: N samples, T times, I inputs, O outputs.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from distsgd.models.torch.norms.tables import Factors


def over_time(of: Tensor) -> Tensor:
    """``[N, T, size]``, whatever axes lie between."""
    return of.reshape(len(of), -1, of.shape[-1])


def gradients(layer: nn.Linear, x: Tensor, d: Tensor) -> dict[str, Tensor]:
    """``[N, O, I]`` and ``[N, O]``."""
    x_NTI, d_NTO = over_time(x), over_time(d)
    found = {}
    if layer.weight.requires_grad:
        found["weight"] = torch.bmm(d_NTO.mT, x_NTI)
    if layer.bias is not None and layer.bias.requires_grad:
        found["bias"] = d_NTO.sum(1)
    return found


def squares(layer: nn.Linear, x: Tensor, d: Tensor) -> Tensor:
    """``[N]``."""
    learns_weight = layer.weight.requires_grad
    learns_bias = layer.bias is not None and layer.bias.requires_grad
    if d[0].numel() == layer.out_features:  # One time.
        x_squares = row_squares(x) if learns_weight else d.new_zeros(len(d))
        return (x_squares + learns_bias).mul_(row_squares(d))
    x_NTI, d_NTO = over_time(x), over_time(d)
    total = product_squares(x_NTI, d_NTO) if learns_weight else d.new_zeros(len(d))
    return total + row_squares(d_NTO.sum(1)) if learns_bias else total


def factors(_: nn.Linear, x: Tensor, d: Tensor) -> Factors:
    """Of the weight's gradients, ``[O, I]``."""
    return Factors(left=over_time(d), right=over_time(x))


def product_squares(x_NTI: Tensor, d_NTO: Tensor) -> Tensor:
    """Squared norms of the sums over time of outer products, ``[N]``, the cheaper way."""
    num_times, num_inputs, num_outputs = x_NTI.shape[1], x_NTI.shape[2], d_NTO.shape[2]
    if num_times * (num_inputs + num_outputs) < num_inputs * num_outputs:
        gram_NTT = torch.bmm(x_NTI, x_NTI.mT).mul_(torch.bmm(d_NTO, d_NTO.mT))
        return gram_NTT.sum((1, 2))
    return row_squares(torch.bmm(d_NTO.mT, x_NTI))


def row_squares(each: Tensor) -> Tensor:
    """The sum of the squares of each row, ``[N]``, in one pass and without a copy."""
    return torch.linalg.vector_norm(each.flatten(1), dim=1).square()
