"""A program gives what the tape gives, for any number of rows, wherever its arrays lie."""

from __future__ import annotations

import tracemalloc
from collections.abc import Mapping

import numpy as np
import pytest
from numpy.typing import NDArray

from distsgd import autodiff as f
from distsgd.autodiff.bound import Arena
from distsgd.autodiff.graph import ParameterSpec, SampleLosses, Signature, total_size, views
from distsgd.autodiff.program import Program
from distsgd.autodiff.tape import GradientTape, Variable
from distsgd.errors import ModelError

Floats = NDArray[np.float64]
Named = Mapping[str, Variable]
FLOAT64 = np.dtype(np.float64)
SPECS = (ParameterSpec("w", (3, 2)), ParameterSpec("b", (2,)), ParameterSpec("v", (2, 2)))


def branching(p: Named, x: Variable, target: Variable) -> tuple[Variable, Variable]:
    """Uses parameters twice, branches, works in place where it may, and reshapes in between."""
    h = f.relu(-f.affine(x.reshape(-1, 3), p["w"], p["b"]))
    outputs = f.tanh(h @ p["v"]) + h @ p["v"] * 0.5 + p["b"]
    return f.quadratic(f.sigmoid(outputs) + outputs, target), outputs


def two_layers(p: Named, x: Variable, target: Variable) -> tuple[Variable, Variable]:
    outputs = f.tanh(f.affine(x, p["w"], p["b"])) @ p["v"]
    return f.squared_error(outputs, target), outputs


def program(
    function: SampleLosses,
    *,
    specs: tuple[ParameterSpec, ...] = SPECS,
    max_rows: int = 5,
    per_sample: bool = False,
    keep_all: bool = False,
    input_shape: tuple[int, ...] = (3,),
) -> Program:
    signature = Signature(
        parameters=specs,
        input_shape=input_shape,
        target_shape=(2,),
        target_dtype=FLOAT64,
        dtype=FLOAT64,
    )
    return Program(function, signature, max_rows=max_rows, per_sample=per_sample, keep_all=keep_all)


def arrays(rows: int, seed: int = 0) -> tuple[Floats, Floats, Floats]:
    chance = np.random.default_rng(seed)
    flat = chance.standard_normal(total_size(SPECS))
    return chance.standard_normal((rows, 3)), chance.standard_normal((rows, 2)), flat


@pytest.mark.parametrize("keep_all", [False, True])
@pytest.mark.parametrize("rows", [1, 2, 5])
def test_program_gives_the_bits_of_the_tape(rows: int, keep_all: bool) -> None:  # noqa: FBT001 -- parametrised.
    x, target, flat = arrays(rows)
    gradients, x_gradient = np.full_like(flat, np.nan), np.full_like(x, np.nan)
    bound = program(branching, keep_all=keep_all).bind(
        x, target, weights=flat, gradients=gradients, x_gradient=x_gradient
    )
    bound.forward()
    bound.backward()

    named = {name: Variable(array) for name, array in views(SPECS, flat).items()}
    input_ = Variable(x)
    with GradientTape() as tape:
        losses, outputs = branching(named, input_, Variable(target))
    by_parameter, by_input = tape.gradient(losses, (named, input_))
    assert bound.losses_N.tolist() == losses.value.tolist()
    assert bound.outputs_NO.tolist() == outputs.value.tolist()
    for name, gradient in views(SPECS, gradients).items():
        np.testing.assert_array_equal(gradient, by_parameter[name])
    np.testing.assert_array_equal(x_gradient, by_input)


def test_program_is_reused_with_other_numbers_of_rows() -> None:
    shared = program(branching)
    bindings = []
    for rows in (5, 1, 3, 5, 2):
        x, target, flat = arrays(rows, seed=rows)
        gradients = np.empty_like(flat)
        bindings.append(
            (shared.bind(x, target, weights=flat, gradients=gradients), gradients, rows)
        )
    for bound, gradients, rows in [*bindings, *reversed(bindings)]:
        bound.forward()
        bound.backward()
        x, target, flat = arrays(rows, seed=rows)
        alone = np.empty_like(flat)
        fresh = program(branching, max_rows=rows).bind(x, target, weights=flat, gradients=alone)
        fresh.forward()
        fresh.backward()
        assert fresh.losses_N.tolist() == bound.losses_N.tolist()
        assert alone.tolist() == gradients.tolist()


def test_program_follows_its_arrays_and_never_writes_them() -> None:
    x, target, flat = arrays(4)
    gradients = np.empty_like(flat)
    weights = flat.view()
    weights.flags.writeable = False
    bound = program(branching).bind(x, target, weights=weights, gradients=gradients)
    for seed in (1, 2):
        for array, new in zip((x, target, flat), arrays(4, seed), strict=True):
            array[...] = new
        bound.forward()
        bound.backward()
        again = np.empty_like(flat)
        x_new, target_new, flat_new = arrays(4, seed)
        fresh = program(branching).bind(x_new, target_new, weights=flat_new, gradients=again)
        fresh.forward()
        fresh.backward()
        assert gradients.tolist() == again.tolist()
        for array, new in zip((x, target, flat), arrays(4, seed), strict=True):
            assert array.tolist() == new.tolist()


def test_program_allocates_no_arrays_in_the_loop() -> None:
    x, target, flat = arrays(100_000)
    bound = program(two_layers, max_rows=100_000, per_sample=True).bind(
        x, target, weights=flat, gradients=np.empty_like(flat)
    )
    bound.forward()
    bound.backward()
    tracemalloc.start()
    try:
        for _ in range(2):
            bound.forward()
            bound.backward()
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # numpy's own buffers hold at most 8192 numbers an operand; a number for each row takes 800,000.
    assert peak_bytes < 400_000


def test_program_zeroes_the_gradient_of_an_unused_parameter() -> None:
    x, target, flat = arrays(2)
    gradients = np.full_like(flat, np.nan)

    def without_v(p: Named, x: Variable, target: Variable) -> tuple[Variable, Variable]:
        outputs = f.affine(x, p["w"], p["b"])
        return f.quadratic(outputs, target), outputs

    bound = program(without_v, per_sample=True).bind(x, target, weights=flat, gradients=gradients)
    bound.forward()
    bound.backward()
    assert views(SPECS, gradients)["v"].tolist() == [[0.0, 0.0], [0.0, 0.0]]
    assert np.isfinite(gradients).all()


def test_program_without_gradients_only_goes_forward() -> None:
    x, target, flat = arrays(2)
    bound = program(two_layers, per_sample=True).bind(x, target, weights=flat)
    bound.forward()
    assert bound.squared_norms_N is None
    with pytest.raises(ModelError, match="bound without gradients"):
        bound.backward()


def test_program_shows_delta_layer_by_layer_and_sample_by_sample() -> None:
    x, target, flat = arrays(3)
    bound = program(two_layers, keep_all=True).bind(
        x, target, weights=flat, gradients=np.empty_like(flat)
    )
    bound.forward()
    bound.backward()
    hidden, bend, last, loss = bound.steps
    assert [step.name for step in bound.steps] == ["affine", "tanh", "matmul", "squared_error"]
    assert hidden.grad_output is not None
    assert last.grad_output is not None
    assert loss.grad_output is None
    v = views(SPECS, flat)["v"]
    np.testing.assert_allclose(last.grad_output, 2 * (last.output - target))
    np.testing.assert_allclose(
        hidden.grad_output, (last.grad_output @ v.T) * (1 - np.tanh(hidden.output) ** 2)
    )
    np.testing.assert_allclose(bend.output, np.tanh(hidden.output))


def shared_parameter(p: Named, x: Variable, target: Variable) -> tuple[Variable, Variable]:
    outputs = (f.affine(x, p["w"], p["b"]) @ p["v"]) @ p["v"]
    return f.quadratic(outputs, target), outputs


def mixing(p: Named, x: Variable, target: Variable) -> tuple[Variable, Variable]:
    outputs = f.affine(x, p["w"], p["b"])
    return f.quadratic(outputs - outputs.mean(axis=0), target), outputs


def no_rule(p: Named, x: Variable, target: Variable) -> tuple[Variable, Variable]:
    outputs = x @ p["w"] + p["b"]
    return f.quadratic(outputs, target), outputs


def apart(p: Named, x: Variable, target: Variable) -> tuple[Variable, Variable]:
    outputs = f.affine(x, p["w"] * 2.0, p["b"])
    return f.quadratic(outputs, target), outputs


def transposed(p: Named, x: Variable, target: Variable) -> tuple[Variable, Variable]:
    outputs = f.affine(x, p["w"], p["b"]) @ p["v"].T
    return f.quadratic(outputs, target), outputs


def sample_of_another(p: Named, x: Variable, target: Variable) -> tuple[Variable, Variable]:
    outputs = f.affine(x, p["w"], p["b"])
    return f.quadratic(outputs - outputs[0], target), outputs


def turned(p: Named, x: Variable, target: Variable) -> tuple[Variable, Variable]:
    outputs = (p["w"].T @ x.T).T + p["b"]
    return f.quadratic(outputs, target), outputs


def part_of_a_parameter(p: Named, x: Variable, target: Variable) -> tuple[Variable, Variable]:
    outputs = f.affine(x, p["w"], p["b"]) @ p["v"][:, ::-1]
    return f.quadratic(outputs, target), outputs


def stacked(p: Named, x: Variable, target: Variable) -> tuple[Variable, Variable]:
    outputs = f.affine(x, p["w"], p["b"])
    columns = f.stack([outputs[:, 0], outputs[:, 1]]).T
    return f.quadratic(columns, target), outputs


def product_over_samples(p: Named, x: Variable, target: Variable) -> tuple[Variable, Variable]:
    outputs = f.affine(x - x[:, 0] @ x, p["w"], p["b"])
    return f.quadratic(outputs, target), outputs


def largest_of_all(p: Named, x: Variable, target: Variable) -> tuple[Variable, Variable]:
    outputs = f.affine(x, p["w"], p["b"])
    return f.quadratic(outputs - outputs.max(axis=0), target), outputs


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (transposed, "'v' enters gate 'transpose' apart from the samples"),
        (sample_of_another, "'subscript' mixes samples"),
        (turned, "'transpose' mixes samples"),
        (part_of_a_parameter, "'v' enters gate 'subscript' apart from the samples"),
        (stacked, "'stack' mixes samples"),
        (product_over_samples, "'matmul' mixes samples"),
        (largest_of_all, "'max' mixes samples"),
        (shared_parameter, "'v' is used by several gates .matmul, matmul."),
        (mixing, "'mean' mixes samples"),
        (no_rule, "'add' has no exact rule"),
        (apart, "'w' enters gate 'multiply' apart from the samples"),
    ],
)
def test_program_refuses_norms_it_cannot_give_exactly(function: SampleLosses, says: str) -> None:
    program(function)
    with pytest.raises(ModelError, match=says):
        program(function, per_sample=True)


def test_program_refuses_a_loss_over_all_samples() -> None:
    def summed(p: Named, x: Variable, target: Variable) -> tuple[Variable, Variable]:
        losses, outputs = two_layers(p, x, target)
        return losses.mean(), outputs

    with pytest.raises(ModelError, match="one loss for each sample"):
        program(summed)


def test_program_refuses_arrays_that_do_not_fit() -> None:
    x, target, flat = arrays(3)
    shared = program(two_layers, max_rows=3)
    for given, says in (
        ((x.astype(np.float32), target, flat), "x is float32"),
        ((np.asfortranarray(x), target, flat), "not C-contiguous"),
        ((x, target[:2], flat), r"target is float64 \(2, 2\)"),
        ((x, target, flat[:-1]), "weights is float64"),
        ((x[:0], target[:0], flat), "0 rows; must be 1 to 3"),
    ):
        with pytest.raises(ModelError, match=says):
            shared.bind(given[0], given[1], weights=given[2])
    with pytest.raises(ModelError, match="4 rows"):
        shared.bind(np.zeros((4, 3)), np.zeros((4, 2)), weights=flat)
    with pytest.raises(ModelError, match="x_squared_norms is"):
        shared.bind(x, target, weights=flat, x_squared_norms=np.zeros(2))
    with pytest.raises(ModelError, match="max_rows is 0"):
        program(two_layers, max_rows=0)


def test_arena_gives_the_same_memory_again_and_grows_where_needed() -> None:
    arena = Arena()
    first = arena.allocate((4, 2), np.float32)
    assert first.ctypes.data % 64 == 0
    arena.rewind()
    again = arena.allocate((1, 2), np.float64)
    assert again.ctypes.data == first.ctypes.data
    arena.rewind()
    assert arena.allocate((100,), np.float64).shape == (100,)
    assert arena.allocate((), np.float64).shape == ()


def test_program_without_parameters_has_samples_of_norm_zero() -> None:
    def without_parameters(p: Named, x: Variable, target: Variable) -> tuple[Variable, Variable]:
        del p
        return f.quadratic(x.sum(axis=1).reshape(-1, 1) * target, target), x

    x, target, flat = arrays(3)
    gradients = np.full_like(flat, np.nan)
    bound = program(without_parameters, per_sample=True).bind(
        x, target, weights=flat, gradients=gradients
    )
    bound.forward()
    bound.backward()
    assert bound.squared_norms_N is not None
    assert bound.squared_norms_N.tolist() == [0.0] * 3
    assert gradients.tolist() == [0.0] * len(flat)
