"""Models against central differences, and every per-sample quantity against a plain loop over
samples."""

from __future__ import annotations

import pickle
import tracemalloc
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distsgd.autodiff.check import assert_gradient
from distsgd.base.arrays import Array
from distsgd.errors import ModelError
from distsgd.nn.images import Convolution, MaxPool
from distsgd.nn.layers import (
    Activation,
    Dense,
    Flatten,
    Layer,
    ReLU,
    Reshape,
    Sigmoid,
    Softmax,
    Tanh,
)
from distsgd.nn.losses import LOSSES
from distsgd.nn.network import Network
from distsgd.nn.regularisation import Dropout, LayerNorm

NETWORKS: dict[str, tuple[list[Layer], tuple[int, ...]]] = {
    "one_layer": ([Dense(3)], (4,)),
    "one_number": ([Dense(2)], (1,)),
    "relu": ([Dense(5, "relu"), Dense(3)], (4,)),
    "sigmoid": ([Dense(5, "sigmoid"), Dense(3, bias=False)], (4,)),
    "tanh_without_bias": ([Dense(5, "tanh", bias=False), Dense(2)], (4,)),
    "softmax_inside": ([Dense(5, "softmax"), Dense(3)], (4,)),
    "flatten": ([Flatten(), Dense(3, "tanh"), Dense(2)], (2, 3)),
    "own_layers": (
        [Flatten(), ReLU(), Dense(4), Tanh(), Dense(3), Sigmoid(), Dense(2), Softmax()],
        (2, 2),
    ),
    "wide": ([Dense(70, "relu"), Dense(66, "tanh"), Dense(3)], (65,)),
    "deep": ([Dense(4, "relu"), Dense(4, "sigmoid"), Dense(4, "tanh"), Dense(2)], (3,)),
}
# Losses whose outputs must be positive, or must not grow: their networks end with a sigmoid.
BOUNDED = {
    "cross_entropy",
    "exponential",
    "hellinger",
    "kullback_leibler",
    "generalised_kullback_leibler",
    "itakura_saito",
}
PAIRS = [
    (network, loss)
    for network in NETWORKS
    for loss in LOSSES
    if not (network == "own_layers" and loss == "softmax_cross_entropy")
]


class Case(NamedTuple):
    model: Network
    flat: Array
    x: Array
    target: Array


def case(network: str, loss: str, rows: int, dtype: Any = np.float64, seed: int = 0) -> Case:
    layers, input_shape = NETWORKS[network]
    model = Network([*layers, Sigmoid()] if loss in BOUNDED else layers, loss, input_shape)
    chance = np.random.default_rng(seed)
    target: Array = chance.uniform(0.1, 0.9, (rows, model.num_outputs)).astype(dtype)
    if model.target_kind == "class":
        target = chance.integers(0, model.num_outputs, rows)
    # Biases too, so that they are not all 0.
    flat = chance.uniform(-0.7, 0.7, model.num_parameters).astype(dtype)
    return Case(model, flat, chance.standard_normal((rows, *input_shape)).astype(dtype), target)


def run(c: Case, rows: slice = slice(None), *, with_norms_of_x: bool = False) -> dict[str, Array]:
    """One forward and backward over some of the rows, with a program of its own."""
    x, target = np.ascontiguousarray(c.x[rows]), np.ascontiguousarray(c.target[rows])
    gradients, x_gradient = np.full_like(c.flat, np.nan), np.full_like(x, np.nan)
    norms = (x.reshape(len(x), -1) ** 2).sum(1) if with_norms_of_x else None
    bound = c.model.program(len(x), c.flat.dtype, per_sample=True).bind(
        x, target, weights=c.flat, gradients=gradients, x_squared_norms=norms, x_gradient=x_gradient
    )
    bound.forward()
    bound.backward()
    assert bound.squared_norms_N is not None
    return {
        "losses": bound.losses_N,
        "outputs": bound.outputs_NO,
        "norms": bound.squared_norms_N,
        "gradients": gradients,
        "x_gradient": x_gradient,
    }


@pytest.mark.parametrize(("network", "loss"), PAIRS)
def test_model_gradients_are_those_of_central_differences(network: str, loss: str) -> None:
    c = case(network, loss, rows=1 if network == "wide" else 4)

    def by_weights(flat: Array) -> tuple[float, Array]:
        found = run(c._replace(flat=flat))
        return float(found["losses"].sum()), found["gradients"]

    def by_input(x: Array) -> tuple[float, Array]:
        found = run(c._replace(x=x))
        return float(found["losses"].sum()), found["x_gradient"]

    assert_gradient(by_input, c.x)
    if network != "wide":  # thousands of parameters: its matrix products are those of the others
        assert_gradient(by_weights, c.flat)


@pytest.mark.parametrize(("network", "loss"), PAIRS)
def test_per_sample_quantities_are_those_of_a_loop_over_samples(network: str, loss: str) -> None:
    c = case(network, loss, rows=7)
    together = run(c)
    alone = [run(c, slice(n, n + 1)) for n in range(7)]
    for name in ("losses", "outputs", "norms", "x_gradient"):
        np.testing.assert_allclose(
            together[name], np.concatenate([a[name] for a in alone]), rtol=1e-10, atol=1e-13
        )
    own = [a["gradients"] for a in alone]
    np.testing.assert_allclose(together["norms"], [g @ g for g in own], rtol=1e-10)
    np.testing.assert_allclose(together["gradients"], sum(own), rtol=1e-10, atol=1e-13)
    np.testing.assert_allclose(run(c, with_norms_of_x=True)["norms"], together["norms"], rtol=1e-12)


@settings(deadline=None, max_examples=40)
@given(
    sizes=st.lists(st.integers(1, 80), min_size=1, max_size=3),
    inputs=st.integers(1, 80),
    rows=st.integers(1, 9),
    bias=st.booleans(),
)
def test_per_sample_norms_hold_for_any_shape(
    sizes: list[int],
    inputs: int,
    rows: int,
    bias: bool,  # noqa: FBT001 -- drawn.
) -> None:
    layers: list[Layer] = [Dense(n, "tanh", bias=bias) for n in sizes]
    model = Network(layers, "quadratic", (inputs,))
    chance = np.random.default_rng(0)
    c = Case(
        model,
        model.initialise("glorot", 0, np.float64),
        chance.standard_normal((rows, inputs)),
        chance.standard_normal((rows, sizes[-1])),
    )
    own = [run(c, slice(n, n + 1))["gradients"] for n in range(rows)]
    together = run(c)
    np.testing.assert_allclose(together["norms"], [g @ g for g in own], rtol=1e-9, atol=1e-300)
    np.testing.assert_allclose(together["gradients"], sum(own), rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("rows", [1, 2, 33])
def test_bits_are_the_same_wherever_buffers_lie(rows: int, loss: str) -> None:
    c = case("wide", loss, rows=rows, dtype=np.float32)
    first = run(c)
    for offset in range(1, 20, 3):
        moved: dict[str, Any] = {}
        for name, array in c._asdict().items():
            if name == "model":
                continue
            room = np.empty(array.size + offset, array.dtype)
            moved[name] = room[offset:].reshape(array.shape)
            moved[name][...] = array
        again = run(c._replace(**moved))
        assert {name: a.tobytes() for name, a in again.items()} == {
            name: a.tobytes() for name, a in first.items()
        }


@pytest.mark.parametrize("loss", LOSSES)
def test_float32_stays_float32_and_statistics_change_no_bits(loss: str) -> None:
    c = case("flatten", loss, rows=5, dtype=np.float32)
    with_norms = run(c)
    assert {a.dtype for a in with_norms.values()} == {np.dtype(np.float32)}
    gradients = np.empty_like(c.flat)
    bound = c.model.program(9, np.float32, per_sample=False).bind(
        c.x, c.target, weights=c.flat, gradients=gradients
    )
    bound.forward()
    bound.backward()
    assert bound.squared_norms_N is None
    assert gradients.tobytes() == with_norms["gradients"].tobytes()


def test_parameters_lie_in_the_order_of_the_layers() -> None:
    model = Network([Dense(5, "sigmoid"), Dense(10)], "softmax_cross_entropy", (10,))
    assert model.num_parameters == 115
    assert [tuple(spec) for spec in model.parameters] == [
        ("layers.0.weight", (10, 5)),
        ("layers.0.bias", (5,)),
        ("layers.1.weight", (5, 10)),
        ("layers.1.bias", (10,)),
    ]
    flat = np.arange(115.0)
    views = model.views(flat)
    assert views["layers.0.weight"][1, 0] == 5.0
    assert views["layers.1.bias"].tolist() == list(range(105, 115))
    views["layers.0.bias"][...] = -1.0
    assert flat[50:55].tolist() == [-1.0] * 5
    with pytest.raises(ModelError, match=r"must be \(115,\)"):
        model.views(flat[1:])


@pytest.mark.parametrize(("network", "loss"), PAIRS)
def test_model_survives_pickling_and_json(network: str, loss: str) -> None:
    model = case(network, loss, rows=1).model
    for copy in (pickle.loads(pickle.dumps(model)), Network.from_dict(model.to_dict())):  # noqa: S301 -- our own bytes.
        assert copy == model
        assert copy.parameters == model.parameters
        assert copy.num_outputs == model.num_outputs


@pytest.mark.parametrize(
    ("layers", "loss", "input_shape", "says"),
    [
        ([], "quadratic", (2,), "no layers"),
        ([Dense(2)], "quadratik", (2,), "did you mean 'quadratic'"),
        ([Dense(2)], "quadratic", (0,), "whole numbers of at least 1"),
        ([Dense(2)], "quadratic", (2, 2), "layers.0: .* flatten"),
        ([Softmax(), Flatten()], "quadratic", (2, 2), "layers.0: softmax"),
        ([ReLU()], "quadratic", (2, 2), "last layer"),
        ([Dense(2, "softmax")], "softmax_cross_entropy", (2,), "applies it as well"),
        ([Dense(2), Softmax()], "softmax_cross_entropy", (2,), "applies it as well"),
        ([Dense(2, "sigmoid")], "sigmoid_cross_entropy", (2,), "applies it as well"),
        ([Dense(1)], "softmax_cross_entropy", (2,), "at least 2"),
        ([Dense(1)], "hinge", (2,), "always 0; must be at least 2"),
    ],
)
def test_model_refuses_what_cannot_be_built(
    layers: list[Layer], loss: str, input_shape: tuple[int, ...], says: str
) -> None:
    with pytest.raises(ModelError, match=says):
        Network(layers, loss, input_shape)


@pytest.mark.parametrize(
    ("described", "says"),
    [
        ({"type": "dens", "units": 2}, "did you mean 'dense'"),
        ({"units": 2}, "layer type is None"),
        ({"type": "dense"}, "has no units"),
        ({"type": "dense", "unit": 2}, "did you mean 'units'"),
        ({"type": "dense", "units": 0}, "units is 0"),
        ({"type": "dense", "units": True}, "units is True"),
        ({"type": "dense", "units": 2.0}, "units is 2.0"),
        ({"type": "dense", "units": 2, "activation": "rellu"}, "did you mean 'relu'"),
        ({"type": "relu", "units": 2}, "takes no settings"),
    ],
)
def test_model_refuses_descriptions_it_does_not_know(described: dict[str, Any], says: str) -> None:
    with pytest.raises(ModelError, match=says):
        Network.from_dict({"layers": [described], "loss": "quadratic", "input_shape": [2]})


def test_model_refuses_incomplete_descriptions_and_unknown_activations() -> None:
    with pytest.raises(ModelError, match="no 'loss'"):
        Network.from_dict({"layers": [], "input_shape": [2]})
    with pytest.raises(ModelError, match="did you mean 'tanh'"):
        Activation("tan")


@pytest.mark.parametrize(
    "layers",
    [
        [Dense(512, "relu"), Dense(512, "sigmoid"), Dense(10)],
        [Dense(512, "tanh"), Dense(512, "tanh"), Dense(10)],
        [Dense(512, "gelu"), Activation("gelu"), Dense(10)],
        [Dense(512), Tanh(), LayerNorm(), Dropout(0.5), Dense(10)],
        [Reshape((28, 28, 1)), Convolution(16, 3), MaxPool(2), Flatten(), Dense(10)],
        [
            Reshape((28, 28, 1)),
            Convolution(8, 5, padding="same", activation="relu"),
            Convolution(32, 3, stride=2, activation="tanh"),
            Flatten(),
            Dense(10),
        ],
    ],
)
def test_numbers_per_sample_are_about_what_a_program_allocates(layers: list[Layer]) -> None:
    model, rows = Network(layers, "softmax_cross_entropy", (784,)), 256
    tracemalloc.start()
    program = model.program(rows, np.float32, per_sample=True)
    allocated_bytes, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert program.max_rows == rows
    assert 0.8 < 4 * rows * model.numbers_per_sample / allocated_bytes < 1.5
