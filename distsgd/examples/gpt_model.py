"""A transformer that says which character is next; gpt.toml names it, by "gpt_model:make".

Each module here treats each row for itself, so that its gradient is its own.

Shape letters: N rows, T places of a row, C characters, W width, H heads.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from distsgd.models import torch_model


class Attention(nn.Module):
    """Each place looks at itself and at those before it."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.queries_keys_values = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x_NTW: Tensor) -> Tensor:
        split = self.queries_keys_values(x_NTW).unflatten(2, (3, self.heads, -1))
        queries, keys, values = split.permute(2, 0, 3, 1, 4)  # Each [N, H, T, W / H].
        scores_NHTT = queries @ keys.mT / keys.shape[-1] ** 0.5
        later_TT = torch.ones(scores_NHTT.shape[-2:], dtype=torch.bool).triu(1)
        weights_NHTT = scores_NHTT.masked_fill(later_TT, -torch.inf).softmax(dim=-1)
        mixed: Tensor = self.out((weights_NHTT @ values).transpose(1, 2).flatten(2))
        return mixed


class Block(nn.Module):
    """Attention, then a network of two layers at each place; both are added to what came in."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attend = nn.Sequential(nn.LayerNorm(width), Attention(width, heads))
        hidden = 4 * width
        self.think = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width)
        )

    def forward(self, x_NTW: Tensor) -> Tensor:
        x_NTW = x_NTW + self.attend(x_NTW)
        thought: Tensor = self.think(x_NTW)
        return x_NTW + thought


class Transformer(nn.Module):
    """Characters in, scores of the next one out, at each place."""

    def __init__(self, places: int, characters: int, width: int, layers: int, heads: int) -> None:
        super().__init__()
        self.character = nn.Embedding(characters, width)
        self.place = nn.Embedding(places, width)
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(layers)))
        self.scores = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, characters))
        for parameter in self.parameters():
            if parameter.ndim == 2:
                nn.init.normal_(parameter, std=0.02)

    def forward(self, characters_NT: Tensor) -> Tensor:
        places_NT = torch.arange(characters_NT.shape[1]).expand_as(characters_NT)
        x_NTW = self.character(characters_NT) + self.place(places_NT)
        scores: Tensor = self.scores(self.blocks(x_NTW))
        return scores


def sample_losses(scores_NTC: Tensor, next_NT: Tensor) -> Tensor:
    """One loss a row: the mean of its places, in nats a character."""
    return functional.cross_entropy(scores_NTC.mT, next_NT, reduction="none").mean(dim=1)


def probabilities(scores_NTC: Tensor) -> Tensor:
    """What `distsgd predict` shows."""
    return scores_NTC.softmax(dim=-1)


@torch_model
def make(
    inputs: int, outputs: int, width: int = 160, layers: int = 3, heads: int = 4
) -> tuple[nn.Module, Callable[[Tensor, Tensor], Tensor], Callable[[Tensor], Tensor]]:
    """The transformer for rows of `inputs` places and `outputs` characters."""
    return Transformer(inputs, outputs, width, layers, heads), sample_losses, probabilities
