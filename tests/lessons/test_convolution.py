"""Convolution, max-pooling and layer normalisation: gates and layers with exact per-sample
gradients."""

from __future__ import annotations

import os
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from distsgd import TrainConfig, Trainer
from distsgd import autodiff as f
from distsgd.autodiff import GradientTape, Variable, assert_gradient
from distsgd.autodiff.ops.convolution import Padding
from distsgd.errors import ModelError
from distsgd.nn import Convolution, Dense, Dropout, Flatten, Layer, LayerNorm, MaxPool, Network
from distsgd.nn import Reshape as Images

Floats = NDArray[np.float64]


def slow_convolution(x: Floats, kernel: Floats, stride: int, padding: Padding) -> Floats:
    """Place by place, one patch at a time."""
    size = kernel.shape[0]
    if padding == "same":
        places = [-(-side // stride) for side in x.shape[1:3]]
        zeros = [
            max((n - 1) * stride + size - side, 0)
            for n, side in zip(places, x.shape[1:3], strict=True)
        ]
        around = [(n // 2, n - n // 2) for n in zeros]
        x = np.pad(x, [(0, 0), *around, (0, 0)])
    else:
        places = [(side - size) // stride + 1 for side in x.shape[1:3]]
    found = np.empty((len(x), *places, kernel.shape[3]))
    for i, j in np.ndindex(*places):
        patch = x[:, i * stride : i * stride + size, j * stride : j * stride + size]
        found[:, i, j] = np.einsum("nhwc,hwco->no", patch, kernel)
    return found


@settings(deadline=None, max_examples=40)
@given(
    rows=st.integers(1, 3),
    sides=st.tuples(st.integers(1, 7), st.integers(1, 7)),
    channels=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    size=st.integers(1, 4),
    stride=st.integers(1, 3),
    padding=st.sampled_from(["valid", "same"]),
)
def test_convolution_is_that_of_a_loop_over_places(
    rows: int,
    sides: tuple[int, int],
    channels: tuple[int, int],
    size: int,
    stride: int,
    padding: Padding,
) -> None:
    chance = np.random.default_rng(0)
    x = chance.standard_normal((rows, *sides, channels[0]))
    kernel = chance.standard_normal((size, size, *channels))
    if padding == "valid" and size > min(sides):
        with pytest.raises(ModelError, match="does not fit"):
            f.convolution(x, kernel, stride=stride, padding=padding)
        return
    found = f.convolution(x, kernel, stride=stride, padding=padding).value
    expected = slow_convolution(x, kernel, stride, padding)
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-12)


def test_max_pool_takes_the_largest_and_hands_the_gradient_to_it_alone() -> None:
    x = Variable(np.array([[1.0, 2, 5], [4, 4, 9], [7, 7, 7]]).reshape(1, 3, 3, 1))
    with GradientTape() as tape:
        y = f.max_pool(x, 2)
    assert y.value.reshape(-1).tolist() == [4.0], (
        "rows and columns that fill no window are left out"
    )
    assert tape.gradient(y, x).reshape(3, 3).tolist() == [[0, 0, 0], [1, 0, 0], [0, 0, 0]]


def test_layer_norm_gives_mean_0_and_variance_1() -> None:
    x = np.random.default_rng(0).standard_normal((4, 6)) * 5 + 3
    y = f.layer_norm(x, np.ones(6), np.zeros(6), epsilon=1e-12).value
    np.testing.assert_allclose(y.mean(1), 0, atol=1e-12)
    np.testing.assert_allclose(y.var(1), 1, rtol=1e-9)


NETWORKS: dict[str, tuple[list[Layer], tuple[int, ...]]] = {
    "valid": ([Convolution(3, 3), Flatten(), Dense(2)], (5, 4, 2)),
    "same": (
        [Convolution(2, 3, padding="same", activation="tanh"), Flatten(), Dense(2)],
        (4, 5, 2),
    ),
    "strided": (
        [Convolution(3, 3, stride=2, padding="same", bias=False), Flatten(), Dense(2)],
        (5, 4, 1),
    ),
    "skipping": ([Convolution(2, 1, stride=3), Flatten(), Dense(2)], (5, 4, 2)),
    "two": (
        [
            Convolution(3, 3, padding="same", activation="sigmoid"),
            MaxPool(2),
            Convolution(2, 2, activation="tanh"),
            Flatten(),
            Dense(2),
        ],
        (6, 7, 2),
    ),
    "flat_rows": (
        [Images((4, 4, 1)), Convolution(2, 3, activation="relu"), MaxPool(2), Flatten(), Dense(3)],
        (16,),
    ),
    "layer_norm": ([Dense(5, "tanh"), LayerNorm(), Dense(3)], (4,)),
    "layer_norm_first": ([LayerNorm(), Dense(3)], (4,)),
    "layer_norm_of_images": (
        [Convolution(3, 2), LayerNorm(), Flatten(), Dense(2)],
        (3, 4, 2),
    ),
}


def run(
    model: Network, x: Floats, target: Floats, flat: Floats, *, per_sample: bool = True
) -> dict[str, Floats]:
    gradients, by_input = np.full_like(flat, np.nan), np.full_like(x, np.nan)
    bound = model.program(len(x), flat.dtype, per_sample=per_sample).bind(
        x, target, weights=flat, gradients=gradients, x_gradient=by_input
    )
    bound.forward()
    bound.backward()
    norms = np.zeros(len(x)) if bound.squared_norms_N is None else bound.squared_norms_N
    return {
        "losses": bound.losses_N,
        "norms": norms,
        "gradients": gradients,
        "x_gradient": by_input,
    }


def case(name: str, rows: int) -> tuple[Network, Floats, Floats, Floats]:
    layers, shape = NETWORKS[name]
    model = Network(layers, "quadratic", shape)
    chance = np.random.default_rng(3)
    flat = chance.uniform(-1, 1, model.num_parameters)
    x = chance.standard_normal((rows, *shape))
    return model, x, chance.standard_normal((rows, model.num_outputs)), flat


@pytest.mark.parametrize("name", NETWORKS)
def test_network_gradients_are_those_of_central_differences(name: str) -> None:
    model, x, target, flat = case(name, 3)

    def by_weights(at: Floats) -> tuple[float, Floats]:
        found = run(model, x, target, at)
        return float(found["losses"].sum()), found["gradients"]

    def by_input(at: Floats) -> tuple[float, Floats]:
        found = run(model, at, target, flat)
        return float(found["losses"].sum()), found["x_gradient"]

    assert_gradient(by_weights, flat)
    assert_gradient(by_input, x)


@pytest.mark.parametrize("name", NETWORKS)
def test_per_sample_norms_are_those_of_a_loop_over_samples(name: str) -> None:
    model, x, target, flat = case(name, 7)
    together = run(model, x, target, flat)
    own = [run(model, x[n : n + 1], target[n : n + 1], flat)["gradients"] for n in range(7)]
    np.testing.assert_allclose(together["norms"], [g @ g for g in own], rtol=1e-10)
    np.testing.assert_allclose(together["gradients"], sum(own), rtol=1e-9, atol=1e-12)


def test_pieces_of_many_samples_add_up() -> None:
    layers: list[Layer] = [
        Convolution(8, 3, padding="same", activation="relu"),
        Convolution(40, 3, stride=2, activation="relu"),
        Flatten(),
        Dense(3),
    ]
    model = Network(layers, "quadratic", (12, 12, 16))
    chance = np.random.default_rng(0)
    flat = model.initialise("he", 0, np.float64)
    x, target = chance.standard_normal((33, 12, 12, 16)), chance.standard_normal((33, 3))
    together = run(model, x, target, flat)
    own = [run(model, x[n : n + 1], target[n : n + 1], flat) for n in range(33)]
    gradients = [o["gradients"] for o in own]
    np.testing.assert_allclose(together["norms"], [g @ g for g in gradients], rtol=1e-9)
    np.testing.assert_allclose(together["gradients"], sum(gradients), rtol=1e-9, atol=1e-9)
    by_input = np.concatenate([o["x_gradient"] for o in own])
    np.testing.assert_allclose(together["x_gradient"], by_input, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", NETWORKS)
def test_statistics_change_no_bits_and_float32_stays(name: str) -> None:
    model, *arrays = case(name, 5)
    x, target, flat = (array.astype(np.float32) for array in arrays)
    with_norms, without = (
        run(model, x, target, flat, per_sample=on)  # type: ignore[arg-type] # float32 on purpose
        for on in (True, False)
    )
    assert with_norms["gradients"].dtype == np.float32
    assert with_norms["gradients"].tobytes() == without["gradients"].tobytes()


def test_bindings_of_other_sizes_share_memory_without_harm() -> None:
    model, x, target, flat = case("two", 9)
    program = model.program(9, np.float64, per_sample=True)
    expected = {n: run(model, x[:n], target[:n], flat) for n in (9, 2, 5)}
    gradients = np.empty_like(flat)
    bounds = {
        n: program.bind(x[:n], target[:n], weights=flat, gradients=gradients) for n in (9, 2, 5)
    }
    forward_only = program.bind(x[:4], target[:4], weights=flat)
    for n in (2, 9, 5, 9, 2):
        forward_only.forward()
        bounds[n].forward()
        bounds[n].backward()
        assert gradients.tobytes() == expected[n]["gradients"].tobytes()
        norms_N = bounds[n].squared_norms_N
        assert norms_N is not None
        assert norms_N.tobytes() == expected[n]["norms"].tobytes()


def test_nothing_is_allocated_in_the_loop() -> None:
    model = Network(
        [
            Images((16, 16, 1)),
            Convolution(8, 3, padding="same", activation="relu"),
            MaxPool(2),
            LayerNorm(),
            Dropout(0.5),
            Flatten(),
            Dense(10),
        ],
        "softmax_cross_entropy",
        (256,),
    )
    flat = model.initialise("he", 0, np.float32)
    x = np.random.default_rng(0).standard_normal((64, 256)).astype(np.float32)
    bound = model.program(64, np.float32, per_sample=True).bind(
        x,
        np.zeros(64, np.int64),
        weights=flat,
        gradients=np.empty_like(flat),
        keys=np.arange(64, dtype=np.uint64),
    )
    bound.forward()
    bound.backward()
    tracemalloc.start()
    try:
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        bound.forward()
        bound.backward()
        peak = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
    # numpy walks through small axes by buffers of 8192 numbers; the smallest array is twice that.
    assert peak < 3 * 8192 * 8


def test_start_values_of_kernels_and_gains() -> None:
    model = Network([Convolution(4, 3), LayerNorm(), Flatten(), Dense(2)], "quadratic", (5, 5, 2))
    start = model.views(model.initialise("he", 0, np.float64))
    limit = np.sqrt(6 / (3 * 3 * 2))
    assert 0.9 * limit < abs(start["layers.0.weight"]).max() <= limit
    assert start["layers.0.bias"].tolist() == [0.0] * 4
    assert start["layers.1.gain"].tolist() == [1.0] * 4
    assert start["layers.1.bias"].tolist() == [0.0] * 4


REFUSED: list[tuple[dict[str, object], str]] = [
    ({"type": "batch_norm"}, "mixes the samples"),
    ({"type": "batch_normalization"}, "layer_norm"),
    ({"type": "convolution", "channels": 2}, "has no kernel"),
    ({"type": "convolution", "channels": 2, "kernel": 0}, "kernel is 0"),
    ({"type": "convolution", "channels": 2, "kernel": 9}, "does not fit into images of 4 x 4"),
    ({"type": "convolution", "channels": 2, "kernel": 2, "padding": "full"}, "padding is 'full'"),
    ({"type": "convolution", "channels": 2, "kernel": 2, "activation": "softmax"}, "softmax"),
    ({"type": "max_pool", "size": 5}, "no smaller than a window"),
    ({"type": "max_pool", "sise": 5}, "did you mean 'size'"),
    ({"type": "reshape", "shape": [4, 5]}, "both must hold 16 numbers"),
    ({"type": "reshape", "shape": []}, r"shape is \(\); must be a list of whole numbers"),
    ({"type": "dropout", "rate": 1.0}, "rate is 1.0; must be at least 0 and below 1"),
]


@pytest.mark.parametrize(("layer", "says"), REFUSED)
def test_layers_that_cannot_be_are_refused(layer: dict[str, object], says: str) -> None:
    layers = [{"type": "reshape", "shape": [4, 4, 1]}, layer]
    with pytest.raises(ModelError, match=says):
        Network.from_dict({"layers": layers, "loss": "quadratic", "input_shape": [16]})


def test_flat_rows_want_a_reshape_before_a_convolution() -> None:
    with pytest.raises(ModelError, match="put a reshape layer before it"):
        Network([Convolution(2, 3), Flatten()], "quadratic", (16,))


@pytest.mark.parametrize("name", NETWORKS)
def test_layers_survive_json(name: str) -> None:
    model, *_ = case(name, 1)
    assert Network.from_dict(model.to_dict()) == model


DIGITS = Path(__file__).parents[2] / "distsgd" / "examples" / "digits.parquet"


@pytest.mark.skipif(not DIGITS.is_file(), reason="the packaged digits are not here")
def test_convolutional_network_learns_digits_from_a_configuration(tmp_path: Path) -> None:
    layers: list[dict[str, object]] = [
        {"type": "reshape", "shape": [8, 8, 1]},
        {
            "type": "convolution",
            "channels": 8,
            "kernel": 3,
            "padding": "same",
            "activation": "relu",
        },
        {"type": "max_pool", "size": 2},
        {"type": "layer_norm"},
        {"type": "flatten"},
        {"type": "dropout", "rate": 0.1},
        {"type": "dense", "units": 10},
    ]
    config = TrainConfig.from_dict(
        {
            "data": {"path": os.fspath(DIGITS), "label": "digit", "test_fraction": 0.2},
            "model": {"layers": layers, "loss": "softmax_cross_entropy", "init": "he"},
            "optimizer": {"type": "momentum", "learning_rate": 0.05},
            "batch": {"size": 32},
            "train": {"epochs": 8},
            "parallel": {"workers": 0},
        }
    )
    result = Trainer(config, run_dir=tmp_path / "run", cache_dir=tmp_path / "cache").fit()
    assert result.metrics["test_accuracy"] >= 0.96
