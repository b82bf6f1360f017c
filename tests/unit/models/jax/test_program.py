from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

pytest.importorskip("jax", reason="models of JAX need JAX")

import jax

from distsgd.base.arrays import Array
from distsgd.errors import ModelError
from distsgd.models import Bound, Factory, Model, Recipe, RowSpec, jax_model, model_of
from distsgd.models.jax.device import as_runs_compute, device, wrapped
from distsgd.models.jax.sizes import padded_rows
from tests.unit.models.jax.bits import digest
from tests.unit.models.jax.factories import (
    INPUTS,
    OUTPUTS,
    cross_entropy,
    dropout,
    mlp,
    numbers,
    recipe,
)

ROWS = RowSpec((INPUTS,), "class", OUTPUTS)


def made(factory: Callable[..., Any]) -> Model:
    return model_of(Recipe(jax_model(factory), {}, ROWS))


def block(rows: int, name: int = 0, dtype: str = "float32") -> tuple[Array, Array]:
    x = numbers(rows, INPUTS, name=name, dtype=dtype)
    return x, np.arange(rows) % OUTPUTS


def run(model: Model, x: Array, target: Array, weights: Array, **bound: Any) -> tuple[Bound, Array]:
    gradients = np.full_like(weights, np.nan)
    program = model.program(300, weights.dtype, per_sample=True)
    found = program.bind(x, target, weights=weights, gradients=gradients, **bound)
    found.forward()
    found.backward()
    return found, gradients


@pytest.mark.parametrize("rows", [16, 50])
def test_losses_of_a_hundred_steps_are_those_of_a_plain_loop(rows: int) -> None:
    model = model_of(recipe("mlp"))
    weights = model.initialise("", 1, np.float32)
    gradients = np.empty_like(weights)
    init, apply, losses, _ = mlp(INPUTS, OUTPUTS)
    tree = jax.tree_util.tree_structure(jax.eval_shape(init, jax.random.key(0)))
    parameters = jax.tree_util.tree_unflatten(
        tree, list(map(np.copy, model.views(weights).values()))
    )

    def plain(parameters: Any, x: Any, target: Any) -> Any:
        def mean(parameters: Any) -> Any:
            return losses(apply(parameters, x), target).mean()

        loss, gradient = jax.value_and_grad(mean)(parameters)
        return loss, jax.tree_util.tree_map(lambda w, g: w - 0.5 * g, parameters, gradient)

    step, (x, target) = jax.jit(plain), block(rows)
    bound = model.program(rows, np.float32, per_sample=False).bind(
        x, target, weights=weights, gradients=gradients
    )
    for number in range(100):
        x[...] = numbers(rows, INPUTS, name=number)  # As a worker's arrays are filled anew.
        target[...] = (np.arange(rows) * (number + 1)) % OUTPUTS
        bound.forward()
        bound.backward()
        weights -= np.float32(0.5 / rows) * gradients
        expected, parameters = step(parameters, x, target.astype(np.int32))
        assert float(bound.losses_N.mean()) == pytest.approx(float(expected), abs=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_block_has_the_same_bits_in_a_process_whose_user_has_set_up_jax(dtype: str) -> None:
    command = [sys.executable, "-m", "tests.unit.models.jax.bits", "dropout", dtype, "used before"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
        here = digest("dropout", dtype)
        assert other.communicate(timeout=100)[0] == here


def test_a_block_has_the_same_bits_where_jax_itself_could_not_start() -> None:
    command = [sys.executable, "-m", "tests.unit.models.jax.bits", "dropout", "float32"]
    environment = os.environ | {"JAX_PLATFORMS": "none_such", "PJRT_NPROC": "2"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as other:
        here = digest("dropout", "float32")
        assert other.communicate(timeout=100)[0] == here


def test_a_block_has_the_same_bits_again() -> None:
    assert digest("mlp", "float32") == digest("mlp", "float32")


def test_padding_changes_nothing_whatever_stands_in_it() -> None:
    model = made(mlp.function)
    weights = model.initialise("", 1, np.float32)
    x, target = block(10)  # As many as a program has.
    assert [padded_rows(rows) for rows in (9, 10)] == [10, 10]
    program = model.program(16, np.float32, per_sample=True)
    found = []
    for filling in (0.0, 1e3, -7.5):
        x[9], gradients = filling, np.empty_like(weights)
        bound = program.bind(x, target, weights=weights, gradients=gradients)
        bound._num_rows = np.array(9, np.int32)  # type: ignore[attr-defined]
        bound.forward()
        bound.backward()
        norms = bound.squared_norms_N
        assert norms is not None
        found.append(b"".join(it.tobytes() for it in (gradients, norms, bound.losses_N)))
    given, own = run(model, x[:9], target[:9], weights)
    assert given.squared_norms_N is not None
    found.append(b"".join(it.tobytes() for it in (own, given.squared_norms_N, given.losses_N)))
    assert len(set(found)) == 1
    assert given.losses_N.shape == given.squared_norms_N.shape == (9,)
    assert given.outputs_NO.shape == (9, OUTPUTS)


def test_a_row_that_is_padded_with_brings_no_number_of_its_own() -> None:
    def factory() -> Any:
        def losses(outputs: Any, target: Any) -> Any:
            return jax.numpy.log(abs(outputs[:, 0])) + 0 * target  # Not a number for zeros.

        return lambda _: jax.numpy.ones((INPUTS, 1)), lambda w, x: x @ w, losses

    model = made(factory)
    _, gradients = run(model, *block(9), np.ones(INPUTS, np.float32))
    assert np.isfinite(gradients).all()


def test_rows_and_weights_are_read_anew_in_each_call_and_results_are_kept() -> None:
    model = made(mlp.function)
    page = np.zeros(4096 * 4, np.uint8)  # Aligned as shared memory is, so that it is read in place.
    start = -page.ctypes.data % 4096
    weights = page[start : start + 4 * model.num_parameters].view(np.float32)
    weights[...] = model.initialise("", 1, np.float32)
    x, target = block(16)
    program = model.program(16, np.float32, per_sample=False)
    bound = program.bind(x, target, weights=weights)
    bound.forward()
    losses, outputs = bound.losses_N, bound.outputs_NO
    before = losses.copy(), outputs.copy()
    weights[...] = model.initialise("", 2, np.float32)
    x[...] = 0
    np.testing.assert_array_equal(losses, before[0])
    np.testing.assert_array_equal(outputs, before[1])
    bound.forward()
    fresh = program.bind(x.copy(), target, weights=weights.copy())
    fresh.forward()
    np.testing.assert_array_equal(bound.losses_N, fresh.losses_N)
    assert not np.array_equal(bound.losses_N, losses)


def test_outputs_that_are_the_rows_themselves_are_kept_when_these_are_overwritten() -> None:
    model = made(lambda: (lambda _: jax.numpy.ones(1), lambda _, x: x, cross_entropy))
    x = np.zeros((64, INPUTS), np.float32)
    bound = model.program(64, np.float32, per_sample=False).bind(
        x, np.zeros(64, np.int64), weights=np.ones(1, np.float32)
    )
    bound.forward()
    x[...] = 5
    assert not bound.outputs_NO.any()


def test_chance_is_keyed_by_the_block_and_absent_in_evaluation() -> None:
    model = made(dropout.function)
    weights, (x, target) = model.initialise("", 1, np.float32), block(9)
    keys = [np.array([number], np.uint64) for number in (1, 1, 2, 1 << 40)]
    losses = [run(model, x, target, weights, keys=key)[0].losses_N for key in keys]
    np.testing.assert_array_equal(losses[0], losses[1])
    assert not np.array_equal(losses[0], losses[2])
    assert not np.array_equal(losses[0], losses[3])
    evaluated, _ = run(made(mlp.function), x, target, weights)
    bound = model.program(9, np.float32, per_sample=False).bind(x, target, weights=weights)
    bound.forward()
    np.testing.assert_array_equal(bound.losses_N, evaluated.losses_N)


def test_what_chance_leaves_is_what_the_function_draws_by_the_key_of_the_block() -> None:
    model = made(dropout.function)
    weights, (x, target) = model.initialise("", 1, np.float32), block(16)
    bound, _ = run(model, x, target, weights, keys=np.array([77 << 32 | 5], np.uint64))
    with as_runs_compute(np.float32):
        kept = jax.random.bernoulli(wrapped(np.array([5, 77], np.uint32)), 0.5, x.shape)
    evaluated, _ = run(made(mlp.function), x * np.asarray(kept) * np.float32(2), target, weights)
    np.testing.assert_allclose(bound.losses_N, evaluated.losses_N, rtol=1e-5)


def test_float64_is_computed_in_float64() -> None:
    model = made(mlp.function)
    weights, (x, target) = model.initialise("", 1, np.float64), block(9, dtype="float64")
    bound, gradients = run(model, x, target, weights)
    assert bound.losses_N.dtype == bound.outputs_NO.dtype == np.float64
    step = 1e-6 * numbers(len(weights), dtype="float64")
    ahead, behind = (run(model, x, target, weights + it)[0].losses_N for it in (step, -step))
    assert (ahead - behind).sum() / 2 == pytest.approx(gradients @ step, rel=1e-7)


@pytest.mark.parametrize("rows", [0, 5])
def test_more_rows_than_stated_are_refused(rows: int) -> None:
    model = made(mlp.function)
    weights = model.initialise("", 1, np.float32)
    with pytest.raises(ModelError, match=f"{rows} rows; must be 1 to 4"):
        model.program(4, np.float32, per_sample=False).bind(*block(rows), weights=weights)


@pytest.mark.parametrize(
    ("apply", "losses", "problem"),
    [
        (lambda w, x: x @ w, lambda o, _: o.mean(), r"sample_losses .* gives \(\) for 4 rows"),
        (lambda w, x: x @ w, lambda o, _: o, r"gives \(4, 1\) for 4 rows; must be \(4,\)"),
        (lambda w, x: (x @ w)[:1], lambda o, _: o[:, 0], r"apply .* gives \(1, 1\) for 4 rows"),
        (lambda w, x: {"y": x @ w}, lambda o, _: o, "apply .* gives dict for 4 rows"),
        (lambda w, x: x @ w[1:], lambda o, _: o, r"raises TypeError: dot_general.*test_program"),
    ],
)
def test_functions_that_give_something_else_are_refused(
    apply: Callable[..., Any], losses: Callable[..., Any], problem: str
) -> None:
    model = made(lambda: (lambda _: jax.numpy.ones((INPUTS, 1)), apply, losses))
    with pytest.raises(ModelError, match=problem):
        run(model, *block(4), np.ones(INPUTS, np.float32))


def test_the_processor_is_used_whatever_device_the_user_has_chosen() -> None:
    assert device().platform == "cpu"
    assert device() not in jax.devices()
    assert isinstance(mlp, Factory)
