"""Norms of models: exact by three oracles, and without a trace in the gradients."""

from collections.abc import Callable

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the extra 'torch'")

from torch import Tensor, nn  # noqa: E402 - what needs PyTorch comes after the look for it.
from torch.nn import functional  # noqa: E402
from torch.utils.checkpoint import checkpoint  # noqa: E402

from distsgd.models.factory import Recipe, RowSpec, model_of, torch_model  # noqa: E402
from distsgd.models.torch.norms import SampleNorms, convolution, joined  # noqa: E402
from distsgd.models.torch.parts import Parts  # noqa: E402
from tests.unit.models.torch.norm_oracles import (  # noqa: E402
    Transformer,
    alone,
    cnn,
    gradients,
    ids,
    losses,
    mlp,
    numbers,
    observed,
    observed_twice,
    seeded,
    vmapped,
)

CLOSE = 1e-6  # What is promised; in float64 far more is seen.


class Attention(nn.Module):  # type: ignore[misc]
    """Positions by number, without an axis of rows; attention whose parts are not called."""

    def __init__(self) -> None:
        super().__init__()
        self.positions = nn.Embedding(4, 6)
        self.attention = nn.MultiheadAttention(6, 2, batch_first=True)
        self.start = nn.Parameter(torch.randn(6))

    def forward(self, x: Tensor) -> Tensor:
        start = self.start.expand(len(x), 1, -1)
        x = torch.cat([start, x + self.positions(torch.arange(x.shape[1]))], 1)
        found: Tensor = self.attention(x, x, x, need_weights=False)[0]
        return found


class Recurrent(nn.Module):  # type: ignore[misc]
    """Rows on the second axis, a tuple given, a layer called twice."""

    def __init__(self, kind: type[nn.Module]) -> None:
        super().__init__()
        self.cells = kind(5, 6, 2)
        self.out = nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        seen, _ = self.cells(x.transpose(0, 1))
        return self.out(self.out(seen).tanh()).transpose(0, 1)


class Twice(nn.Module):  # type: ignore[misc]
    """Calls a layer twice."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.layer(x), self.layer(x[:, 1:] * 2).tanh()], 1)


class HeadByFunction(nn.Module):  # type: ignore[misc]
    """Takes another module's parameter by a function, which no call shows."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.norm = nn.Embedding(11, 4), nn.LayerNorm(4)

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(self.norm(self.tokens(x)), self.tokens.weight)


class Checkpointed(nn.Module):  # type: ignore[misc]
    """Runs a part again in the backward."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.out = mlp(), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        inner = checkpoint(self.inner, x, use_reentrant=False)
        return self.out(functional.gelu(inner))


class Flattened(nn.Module):  # type: ignore[misc]
    """Mixes rows and times into one axis and back."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.flatten(0, 1)).unflatten(0, x.shape[:2])


def frozen() -> nn.Module:
    net = mlp()
    net[0].weight.requires_grad_(requires_grad=False)
    net[2].bias.requires_grad_(requires_grad=False)
    return net


def normalised() -> nn.Module:
    return nn.utils.parametrizations.weight_norm(nn.Linear(5, 3))


MODELS: dict[str, tuple[Callable[[], nn.Module], Tensor]] = {
    "mlp": (mlp, numbers(4, 5)),
    "one row": (mlp, numbers(1, 5)),
    "frozen": (frozen, numbers(4, 5)),
    "cnn": (lambda: cnn().eval(), numbers(4, 2, 9, 9)),
    "transformer": (Transformer, ids(4, 6, below=11)),
    "large tied table": (lambda: Transformer(num_ids=300), ids(4, 6, below=9)),
    "layer called twice": (lambda: Twice(nn.Linear(40, 40, bias=False)), numbers(4, 3, 40)),
    "embedding called twice": (lambda: Twice(nn.Embedding(90, 9)), ids(4, 3, below=5)),
    "as many rows as places": (Attention, numbers(4, 4, 6)),
    "lstm": (lambda: Recurrent(nn.LSTM), numbers(3, 4, 5)),
    "gru": (lambda: Recurrent(nn.GRU), numbers(3, 4, 5)),
    "head by function": (HeadByFunction, ids(4, 6, below=11)),
    "weight norm": (normalised, numbers(4, 5)),
    "checkpointed": (Checkpointed, numbers(4, 5)),
    "flattened": (Flattened, numbers(4, 6, 5)),
}
NO_VMAP = {"lstm", "gru"}


@pytest.mark.filterwarnings("ignore:There is a performance drop")  # Of the oracle.
@pytest.mark.parametrize("name", MODELS)
def test_norms_of_a_model_are_those_of_each_row_alone(name: str) -> None:
    make, x = MODELS[name]
    model = seeded(make)
    found = observed(model, x)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, alone(model, x), rtol=CLOSE, atol=0)
    if name not in NO_VMAP and name != "checkpointed":
        torch.testing.assert_close(found, vmapped(model, x), rtol=CLOSE, atol=0)


@pytest.mark.parametrize("name", ["mlp", "cnn", "transformer", "as many rows as places"])
def test_norms_in_float32_are_within_its_rounding(name: str) -> None:
    make, x = MODELS[name]
    rows = x.float() if x.is_floating_point() else x
    found = observed(seeded(make, torch.float32), rows)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), alone(seeded(make), x), rtol=1e-4, atol=0)


@pytest.mark.parametrize(
    ("make", "x"),
    [
        (cnn, numbers(4, 2, 9, 9)),
        (lambda: Transformer(dropout=0.3), ids(4, 6, below=11)),
    ],
    ids=["cnn", "transformer"],
)
def test_norms_under_dropout_are_those_of_the_masks_that_were_drawn(
    make: Callable[[], nn.Module], x: Tensor
) -> None:
    found, expected = observed_twice(seeded(make), x)
    torch.testing.assert_close(found, expected, rtol=CLOSE, atol=0)


@pytest.mark.parametrize("name", ["mlp", "cnn", "transformer", "as many rows as places", "lstm"])
def test_norms_leave_every_bit_of_the_gradients_and_repeat_their_own(name: str) -> None:
    make, x = MODELS[name]
    model = seeded(make, torch.float32).train()
    rows = x.float() if x.is_floating_point() else x

    def sums() -> list[Tensor]:
        torch.manual_seed(5)
        return gradients(losses(model(rows)).sum(), model)

    with torch.random.fork_rng(devices=[]):
        without = sums()
        norms = SampleNorms(Parts(model, lambda outputs, _: losses(outputs)))
        seen = []
        for _ in range(3):
            norms.begin(len(rows))
            assert all(map(torch.equal, without, sums()))
            seen.append(norms.end())
    assert torch.equal(seen[0], seen[1])
    assert torch.equal(seen[0], seen[2])


def test_norms_are_watched_for_only_between_begin_and_end() -> None:
    model, x = seeded(mlp), numbers(4, 5)
    norms = SampleNorms(Parts(model, lambda outputs, _: losses(outputs)))
    model(x).sum().backward()
    norms.begin(3)
    each = losses(model(x[:3]))
    with torch.no_grad():
        model(x)  # A prediction in between.
    gradients(each.sum(), model)
    torch.testing.assert_close(norms.end(), alone(model, x[:3]), rtol=CLOSE, atol=0)


def test_norms_of_what_nothing_flows_back_to_are_zero() -> None:
    class Unused(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.used, self.unused = nn.Linear(5, 3), nn.Linear(5, 3)

        def forward(self, x: Tensor) -> Tensor:
            self.unused(x)
            return self.used(x)

    model, x = seeded(Unused), numbers(4, 5)
    torch.testing.assert_close(observed(model, x), alone(model, x), rtol=CLOSE, atol=0)


@pytest.mark.parametrize("name", ["cnn", "transformer", "large tied table", "lstm"])
def test_norms_are_exact_however_few_rows_are_held_at_a_time(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for room in (joined, convolution):
        monkeypatch.setattr(room, "CHUNK_NUMBERS", 1)
    make, x = MODELS[name]
    model = seeded(make)
    torch.testing.assert_close(observed(model, x), alone(model, x), rtol=CLOSE, atol=0)


def test_norms_come_with_the_gradients_of_a_program() -> None:
    def make(inputs: int, outputs: int) -> tuple[nn.Module, Callable[[Tensor, Tensor], Tensor]]:
        net = nn.Sequential(nn.Linear(inputs, 7), nn.GELU(), nn.Linear(7, outputs))
        return net, lambda out, target: functional.cross_entropy(out, target, reduction="none")

    model = model_of(Recipe(torch_model(make), {}, RowSpec((5,), "class", 3)))
    weights = model.initialise("", 1, np.float64)
    x, target = numbers(4, 5).numpy(), np.array([0, 2, 1, 1])
    sums = {}
    for per_sample in (False, True):
        program = model.program(4, np.float64, per_sample=per_sample)
        slot = np.empty_like(weights)
        bound = program.bind(x, target, weights=weights, gradients=slot)
        bound.forward()
        bound.backward()
        sums[per_sample] = slot
    assert np.array_equal(sums[False], sums[True])
    assert bound.squared_norms_N is not None
    for row in range(4):
        one = np.empty_like(weights)
        single = program.bind(
            x[row : row + 1], target[row : row + 1], weights=weights, gradients=one
        )
        single.forward()
        single.backward()
        assert single.squared_norms_N is not None
        np.testing.assert_allclose(bound.squared_norms_N[row], one @ one, rtol=CLOSE)
        np.testing.assert_allclose(single.squared_norms_N, [one @ one], rtol=CLOSE)
