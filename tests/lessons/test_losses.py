"""Losses with their gradients: E the target, a the output, one number for each sample."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from distsgd import TrainConfig, Trainer
from distsgd import autodiff as f
from distsgd.autodiff import GradientTape, Variable, assert_gradient
from distsgd.errors import ModelError
from distsgd.lessons import losses as lessons
from distsgd.nn import LOSSES, Dense, Network, find_loss

Floats = NDArray[np.float64]
CHANCE = np.random.default_rng(0)
A, E = CHANCE.uniform(0.05, 0.95, (4, 3)), CHANCE.uniform(0.05, 0.95, (4, 3))
CLASSES = np.array([0, 2, 1, 2])
OPTIONS: dict[str, dict[str, float]] = {"exponential": {"tau": 0.7}, "huber": {"delta": 0.3}}


def entropy(p: Floats, q: Floats) -> Floats:
    return np.asarray(-(q * np.log(p) + (1 - q) * np.log(1 - p)))


def huber(a: Floats, e: Floats) -> Floats:
    size = abs(a - e)
    return np.where(size <= 0.3, size**2 / 2, 0.3 * (size - 0.15))


def softmax(a: Floats) -> Floats:
    return np.asarray(np.exp(a) / np.exp(a).sum(1, keepdims=True))


def hinge(a: Floats) -> Floats:
    pairs = zip(a, CLASSES, strict=True)
    found = [
        sum(max(0.0, row[j] - row[c] + 1) for j in range(len(row)) if j != c) for row, c in pairs
    ]
    return np.array(found)


PLAIN: dict[str, Callable[[Floats, Floats], Floats]] = {
    "quadratic": lambda a, e: ((a - e) ** 2).sum(1) / 2,
    "squared_error": lambda a, e: ((a - e) ** 2).sum(1),
    "cross_entropy": lambda a, e: entropy(a, e).sum(1),
    "sigmoid_cross_entropy": lambda a, e: entropy(1 / (1 + np.exp(-a)), e).sum(1),
    "softmax_cross_entropy": lambda a, e: -np.log(softmax(a)[np.arange(len(e)), CLASSES]),
    "exponential": lambda a, e: 0.7 * np.exp(((a - e) ** 2).sum(1) / 0.7),
    "hellinger": lambda a, e: ((np.sqrt(a) - np.sqrt(e)) ** 2).sum(1) / math.sqrt(2),
    "kullback_leibler": lambda a, e: (e * np.log(e / a)).sum(1),
    "generalised_kullback_leibler": lambda a, e: (e * np.log(e / a) - e + a).sum(1),
    "itakura_saito": lambda a, e: (e / a - np.log(e / a) - 1).sum(1),
    "mean_absolute": lambda a, e: abs(a - e).mean(1),
    "huber": lambda a, e: huber(a, e).sum(1),
    "hinge": lambda a, e: hinge(a),  # noqa: ARG005 -- its targets are classes.
}


def targets(name: str) -> NDArray[np.generic]:
    return CLASSES if find_loss(name).target_kind == "class" else E


def test_every_loss_is_a_lesson() -> None:
    assert set(PLAIN) == set(LOSSES)


@pytest.mark.parametrize("name", LOSSES)
def test_loss_is_its_formula(name: str) -> None:
    loss = find_loss(name, OPTIONS.get(name))
    losses = loss.sample_losses(Variable(A), Variable(targets(name), dtype=targets(name).dtype))
    np.testing.assert_allclose(losses.value, PLAIN[name](A, E), rtol=1e-13)


@pytest.mark.parametrize("name", LOSSES)
def test_loss_gradient_is_that_of_central_differences(name: str) -> None:
    loss, target = find_loss(name, OPTIONS.get(name)), targets(name)

    def loss_and_gradient(at: Floats) -> tuple[float, Floats]:
        a = Variable(at)
        with GradientTape() as tape:
            losses = loss.sample_losses(a, Variable(target, watched=False, dtype=target.dtype))
            loss_sum = (losses * [1.0, -2.0, 3.0, 0.5]).sum()
        return float(loss_sum), tape.gradient(loss_sum, a)

    assert_gradient(loss_and_gradient, A)


def run_program(name: str, a: list[float], e: list[float], dtype: type) -> tuple[float, Floats]:
    """Loss and gradient by the output of a network that hands its input on."""
    model = Network([Dense(len(a), bias=False)], find_loss(name), (len(a),))
    by_input: Floats = np.empty((1, len(a)), dtype)
    bound = model.program(1, dtype, per_sample=False).bind(
        np.array([a], dtype),
        np.array([e], dtype),
        weights=np.eye(len(a), dtype=dtype).reshape(-1),
        x_gradient=by_input,
    )
    bound.forward()
    bound.backward()
    return float(bound.losses_N[0]), by_input[0]


EDGES: list[tuple[str, list[float], list[float], float]] = [
    ("cross_entropy", [0.0, 1.0], [0.0, 1.0], 0.0),
    ("kullback_leibler", [0.0, 1.0], [0.0, 1.0], 0.0),
    ("generalised_kullback_leibler", [0.0, 1.0], [0.0, 1.0], 0.0),
    ("generalised_kullback_leibler", [0.5, 1.0], [0.0, 1.0], 0.5),
    ("hellinger", [0.0, 0.0], [0.0, 2.0], math.sqrt(2.0)),
    ("itakura_saito", [1e-30, 1.0], [1e-30, 1.0], 0.0),
    ("itakura_saito", [1e30, 1.0], [1e-30, 1.0], 60 * math.log(10) - 1),
    ("sigmoid_cross_entropy", [-1e4, 1e4], [0.0, 1.0], 0.0),
    ("huber", [1e30, 0.0], [0.0, 0.0], 1e30),
]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("name", "a", "e", "loss"), EDGES)
def test_loss_is_exact_at_the_edge_of_its_domain(
    name: str, a: list[float], e: list[float], loss: float, dtype: type
) -> None:
    found, gradient = run_program(name, a, e, dtype)
    assert found == pytest.approx(loss, rel=1e-6, abs=1e-6)
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", ["cross_entropy", "kullback_leibler", "hellinger"])
def test_loss_of_an_impossible_output_is_large_but_finite(name: str, dtype: type) -> None:
    found, gradient = run_program(name, [0.0, 1.0], [1.0, 0.0], dtype)
    assert 1.0 < found < 2000.0
    assert np.isfinite(gradient).all()
    assert gradient[0] < -1e15


OUTSIDE: list[tuple[Callable[[], object], str]] = [
    (lambda: f.cross_entropy([[1.1]], [[1.0]]), r"output 1\.1 at \[0, 0\]; must be from 0 to 1"),
    (lambda: f.cross_entropy([[0.5, -0.1]], [[1.0, 0.0]]), r"output -0\.1 at \[0, 1\]"),
    (lambda: f.cross_entropy([[0.5]], [[2.0]]), "target 2"),
    (lambda: f.sigmoid_cross_entropy([[0.5]], [[-1.0]]), "target -1"),
    (lambda: lessons.hellinger([[-1.0]], [[1.0]]), "output -1 .* must be 0 or more"),
    (lambda: lessons.hellinger([[1.0]], [[-1.0]]), "target -1"),
    (lambda: lessons.kullback_leibler([[-1.0]], [[1.0]]), "output -1"),
    (lambda: lessons.kullback_leibler([[1.0]], [[-1.0]], generalised=True), "target -1"),
    (lambda: lessons.itakura_saito([[0.0]], [[1.0]]), "output 0 .* must be above 0"),
    (lambda: lessons.itakura_saito([[1.0]], [[0.0]]), "target 0"),
    (lambda: f.hinge([[1.0, 2.0]], [2]), "class 2 .* from 0 to 1"),
    (lambda: f.softmax_cross_entropy([[1.0, 2.0]], [-1]), "class -1"),
    (lambda: lessons.exponential([[1.0]], [[1.0]], tau=0.0), "tau of exponential is 0"),
    (lambda: f.huber([[1.0]], [[1.0]], delta=-1.0), "delta of huber is -1"),
    (lambda: find_loss("huber", {"tau": 1.0}), "has no option 'tau'; it takes delta"),
    (lambda: find_loss("hinge", {"tau": 1.0}), "it takes no options"),
]


@pytest.mark.parametrize(("call", "says"), OUTSIDE)
def test_loss_outside_its_domain_is_a_typed_error(call: Callable[[], object], says: str) -> None:
    with pytest.raises(ModelError, match=says):
        call()


@pytest.mark.parametrize("name", ["cross_entropy", "hellinger", "kullback_leibler"])
def test_program_that_leaves_the_domain_gives_no_number(name: str) -> None:
    with np.errstate(invalid="ignore"):
        loss, _ = run_program(name, [-0.5, 0.5], [0.5, 0.5], np.float64)
    assert math.isnan(loss), "so that a run stops as diverged"


MEANS = [name for name in LOSSES if "reduction" in find_loss(name).option_names]


def test_losses_of_numbers_can_be_means_over_outputs() -> None:
    assert set(LOSSES) - set(MEANS) == {
        "softmax_cross_entropy",
        "hinge",
        "exponential",  # Its sum is inside.
        "mean_absolute",  # It is one.
    }


@pytest.mark.parametrize("num_outputs", [1, 3])
@pytest.mark.parametrize("name", MEANS)
def test_mean_over_outputs_is_the_sum_divided_by_them(name: str, num_outputs: int) -> None:
    a, e = A[:, :num_outputs], E[:, :num_outputs]
    variable, found = Variable(a), []
    for reduction in ("sum", "mean"):
        with GradientTape() as tape:
            loss = find_loss(name, {"reduction": reduction})
            losses = loss.sample_losses(variable, e)
            loss_sum = (losses * [1.0, -2.0, 3.0, 0.5]).sum()
        found.append((losses.value, tape.gradient(loss_sum, variable)))
    for total, mean in zip(*found, strict=True):
        np.testing.assert_allclose(mean, total / num_outputs, rtol=1e-15)


@pytest.mark.parametrize("name", MEANS)
def test_samples_own_gradients_of_a_mean_are_exact(name: str) -> None:
    loss = find_loss(name, {"reduction": "mean"})
    layers = [Dense(3, None if name == "sigmoid_cross_entropy" else "sigmoid")]
    model, x = Network(layers, loss, (2,)), CHANCE.standard_normal((4, 2))
    flat = model.initialise("glorot", 0, np.float64)
    own = []
    for rows in (slice(None), *(slice(n, n + 1) for n in range(4))):
        gradients = np.empty_like(flat)
        bound = model.program(4, np.float64, per_sample=True).bind(
            x[rows].copy(), E[rows].copy(), weights=flat, gradients=gradients
        )
        bound.forward()
        bound.backward()
        assert bound.squared_norms_N is not None
        own.append((bound.squared_norms_N.copy(), gradients))
    (norms, total), *alone = own
    np.testing.assert_allclose(norms, [g @ g for _, g in alone], rtol=1e-12)
    np.testing.assert_allclose(total, sum(g for _, g in alone), rtol=1e-12)


def test_mean_squared_error_trains_as_the_sum_at_a_rate_divided_by_the_outputs(
    tmp_path: Path,
) -> None:
    chance = np.random.default_rng(2)
    x, y = chance.standard_normal((30, 3)), chance.standard_normal((30, 4))
    found = []
    for reduction, rate in (("sum", 0.0625), ("mean", 0.25)):
        config = TrainConfig.from_dict(
            {
                "data": {"label": "y"},
                "model": {
                    "layers": [{"type": "dense", "units": 4}],
                    "loss": "squared_error",
                    "loss_options": {"reduction": reduction},
                },
                "optimizer": {"learning_rate": rate},
                "batch": {"size": 10},
                "train": {"epochs": 5, "dtype": "float64"},
                "parallel": {"workers": 0},
            }
        )
        found.append(Trainer(config, data=(x, y), run_dir=tmp_path / reduction).fit())
    total, mean = found
    for name, weights in total.weights.items():  # Powers of two: the same bits.
        assert weights.tobytes() == mean.weights[name].tobytes()
    losses = (np.array(run.history["train_loss"].to_pylist()) for run in found)
    assert next(losses).tolist() == (4 * next(losses)).tolist()
    squared = [run.history["squared_error"].to_pylist() for run in found]
    assert squared[0] == squared[1]  # The history's is the sum, whatever is trained on.


@pytest.mark.parametrize("reduction", ["none", "", 2.0, None])
def test_other_reductions_are_refused(reduction: object) -> None:
    with pytest.raises(ModelError, match=r'reduction of huber is .* must be "sum" or "mean"'):
        find_loss("huber", {"reduction": reduction})
    with pytest.raises(ModelError, match="has no option 'reduction'"):
        find_loss("exponential", {"reduction": "mean"})


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize(
    ("outputs", "target"),
    [
        ([0.5, 0.5], [0, 1]),  # One row without its axis.
        ([0.5, 0.5], 1),
        (0.5, 1),
        ([[0.5, 0.5]], 1),
        ([[0.5, 0.5]], [0, 1]),
        ([[[0.5, 0.5]]], [0]),
    ],
)
def test_shapes_that_do_not_fit_are_a_typed_error(
    name: str, outputs: object, target: object
) -> None:
    loss = find_loss(name)
    with pytest.raises(ModelError, match="got outputs of shape"):
        loss.sample_losses(outputs, target)  # type: ignore[arg-type] # as a user would


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("target", [[[0.5, 0.5], [1.0]], [["a", "b"]], ["a"], None])
def test_targets_that_are_no_numbers_are_a_typed_error(name: str, target: object) -> None:
    with pytest.raises(ModelError):
        find_loss(name).sample_losses([[0.5, 0.5]], target)  # type: ignore[arg-type] # the same


@pytest.mark.parametrize("name", ["hinge", "softmax_cross_entropy"])
def test_classes_must_be_whole_numbers(name: str) -> None:
    with pytest.raises(ModelError, match="class numbers of dtype float64; must be whole numbers"):
        find_loss(name).sample_losses([[0.5, 0.5]], [1.0])
    losses = find_loss(name).sample_losses([[0.25, 0.75]], [1])
    assert (
        losses.value.tolist() == find_loss(name).sample_losses(Variable([[0.25, 0.75]]), [1]).value
    )
    assert losses.value[0] == pytest.approx(0.5 if name == "hinge" else np.log1p(np.exp(-0.5)))


def test_options_stay_with_a_model() -> None:
    model = Network([Dense(2)], find_loss("huber", {"delta": 2.5}), (3,))
    assert Network.from_dict(model.to_dict()) == model
    assert model.to_dict()["loss_options"] == {"delta": 2.5}


@pytest.mark.parametrize("name", LOSSES)
def test_training_makes_every_loss_smaller(name: str, tmp_path: Path) -> None:
    one_class = find_loss(name).target_kind == "class"
    chance = np.random.default_rng(1)
    x = chance.standard_normal((60, 3))
    labels = (x[:, 0] > 0).astype(np.int64) if one_class else 1 / (1 + np.exp(-x[:, 0] + 0.5))
    layer: dict[str, object] = {"type": "dense", "units": 2 if one_class else 1}
    if name != "sigmoid_cross_entropy" and not one_class:
        layer["activation"] = "sigmoid"
    config = TrainConfig.from_dict(
        {
            "data": {"path": "-", "label": "y"},
            "model": {"layers": [layer], "loss": name, "loss_options": OPTIONS.get(name, {})},
            "optimizer": {"learning_rate": 0.1},
            "batch": {"size": 20},
            "train": {"epochs": 10, "dtype": "float64"},
            "parallel": {"workers": 0},
        }
    )
    result = Trainer(config, data=(x, labels), run_dir=tmp_path / "run").fit()
    losses = result.history["train_loss"].to_pylist()
    assert losses[-1] < losses[0]
