"""Modules of PyTorch that are timed here and by PyTorch's own data-parallel training.

Sizes: an MLP of 270 thousand parameters, a CNN of 100 thousand, a transformer of a million.
"""

import torch
from torch import nn
from torch.nn import functional

from distsgd.models import torch_model

PLACES, CHARACTERS = 64, 96  # Of a row of the transformer.


def mlp() -> nn.Module:
    """784 - 256 - 256 - 10, ReLU."""
    return nn.Sequential(
        nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10)
    )


def cnn() -> nn.Module:
    """Images of 28 x 28: two convolutions with group norm, then two dense layers."""
    return nn.Sequential(
        nn.Unflatten(1, (1, 28, 28)),
        nn.Conv2d(1, 16, 5, stride=2, padding=2),
        nn.GroupNorm(4, 16),
        nn.GELU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1),
        nn.GroupNorm(8, 32),
        nn.GELU(),
        nn.Flatten(),
        nn.Linear(32 * 7 * 7, 60),
        nn.GELU(),
        nn.Linear(60, 10),
    )


class Block(nn.Module):
    """Causal attention and a perceptron, each on a residual way."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.before_attention, self.before_mlp = nn.LayerNorm(width), nn.LayerNorm(width)
        self.queries_keys_values, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``[N, T, C]`` to the same."""
        rows, places, width = x.shape
        made = self.queries_keys_values(self.before_attention(x))
        shape = (rows, places, 3, self.heads, width // self.heads)
        queries, keys, values = made.view(shape).permute(2, 0, 3, 1, 4)
        seen = functional.scaled_dot_product_attention(queries, keys, values, is_causal=True)
        x = x + self.out(seen.transpose(1, 2).reshape(rows, places, width))
        return x + self.down(functional.gelu(self.up(self.before_mlp(x))))


class Transformer(nn.Module):
    """Characters to scores of the next one, ``[N, T]`` to ``[N, T, characters]``."""

    def __init__(self, width: int = 144, depth: int = 4, heads: int = 4) -> None:
        super().__init__()
        self.characters = nn.Embedding(CHARACTERS, width)
        self.places = nn.Embedding(PLACES, width)
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(depth)))
        self.norm, self.scores = nn.LayerNorm(width), nn.Linear(width, CHARACTERS)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Scores of the next character at each place."""
        places = torch.arange(x.shape[1]).expand(x.shape)
        hidden = self.characters(x) + self.places(places)
        return self.scores(self.norm(self.blocks(hidden)))


MODULES = {"mlp": mlp, "cnn": cnn, "transformer": Transformer}


def sample_losses(outputs: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Cross-entropy, ``[N]``; of several places their mean."""
    losses = functional.cross_entropy(outputs.flatten(0, -2), target.flatten(), reduction="none")
    return losses.view(len(target), -1).mean(1)


@torch_model
def make(kind: str) -> tuple[nn.Module, object]:
    """One of `MODULES`."""
    return MODULES[kind](), sample_losses
