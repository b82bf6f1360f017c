"""Where exact norms cannot be had, the module and the way out are named."""

from collections.abc import Callable

import pytest

torch = pytest.importorskip("torch", reason="needs the extra 'torch'")

from torch import Tensor, nn  # noqa: E402 - what needs PyTorch comes after the look for it.
from torch.nn import functional  # noqa: E402

from distsgd.errors import ModelError  # noqa: E402
from distsgd.models.torch.norms import SampleNorms  # noqa: E402
from distsgd.models.torch.parts import Parts  # noqa: E402
from tests.unit.models.torch.norm_oracles import (  # noqa: E402
    alone,
    gradients,
    losses,
    numbers,
    observed,
    observed_twice,
)


class Own(nn.Module):  # type: ignore[misc]
    """A parameter of its own, and a function that makes something of it."""

    def __init__(self, function: Callable[[Tensor, Tensor], Tensor], *others: nn.Module) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(5))
        self.function = function
        self.others = nn.ModuleList(others)

    def forward(self, x: Tensor) -> Tensor:
        for other in self.others:
            x = other(x)
        return self.function(x, self.weight)


class Numbered(nn.Module):  # type: ignore[misc]
    """Positions without an axis of rows, next to dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.positions, self.dropout = nn.Embedding(4, 5), nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.dropout(x + self.positions(torch.arange(4)))
        return found


@pytest.mark.parametrize(
    "option", [{"max_norm": 1.0}, {"scale_grad_by_freq": True}, {"sparse": True}]
)
def test_norms_refuse_embeddings_whose_rows_touch_one_another(option: dict[str, float]) -> None:
    model = nn.Sequential(nn.Embedding(3, 2, **option))
    (name,) = option
    with pytest.raises(ModelError, match=rf"Embedding '0' has {name}=.*leave it out"):
        SampleNorms(Parts(model, lambda outputs, _: losses(outputs)))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Own(lambda x, w: functional.dropout(x * w)), r"Own must .* draws .*set dropout"),
        (Own(torch.mul, nn.Dropout(0.5)), r"Own must .* draws .*set dropout"),
        (Numbered(), r"Numbered must .* 'positions' gives \(4, 5\).*ids.expand.* draws"),
        (nn.Sequential(nn.BatchNorm1d(4)), "BatchNorm1d '0' .* mixes samples .GroupNorm"),
        (Own(lambda x, w: x.add_(w), nn.Identity()), "Own must .* writes .* x.clone"),
        (Own(lambda x, w: (x * w).flatten(0, 1)), "Own gives .12, 5. .* x.view"),
        (Own(lambda x, w: x.mean() * w), "Own gives .5,. .* ids.expand"),
    ],
)
def test_norms_refuse_what_cannot_be_exact(model: nn.Module, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        observed(model, numbers(4, 4, 5, dtype=torch.float32))


def test_norms_refuse_a_module_that_takes_another_way_for_other_rows() -> None:
    class Branching(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.one, self.other = nn.Linear(5, 3), nn.Linear(5, 3)
            self.is_other = False

        def forward(self, x: Tensor) -> Tensor:
            found: Tensor = self.other(x) if self.is_other else self.one(x)
            return found

    model, x = Branching().double(), numbers(4, 5)
    norms = SampleNorms(Parts(model, lambda outputs, _: losses(outputs)))
    norms.begin(4)
    gradients(losses(model(x)).sum(), model)
    torch.testing.assert_close(norms.end(), alone(model, x))
    model.is_other = True
    norms.begin(4)
    with pytest.raises(ModelError, match="Branching calls other layers than in its first"):
        model(x)


def test_norms_plan_anew_when_training_begins() -> None:
    model, x = Own(torch.mul, nn.Dropout(0.5)).eval(), numbers(4, 5, dtype=torch.float32)
    torch.testing.assert_close(observed(model, x), alone(model, x))
    norms = SampleNorms(Parts(model, lambda outputs, _: losses(outputs)))
    norms.begin(4)
    model(x)
    model.train()
    norms.begin(4)
    with pytest.raises(ModelError, match=r"Own must .* draws"):
        model(x)


class ByChance(nn.Module):  # type: ignore[misc]
    """Uses its first layer in another way each time, or not."""

    def __init__(self, way: Callable[["ByChance", Tensor], Tensor]) -> None:
        super().__init__()
        self.a, self.b, self.way = nn.Linear(5, 5), nn.Linear(5, 5), way

    def forward(self, x: Tensor) -> Tensor:
        return self.way(self, self.b(self.a(x)))


def more_by_chance(net: ByChance, h: Tensor) -> Tensor:
    """Half of the times the weight is used once more, by a function."""
    return h + functional.linear(h, net.a.weight) if torch.rand(()) < 0.5 else h


def dropped_layer(net: ByChance, h: Tensor) -> Tensor:
    """Half of the times the layer is called once more."""
    return h + net.a(h) if torch.rand(()).item() < 0.5 else h


@pytest.mark.parametrize("way", [more_by_chance, dropped_layer])
def test_norms_refuse_layers_that_are_left_out_by_chance(
    way: Callable[[ByChance, Tensor], Tensor],
) -> None:
    with pytest.raises(ModelError, match=r"ByChance draws .* looks at .* per_sample = false\)$"):
        observed(ByChance(way), numbers(4, 5, dtype=torch.float32))


def test_norms_are_exact_where_a_caller_draws_what_decides_nothing() -> None:
    model = ByChance(lambda _, h: functional.dropout(h))
    found, expected = observed_twice(model.double(), numbers(4, 5))
    torch.testing.assert_close(found, expected)


def test_norms_refuse_a_forward_that_uses_a_parameter_more_often_than_the_first() -> None:
    model, x = ByChance(lambda net, h: h @ net.a.weight if net.more else h), numbers(4, 5)
    model = model.double()
    model.more = False
    norms = SampleNorms(Parts(model, lambda outputs, _: losses(outputs)))
    norms.begin(4)
    model(x)
    model.more = True
    norms.begin(4)
    with pytest.raises(ModelError, match=r"ByChance uses a parameter more .* per_sample = false"):
        model(x)


@pytest.mark.parametrize(
    "layer",
    [
        nn.TransformerEncoderLayer(4, 2, 8, batch_first=True),
        nn.Sequential(nn.LSTM(4, 4, 2, batch_first=True, dropout=0.3)),
    ],
)
def test_norms_refuse_dropout_inside_of_a_layer_with_the_way_to_do_without(
    layer: nn.Module,
) -> None:
    with pytest.raises(ModelError, match=r"draws random numbers.*\[statistics\] per_sample = fal"):
        observed(layer, numbers(3, 4, 4, dtype=torch.float32))
