"""Squared norms of per-sample gradients, three slow ways; and models that hold them."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from distsgd.models.torch.norms import SampleNorms
from distsgd.models.torch.parts import Parts


def losses(outputs: Tensor) -> Tensor:
    return (outputs.flatten(1).tanh() + 1).square().sum(1)


def observed(module: nn.Module, x: Tensor) -> Tensor:
    """As a run has them."""
    return observed_twice(module, x)[0]


def observed_twice(module: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """The norms, and those by the definition, of one and the same forward."""
    norms = SampleNorms(Parts(module, lambda outputs, _: losses(outputs)))
    norms.begin(len(x))
    each = losses(module(x))
    gradients(each.sum(), module, retain=True)
    found = norms.end()
    return found, torch.stack([squared(gradients(it, module, retain=True)) for it in each])


def alone(module: nn.Module, x: Tensor) -> Tensor:
    """Each row by itself."""
    return torch.stack([squared(gradients(losses(module(it[None])).sum(), module)) for it in x])


def vmapped(module: nn.Module, x: Tensor) -> Tensor:
    weights = {name: it.detach() for name, it in module.named_parameters() if it.requires_grad}

    def loss(weights: dict[str, Tensor], row: Tensor) -> Tensor:
        return losses(torch.func.functional_call(module, weights, (row[None],))).sum()

    each = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(weights, x)
    return torch.stack([it.flatten(1).square().sum(1) for it in each.values()]).sum(0)


def gradients(loss: Tensor, module: nn.Module, *, retain: bool = False) -> list[Tensor]:
    learning = [it for it in module.parameters() if it.requires_grad]
    return list(
        torch.autograd.grad(
            loss, learning, retain_graph=retain, allow_unused=True, materialize_grads=True
        )
    )


def squared(each: list[Tensor]) -> Tensor:
    return torch.stack([it.square().sum() for it in each]).sum()


def numbers(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(7), dtype=dtype)


def ids(*shape: int, below: int) -> Tensor:
    return torch.randint(below, shape, generator=torch.Generator().manual_seed(8))


def seeded(make: Callable[[], nn.Module], dtype: torch.dtype = torch.float64) -> nn.Module:
    """A module made with weights of a fixed seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return make().to(dtype)


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(5, 7), nn.ReLU(inplace=True), nn.Linear(7, 3))


def cnn() -> nn.Module:
    """On images ``[2, 9, 9]``."""
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, stride=2, padding=1, padding_mode="circular"),
        nn.GroupNorm(2, 4),
        nn.ReLU(inplace=True),
        nn.Conv2d(4, 8, 3, dilation=2, groups=2, padding="same"),
        nn.Flatten(),
        nn.Dropout(0.2),
        nn.Linear(8 * 25, 3),
    )


class Positions(nn.Module):  # type: ignore[misc]
    """Adds a vector of its own to each place."""

    def __init__(self, num_places: int, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(num_places, size))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.weight


class Transformer(nn.Module):  # type: ignore[misc]
    """Of lists of `length` numbers below `num_ids`."""

    def __init__(
        self, num_ids: int = 11, size: int = 8, length: int = 6, *, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.tokens = nn.Embedding(num_ids, size)
        self.positions = Positions(length, size)
        self.dropout = nn.Dropout(dropout)
        self.norm1, self.norm2 = nn.LayerNorm(size), nn.RMSNorm(size)
        self.qkv, self.out = nn.Linear(size, 3 * size), nn.Linear(size, size)
        self.up, self.down = nn.Linear(size, 2 * size), nn.Linear(2 * size, size)
        self.head = nn.Linear(size, num_ids, bias=False)
        self.head.weight = self.tokens.weight

    def forward(self, x: Tensor) -> Tensor:
        h = self.dropout(self.positions(self.tokens(x)))
        q, k, v = self.qkv(self.norm1(h)).chunk(3, -1)
        seen = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        h = h + self.dropout(self.out(seen))
        h = h + self.dropout(self.down(functional.gelu(self.up(self.norm2(h)))))
        return self.head(h)
