"""Factories of PyTorch models for tests: those that a run admits, and one for each way not to be.

Imported where PyTorch is installed only.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import nn

from distsgd.models import torch_model

Tensor: TypeAlias = torch.Tensor


def each_loss(outputs: Tensor, target: Tensor) -> Tensor:
    return nn.functional.cross_entropy(outputs, target, reduction="none")


class Image(nn.Module):  # type: ignore[misc]
    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(len(x), 1, 8, 8)


class Noisy(nn.Module):  # type: ignore[misc]
    """Draws numbers that no run seeds."""

    def forward(self, x: Tensor) -> Tensor:
        return x * random.random()  # noqa: S311 -- that is what is tested.


class Centred(nn.Module):  # type: ignore[misc]
    """Mixes samples, and is in no list of layers."""

    def forward(self, x: Tensor) -> Tensor:
        return x - x.mean(0)


class Logarithm(nn.Module):  # type: ignore[misc]
    def forward(self, x: Tensor) -> Tensor:
        return torch.log(x - 1e9)


class InPlain(nn.Module):  # type: ignore[misc]
    """Mixes samples between its layers, not in one of them."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(64, 16), nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.first(x)
        return self.last(hidden / hidden.std())


class Halved(torch.autograd.Function):  # type: ignore[misc]
    """Its backward is that of no function: it knows how many rows there are."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        del ctx
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        del ctx
        return grads[0] / len(grads[0])


class HalvedLayer(nn.Module):  # type: ignore[misc]
    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = Halved.apply(x)
        return found


class InFloat32(nn.Module):  # type: ignore[misc]
    """Computes in one dtype, whatever it is asked for."""

    def forward(self, x: Tensor) -> Tensor:
        return x.float()


class Tokens(nn.Module):  # type: ignore[misc]
    """A transformer with a causal mask as a buffer."""

    def __init__(self, levels: int, places: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(levels, 16)
        self.block = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True)
        self.last = nn.Linear(16, levels)
        mask = nn.Transformer.generate_square_subsequent_mask(places)
        self.register_buffer("mask", mask)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.last(self.block(self.embedding(x), src_mask=self.mask))
        return found


def flat(*layers: Callable[[], nn.Module]) -> Any:
    return torch_model(lambda: (_flat(*layers), each_loss))


def _flat(*layers: Callable[[], nn.Module]) -> nn.Module:
    return nn.Sequential(nn.Linear(64, 16), *(make() for make in layers), nn.Linear(16, 10))


def image(norm: Callable[[], nn.Module]) -> Any:
    def make() -> Any:
        layers = (Image(), nn.Conv2d(1, 4, 3), norm(), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10))
        return nn.Sequential(*layers), each_loss

    return torch_model(make)


def plain_with(sample_losses: Any) -> Any:
    return torch_model(lambda: (_flat(nn.ReLU), sample_losses))


def of(make: Any) -> Any:
    return torch_model(make)


def tokens() -> Any:
    def losses(outputs: Tensor, target: Tensor) -> Tensor:
        return each_loss(outputs.transpose(1, 2), target).mean(1)

    return torch_model(lambda: (Tokens(12, 6), losses))
