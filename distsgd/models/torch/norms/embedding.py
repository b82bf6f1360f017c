"""The embedding: rows of a table by their numbers.

Sample n's gradient adds d where an id occurs; ids that occur again make cross terms.

Shape letters: N samples, T times, V ids, C numbers of an embedding.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from distsgd.models.torch.norms.linear import over_time, row_squares
from distsgd.models.torch.norms.tables import Factors


def gradients(layer: nn.Embedding, x: Tensor, d: Tensor) -> dict[str, Tensor]:
    """``[N, V, C]``."""
    if not layer.weight.requires_grad:
        return {}
    ids_NT, d_NTC = _seen(layer, x, d)
    num_rows, (num_ids, size) = len(ids_NT), layer.weight.shape
    found = d.new_zeros(num_rows * num_ids, size)
    first = torch.arange(0, num_rows * num_ids, num_ids)[:, None]
    found.index_add_(0, (ids_NT + first).flatten(), d_NTC.flatten(0, 1))
    return {"weight": found.view(num_rows, num_ids, size)}


def squares(layer: nn.Embedding, x: Tensor, d: Tensor) -> Tensor:
    """``[N]``."""
    if not layer.weight.requires_grad:
        return d.new_zeros(len(d))
    num_ids, num_times = layer.num_embeddings, x[0].numel()
    if num_times == 1 or num_times * num_times < 8 * num_ids:
        ids_NT, d_NTC = _seen(layer, x, d)
        gram = torch.bmm(d_NTC, d_NTC.mT)
        is_same = ids_NT[:, :, None] == ids_NT[:, None, :]
        return torch.where(is_same, gram, 0).sum((1, 2))
    return row_squares(gradients(layer, x, d)["weight"])


def factors(layer: nn.Embedding, x: Tensor, d: Tensor) -> Factors:
    """Of the weight's gradients, ``[V, C]``."""
    ids_NT, d_NTC = _seen(layer, x, d)
    return Factors(left=ids_NT, right=d_NTC)


def _seen(layer: nn.Embedding, x: Tensor, d: Tensor) -> tuple[Tensor, Tensor]:
    """Ids ``[N, T]`` and gradients ``[N, T, C]``, without those of the padding."""
    ids_NT, d_NTC = x.reshape(len(x), -1), over_time(d)
    if layer.padding_idx is not None:
        d_NTC = d_NTC.masked_fill((ids_NT == layer.padding_idx)[:, :, None], 0)
    return ids_NT, d_NTC
