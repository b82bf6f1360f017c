"""What a factory of PyTorch may make, what is refused, and its weights in and out."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distsgd.errors import ModelError
from distsgd.models import Model, Recipe, RowSpec, model_of
from distsgd.models.weights import weights_vector
from tests.unit.models.torch import models
from tests.unit.models.torch.models import CLASSES, NUMBERS, block, cross_entropy, model_made_by

torch: Any = pytest.importorskip("torch", reason="needs the extra 'torch'")


def tied(inputs: int, outputs: int) -> Any:
    """A weight under two names, a buffer that lasts and one that does not."""

    class Net(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.first = torch.nn.Linear(inputs, inputs, bias=False)
            self.second = torch.nn.Linear(inputs, inputs)
            self.second.weight = self.first.weight
            self.last = torch.nn.Linear(inputs, outputs)
            self.scale = torch.nn.Parameter(torch.tensor(2.0))
            self.register_buffer("lasting", torch.rand(3))
            self.register_buffer("passing", torch.ones(2), persistent=False)

        def forward(self, x: Any) -> Any:
            return self.last(self.second(self.first(x)) * self.scale)

    return Net(), cross_entropy


def test_parameters_are_named_and_ordered_as_in_torch() -> None:
    net, _ = models.mlp(6, 3)
    model = model_made_by(models.mlp)
    assert [(it.name, it.shape) for it in model.parameters] == [
        (name, tuple(it.shape)) for name, it in net.named_parameters()
    ]
    assert model.num_parameters == sum(it.numel() for it in net.parameters())


def test_start_weights_are_those_of_the_module_under_the_seed() -> None:
    model = model_made_by(models.mlp)
    torch.manual_seed(5)
    net, _ = models.mlp(6, 3)
    for name, view in model.views(model.initialise("", 5, np.float32)).items():
        assert view.tolist() == net.get_parameter(name).tolist()
    assert (model.initialise("", 6, np.float32) != model.initialise("", 5, np.float32)).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_weights_load_strictly_into_plain_torch(dtype: str, tmp_path: Path) -> None:
    from safetensors.numpy import save_file
    from safetensors.torch import load_file

    model = model_made_by(tied)
    weights = model.initialise("", 5, dtype)
    state = model.state_dict(weights)
    assert "passing" not in state
    assert "second.weight" not in model.views(weights)
    save_file(state, tmp_path / "w.safetensors")
    net, _ = tied(6, 3)
    net.to(torch.tensor(weights).dtype).load_state_dict(load_file(tmp_path / "w.safetensors"))
    x, _ = block(CLASSES, dtype=dtype)
    program = model.program(5, dtype, per_sample=False)
    bound = program.bind(x, np.zeros(5, np.int64), weights=weights)
    bound.forward()
    np.testing.assert_allclose(net(torch.tensor(x)).detach(), bound.outputs_NO, rtol=1e-5)


def test_weights_come_in_from_a_state_dict_with_its_aliases_and_buffers() -> None:
    model = model_made_by(tied)
    weights = model.initialise("", 5, np.float32)
    state = model.state_dict(weights)
    assert weights_vector(model, state, np.float32).tobytes() == weights.tobytes()
    only = model.views(weights)
    assert weights_vector(model, only, np.float32).tobytes() == weights.tobytes()
    for name in ("second.weight", "lasting"):
        with pytest.raises(ModelError, match=f"{name} has other values than the model's own"):
            weights_vector(model, state | {name: state[name] + 1}, np.float32)
    with pytest.raises(ModelError, match="other is no parameter"):
        weights_vector(model, state | {"other": np.zeros(2)}, np.float32)


def test_predictions_are_of_the_weights_that_are_given_and_of_any_number_of_rows() -> None:
    model = model_made_by(models.mlp)
    x, _ = block(CLASSES, 300)
    one, other = (model.initialise("", seed, np.float32) for seed in (1, 2))
    first = model.predict(one, x)
    assert (model.predict(other, x) != first).all()
    assert model.predict(one, x).tolist() == first.tolist()
    assert model.predict(one, x[:256]).tolist() == first[:256].tolist()
    assert model.predict(one, x[:0]).shape == (0, 3)
    assert model.predict(one.astype(np.float64), x).dtype == np.float64


def test_it_travels_as_its_factory() -> None:
    recipe = Recipe("tests.unit.models.torch.models:mlp", {"width": 4}, CLASSES)
    model = model_of(recipe)
    again = pickle.loads(pickle.dumps(model))  # noqa: S301 -- our own.
    assert again.parameters == model.parameters
    assert again.to_dict() == model.to_dict()
    assert len(pickle.dumps(model)) < 1000


class Net(torch.nn.Module):  # type: ignore[misc]
    """A module of another package, a class that knows nothing of ours."""

    def __init__(self, num_classes: int, width: int = 4) -> None:
        super().__init__()
        self.body = torch.nn.Sequential(
            torch.nn.LazyLinear(width), torch.nn.ReLU(), torch.nn.Linear(width, num_classes)
        )
        self.body(torch.zeros(1, 6))

    def forward(self, x: Any) -> Any:
        return self.body(x)


def of_class(rows: RowSpec, loss: str, **options: Any) -> Model:
    name = f"{__name__}:Net"
    wanted = {"num_classes": rows.num_outputs}
    return model_of(Recipe(name, wanted, rows, loss, options))


def test_class_of_another_package_is_trained_by_a_named_loss() -> None:
    model = of_class(CLASSES, "softmax_cross_entropy")
    assert model.has_probabilities
    assert (model.loss_name, model.target_kind) == ("softmax_cross_entropy", "class")
    x, _ = block(CLASSES, 300)
    predictions = model.predict(model.initialise("", 0, np.float32), x)
    np.testing.assert_allclose(predictions.sum(1), 1, rtol=1e-5)
    assert model.to_dict()["loss"] == "softmax_cross_entropy"


@pytest.mark.parametrize(
    ("loss", "options", "factor"),
    [
        ("squared_error", {}, 1.0),
        ("squared_error", {"reduction": "mean"}, 2.0),
        ("quadratic", {}, 2.0),
        ("huber", {"delta": 2.0}, None),
    ],
)
def test_named_loss_says_what_it_is_to_the_squared_error(
    loss: str, options: dict[str, Any], factor: float | None
) -> None:
    model = of_class(NUMBERS, loss, **options)
    assert model.squared_error_factor == factor
    assert not model.has_probabilities
    assert of_class(NUMBERS, "sigmoid_cross_entropy").target_domain.highest == 1


def test_numbers_per_sample_are_about_what_training_holds() -> None:
    rows = RowSpec((36,), "class", 3)
    small, wide = (model_made_by(models.mlp, rows, options={"width": width}) for width in (8, 800))
    # What the second layer sees, its three outputs once more in the loss, and gradients of both.
    assert 2 * 8 <= small.numbers_per_sample <= 2 * (8 + 4 * 3)
    assert 2 * 800 <= wide.numbers_per_sample <= 2 * (800 + 4 * 3)
    images = model_made_by(models.cnn, rows)
    # Convolution, group norm, GELU and pooling see eight images of 36 numbers each.
    assert 2 * 3 * 8 * 36 < images.numbers_per_sample < 2 * 6 * 8 * 36
    assert images.numbers_per_sample == model_made_by(models.cnn, rows).numbers_per_sample


def test_module_that_takes_no_made_up_rows_is_told_by_real_ones() -> None:
    def make(inputs: int, outputs: int) -> Any:
        class Picky(torch.nn.Linear):  # type: ignore[misc]
            def forward(self, x: Any) -> Any:
                if (x < 1).any():
                    raise ValueError("too small")
                return super().forward(x)

        return Picky(inputs, outputs), cross_entropy

    model, (x, _) = model_made_by(make), block(CLASSES)
    weights = model.initialise("", 0, np.float32)
    assert model.predict(weights, np.abs(x) + 1).shape == (5, 3)
    with pytest.raises(Exception, match="too small"):
        model.predict(weights, x)


def linear(change: Any) -> Any:
    def make(inputs: int, outputs: int) -> Any:
        net = torch.nn.Linear(inputs, outputs)
        return change(net)

    return make


def in_place(kind: str) -> Any:
    def make(inputs: int, outputs: int) -> Any:
        class Changes(torch.nn.Linear):  # type: ignore[misc]
            def forward(self, x: Any) -> Any:
                if kind == "input":
                    x.mul_(2)
                elif kind == "weight":
                    with torch.no_grad():
                        self.weight.clamp_(-1, 1)
                out = super().forward(x)
                return {"tuple": (out, out), "first": out[:1], "whole": out.long()}.get(kind, out)

        return Changes(inputs, outputs), cross_entropy

    return make


def complex_like(net: Any) -> Any:
    return torch.nn.Linear(net.in_features, net.out_features, dtype=torch.complex64)


def frozen(net: Any) -> Any:
    net.bias.requires_grad_(False)
    return net, cross_entropy


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (linear(lambda net: net), r"a module alone, and no loss is named; set \[model\] loss"),
        (linear(lambda net: [net]), "makes a list; must make"),
        (linear(lambda net: (net, 3)), "makes a tuple; must make"),
        (linear(frozen), r'bias has requires_grad=False.*\[optimizer\] frozen = \["bias"\]'),
        (
            linear(lambda net: (complex_like(net), cross_entropy)),
            "weight is torch.complex64; must be real",
        ),
        (linear(lambda _: (torch.nn.Flatten(), cross_entropy)), "no parameters; nothing can"),
        (
            linear(lambda net: (net, lambda out, target: cross_entropy(out, target).mean())),
            r"torch.float32 of shape \(\) for 2 rows; must be \(2,\)",
        ),
        (
            linear(lambda net: (net, lambda out, target: cross_entropy(out, target)[:, None])),
            r"of shape \(2, 1\) for 2 rows",
        ),
        (
            linear(lambda net: (net, lambda *_: 0.5)),
            "gives a float for 2 rows",
        ),
        (
            linear(lambda net: (net, lambda out, target: cross_entropy(out, target).detach())),
            "do not depend on any parameter",
        ),
        (in_place("tuple"), "gives a tuple; must be one tensor"),
        (in_place("first"), r"shape \(1, 3\) for 2 rows"),
        (in_place("whole"), "torch.int64 outputs"),
        (in_place("input"), "changes its input in place"),
        (in_place("weight"), "changes its parameter weight while it runs"),
    ],
)
def test_what_cannot_be_trained_is_refused_when_it_is_made(make: Any, said: str) -> None:
    with pytest.raises(ModelError, match=said):
        model_made_by(make)


def test_two_losses_and_wrong_widths_are_refused() -> None:
    with pytest.raises(ModelError, match=r'model.loss is "hinge", and .* of its own; remove'):
        model_made_by(models.mlp, loss="hinge")
    wide = linear(lambda net: torch.nn.Sequential(net, torch.nn.Linear(3, 9)))
    with pytest.raises(ModelError, match=r"\(2, 9\) .* must be \(2, 3\)"):
        model_made_by(wide, loss="softmax_cross_entropy")
