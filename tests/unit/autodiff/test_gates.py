"""Every gate against central differences in float64, by each of its inputs."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

import distsgd.autodiff
from distsgd import autodiff as f
from distsgd.autodiff.check import assert_gradient
from distsgd.autodiff.tape import GradientTape, Variable
from distsgd.errors import ModelError
from distsgd.lessons import losses as lessons

Floats = NDArray[np.float64]
Function = Callable[..., Variable]
CLASSES_N = np.array([0, 3, 1])
PROBABILITIES_NO = np.random.default_rng(5).dirichlet(np.ones(4), 3)
KEYS_N = np.array([1, 2, 1 << 63], np.uint64)


def numbers(*shape: int, seed: int = 0) -> Floats:
    """Between 0.3 and 1.7: away from kinks at 0 and from the edges of domains."""
    drawn: Floats = np.random.default_rng(seed).uniform(0.3, 1.7, shape)
    return drawn


def unit(*shape: int, seed: int = 0) -> Floats:
    """Between 0.1 and 0.9: probabilities away from their edges."""
    drawn: Floats = np.random.default_rng(seed).uniform(0.1, 0.9, shape)
    return drawn


def signed(*shape: int, seed: int = 0) -> Floats:
    signs: Floats = np.random.default_rng(seed + 1).choice([-1.0, 1.0], shape)
    return numbers(*shape, seed=seed) * signs


GATES: dict[str, tuple[Function, Sequence[Floats]]] = {
    "add": (lambda x, y: x + y, (signed(3, 4), signed(3, 4, seed=2))),
    "add_broadcast": (lambda x, y: x + y, (signed(3, 4), signed(4, seed=2))),
    "add_broadcast_inner": (lambda x, y: x + y, (signed(3, 1, 4), signed(2, 1, seed=2))),
    "add_number": (lambda x, y: x + y, (signed(3), signed(seed=2))),
    "add_lengths_of_one": (lambda x, y: x + y, (signed(1, 3), signed(3, seed=2))),
    "subtract": (lambda x, y: x - y, (signed(3, 4), signed(3, 1, seed=2))),
    "multiply": (lambda x, y: x * y, (signed(3, 4), signed(4, seed=2))),
    "divide": (lambda x, y: x / y, (signed(3, 4), signed(3, 1, seed=2))),
    "maximum": (f.maximum, (signed(3, 4), signed(4, seed=2))),
    "negative": (lambda x: -x, (signed(3, 4),)),
    "exp": (f.exp, (signed(3, 4),)),
    "log": (f.log, (numbers(3, 4),)),
    "reciprocal": (f.reciprocal, (signed(3, 4),)),
    "sqrt": (f.sqrt, (numbers(3, 4),)),
    "square": (lambda x: x**2, (signed(3, 4),)),
    "cube": (lambda x: x**3, (signed(3, 4),)),
    "power_negative": (lambda x: x**-1.5, (numbers(3, 4),)),
    "absolute": (abs, (signed(3, 4),)),
    "sum": (lambda x: x.sum(), (signed(3, 4),)),
    "sum_axis": (lambda x: x.sum(axis=1), (signed(3, 4),)),
    "sum_axes": (lambda x: x.sum(axis=(0, -1)), (signed(3, 4, 2),)),
    "sum_of_a_number": (lambda x: x.sum(), (signed(),)),
    "mean": (lambda x: x.mean(axis=0), (signed(3, 4),)),
    "reshape": (lambda x: x.reshape(2, -1), (signed(3, 4),)),
    "matmul": (lambda x, y: x @ y, (signed(3, 4), signed(4, 2, seed=2))),
    "matmul_one_row": (lambda x, y: x @ y, (signed(1, 4), signed(4, 2, seed=2))),
    "matmul_one_between": (lambda x, y: x @ y, (signed(3, 1), signed(1, 2, seed=2))),
    "matmul_one_column": (lambda x, y: x @ y, (signed(3, 4), signed(4, 1, seed=2))),
    "matmul_matrix_vector": (lambda x, y: x @ y, (signed(3, 4), signed(4, seed=2))),
    "matmul_one_row_vector": (lambda x, y: x @ y, (signed(1, 4), signed(4, seed=2))),
    "matmul_one_column_vector": (lambda x, y: x @ y, (signed(3, 1), signed(1, seed=2))),
    "matmul_vector_matrix": (lambda x, y: x @ y, (signed(4), signed(4, 3, seed=2))),
    "matmul_vector_one_row": (lambda x, y: x @ y, (signed(1), signed(1, 3, seed=2))),
    "matmul_vector_one_column": (lambda x, y: x @ y, (signed(4), signed(4, 1, seed=2))),
    "matmul_vectors": (lambda x, y: x @ y, (signed(4), signed(4, seed=2))),
    "matmul_vectors_of_one": (lambda x, y: x @ y, (signed(1), signed(1, seed=2))),
    "outer": (f.outer, (signed(3), signed(2, seed=2))),
    "transpose": (lambda x: x.T, (signed(3, 4),)),
    "transpose_vector": (lambda x: x.T, (signed(3),)),
    "transpose_axes": (lambda x: f.transpose(x, (1, -1, 0)), (signed(3, 4, 2),)),
    "transpose_product": (lambda x, y: x.T @ y.T, (signed(3, 4), signed(2, 3, seed=2))),
    "subscript": (lambda x: x[1], (signed(3, 4),)),
    "subscript_number": (lambda x: x[1, -2], (signed(3, 4),)),
    "subscript_slices": (lambda x: x[::-2, 1:3], (signed(3, 4),)),
    "subscript_column": (lambda x: x[:, 0], (signed(3, 4),)),
    "subscript_ellipsis": (lambda x: x[..., None, -1], (signed(3, 4, 2),)),
    "subscript_repeated": (lambda x: x[[0, 2, 0, 0]], (signed(3, 4),)),
    "subscript_pairs": (lambda x: x[[0, 2, 0], [1, -1, 1]], (signed(3, 4),)),
    "subscript_apart": (lambda x: x[1, :, [0, 0, 1]], (signed(3, 4, 2),)),
    "subscript_mask": (lambda x: x[[True, False, True]], (signed(3, 4),)),
    "subscript_whole_mask": (lambda x: x[np.eye(3, 4) == 1], (signed(3, 4),)),
    "unpacked": (lambda x: f.stack([b * a for a, b in x]), (signed(3, 2),)),
    "stack": (lambda x, y: f.stack([x, y, x]), (signed(3, 4), signed(3, 4, seed=2))),
    "max": (lambda x: x.max(), (signed(3, 4),)),
    "max_axis": (lambda x: f.max(x, axis=1), (signed(3, 4),)),
    "max_kept": (lambda x: f.max(x, axis=(0, 2), keepdims=True), (signed(3, 4, 2),)),
    "max_of_a_number": (f.max, (signed(),)),
    "min": (lambda x: x.min(), (signed(3, 4),)),
    "min_axis": (lambda x: f.min(x, axis=-1, keepdims=True), (signed(3, 4),)),
    "minimum": (f.minimum, (signed(3, 4), signed(4, seed=2))),
    "sum_kept": (lambda x: f.sum(x, axis=1, keepdims=True), (signed(3, 4),)),
    "mean_kept": (lambda x: f.mean(x, axis=0, keepdims=True), (signed(3, 4),)),
    "reshape_to": (lambda x: f.reshape(x, (4, 3)), (signed(3, 4),)),
    "sin": (f.sin, (signed(3, 4),)),
    "cos": (f.cos, (signed(3, 4),)),
    "power": (lambda x: f.power(x, 2.5), (numbers(3, 4),)),
    "by_name": (
        lambda x, y: f.subtract(f.multiply(x, f.add(x, y)), f.divide(f.negative(x), y)),
        (signed(3, 4), signed(3, 4, seed=2)),
    ),
    "affine": (f.affine, (signed(3, 4), signed(4, 2, seed=2), signed(2, seed=4))),
    "affine_one_row": (f.affine, (signed(1, 4), signed(4, 2, seed=2), signed(2, seed=4))),
    "affine_one_by_one": (f.affine, (signed(1, 1), signed(1, 1, seed=2), signed(1, seed=4))),
    "relu": (f.relu, (signed(3, 4),)),
    "sigmoid": (f.sigmoid, (signed(3, 4),)),
    "tanh": (f.tanh, (signed(3, 4),)),
    "softmax": (f.softmax, (signed(3, 4),)),
    "softmax_of_one_row": (f.softmax, (signed(4),)),
    "softmax_cross_entropy_of_a_row": (lambda z: f.softmax_cross_entropy(z, 2), (signed(4),)),
    "softmax_cross_entropy_of_a_hot_row": (
        lambda z: f.softmax_cross_entropy(z, [0, 0, 1, 0]),
        (signed(4),),
    ),
    "softmax_cross_entropy_of_hot_rows": (
        lambda z: f.softmax_cross_entropy(z, np.eye(4)[CLASSES_N]),
        (signed(3, 4),),
    ),
    "softmax_cross_entropy_of_probabilities": (
        lambda z: f.softmax_cross_entropy(z, PROBABILITIES_NO),
        (signed(3, 4),),
    ),
    "hinge_of_a_row": (lambda a: f.hinge(a, 2), (signed(4),)),
    "hinge_of_hot_rows": (lambda a: f.hinge(a, np.eye(4)[CLASSES_N]), (signed(3, 4),)),
    "softmax_cross_entropy": (lambda z: f.softmax_cross_entropy(z, CLASSES_N), (signed(3, 4),)),
    "softmax_cross_entropy_one_row": (
        lambda z: f.softmax_cross_entropy(z, CLASSES_N[:1]),
        (signed(1, 4),),
    ),
    "sigmoid_cross_entropy": (
        lambda z: f.sigmoid_cross_entropy(z, numbers(3, 4, seed=3) / 2),
        (signed(3, 4),),
    ),
    "squared_error": (lambda z: f.squared_error(z, signed(3, 4, seed=3)), (signed(3, 4),)),
    "squared_error_wide": (lambda z: f.squared_error(z, signed(2, 80, seed=3)), (signed(2, 80),)),
    "cross_entropy": (lambda a: f.cross_entropy(a, unit(3, 4, seed=3)), (unit(3, 4),)),
    "exponential": (lambda a: lessons.exponential(a, unit(3, 4), tau=0.7), (signed(3, 4),)),
    "hellinger": (lambda a: lessons.hellinger(a, unit(3, 4, seed=3)), (unit(3, 4),)),
    "kullback_leibler": (lambda a: lessons.kullback_leibler(a, unit(3, 4, seed=3)), (unit(3, 4),)),
    "generalised_kullback_leibler": (
        lambda a: lessons.kullback_leibler(a, unit(3, 4, seed=3), generalised=True),
        (unit(3, 4),),
    ),
    "itakura_saito": (lambda a: lessons.itakura_saito(a, unit(3, 4, seed=3)), (unit(3, 4),)),
    "mean_absolute": (lambda a: f.mean_absolute(a, signed(3, 4, seed=3)), (signed(3, 4),)),
    "huber": (lambda a: f.huber(a, signed(3, 4, seed=3), delta=0.9), (signed(3, 4),)),
    "hinge": (lambda a: f.hinge(a, CLASSES_N), (signed(3, 4),)),
    "convolution": (
        lambda x, w, b: f.convolution(x, w, b, padding="same"),
        (signed(2, 4, 3, 2), signed(3, 2, 2, 3, seed=2), signed(3, seed=4)),
    ),
    "convolution_strided": (
        lambda x, w: f.convolution(x, w, stride=2),
        (signed(2, 5, 4, 1), signed(2, 2, 1, 3, seed=2)),
    ),
    "max_pool": (lambda x: f.max_pool(x, 2), (signed(2, 5, 4, 2),)),
    "layer_norm": (f.layer_norm, (signed(3, 4), signed(4, seed=2), signed(4, seed=4))),
    "layer_norm_of_images": (
        f.layer_norm,
        (signed(2, 2, 3, 4), signed(4, seed=2), signed(4, seed=4)),
    ),
    "dropout": (lambda x: f.dropout(x, KEYS_N, 0.4), (signed(3, 4, 3),)),
    "quadratic": (lambda z: f.quadratic(z, signed(3, 4, seed=3)), (signed(3, 4),)),
}
BY_EACH_INPUT = [
    (name, index) for name, (_, inputs) in GATES.items() for index in range(len(inputs))
]


@pytest.mark.parametrize(("name", "index"), BY_EACH_INPUT)
def test_gate_gradient_is_that_of_central_differences(name: str, index: int) -> None:
    function, inputs = GATES[name]

    def cost_and_gradient(moved: Floats) -> tuple[float, Floats]:
        variables = [Variable(moved if i == index else x) for i, x in enumerate(inputs)]
        with GradientTape() as tape:
            output = function(*variables)
            # Each number of the output counts differently, so that a gradient in the wrong place
            # shows.
            cost = (output * signed(*output.shape, seed=9)).sum()
        gradient: Floats = tape.gradient(cost, variables[index])
        return float(cost), gradient

    assert_gradient(cost_and_gradient, inputs[index])


@pytest.mark.parametrize("name", GATES)
def test_gate_in_float32_stays_float32(name: str) -> None:
    function, inputs = GATES[name]
    variables = [Variable(x.astype(np.float32)) for x in inputs]
    with GradientTape() as tape:
        output = function(*variables)
    assert output.dtype == np.float32
    assert [g.dtype for g in tape.gradient(output, variables)] == [np.float32] * len(variables)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sigmoid_of_large_numbers_is_exact_and_silent(dtype: type) -> None:
    x = Variable(np.array([-1e4, -40.0, 0.0, 40.0, 1e4], dtype))
    y = f.sigmoid(x).value
    assert y[0] < 1e-37
    np.testing.assert_allclose(y[1], np.exp(-40.0), rtol=1e-6)
    assert y[2:].tolist() == [0.5, 1.0, 1.0]


def test_losses_of_extreme_outputs_are_finite_and_right() -> None:
    z_NO = Variable(np.array([[1e4, -1e4], [-1e4, 1e4]]))
    with GradientTape(persistent=True) as tape:
        by_softmax = f.softmax_cross_entropy(z_NO, [0, 0])
        by_sigmoid = f.sigmoid_cross_entropy(z_NO, [[1.0, 0.0], [1.0, 0.0]])
    assert by_softmax.value.tolist() == [0.0, 2e4]
    assert by_sigmoid.value.tolist() == [0.0, 2e4]
    assert tape.gradient(by_softmax, z_NO).tolist() == [[0.0, 0.0], [-1.0, 1.0]]
    np.testing.assert_allclose(
        tape.gradient(by_sigmoid, z_NO), [[0.0, 0.0], [-1.0, 1.0]], atol=1e-300
    )


def test_not_a_number_passes_through_activations() -> None:
    for activation in (f.relu, f.sigmoid, f.tanh):
        assert np.isnan(activation(np.array([np.nan, -np.nan])).value).all()


def test_largest_numbers_share_the_gradient() -> None:
    x = Variable([[1.0, 3.0, 3.0], [5.0, 2.0, 5.0]])
    with GradientTape(persistent=True) as tape:
        whole, by_row, least = x.max(), x.max(axis=1), x.min()
    assert by_row.value.tolist() == [3.0, 5.0]
    assert tape.gradient(whole, x).tolist() == [[0, 0, 0], [0.5, 0, 0.5]]
    assert tape.gradient(by_row, x).tolist() == [[0, 0.5, 0.5], [0.5, 0, 0.5]]
    assert tape.gradient(least, x).tolist() == [[1, 0, 0], [0, 0, 0]]


SHAPES = [(4,), (1,), (4, 3), (1, 3), (4, 1), (3, 4), (3,), (0, 3), (3, 0), (0,)]


@pytest.mark.parametrize("left", SHAPES)
@pytest.mark.parametrize("right", SHAPES)
def test_product_is_numpys_or_refused_where_numpy_refuses(
    left: tuple[int, ...], right: tuple[int, ...]
) -> None:
    x, y = Variable(signed(*left)), Variable(signed(*right, seed=2))
    try:
        expected = np.matmul(x.value, y.value)
    except ValueError:
        with pytest.raises(ModelError, match="cannot multiply shapes"):
            _ = x @ y
        return
    with GradientTape() as tape:
        product = x @ y
    np.testing.assert_allclose(product.value, expected, rtol=1e-13, atol=1e-15)
    assert product.shape == expected.shape
    assert [g.shape for g in tape.gradient(product, [x, y])] == [left, right]


def test_every_public_function_can_be_imported_from_the_package() -> None:
    public = {
        name
        for name, value in vars(f).items()
        if inspect.isfunction(value) and value.__module__ == f.__name__ and name[0] != "_"
    }
    assert public <= set(distsgd.autodiff.__all__)
    assert all(getattr(distsgd.autodiff, name) is getattr(f, name) for name in public)
    assert sorted(distsgd.autodiff.__all__) == sorted(set(distsgd.autodiff.__all__))
    assert all(hasattr(distsgd.autodiff, name) for name in distsgd.autodiff.__all__)
