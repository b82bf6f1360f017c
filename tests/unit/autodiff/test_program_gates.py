"""Vectors, transposes and subscripts in a program: exact for each sample, or refused."""

from __future__ import annotations

import numpy as np
import pytest

from distsgd import autodiff as f
from distsgd.autodiff.graph import ParameterSpec, SampleLosses, total_size, views
from distsgd.autodiff.tape import GradientTape, Variable
from distsgd.errors import ModelError
from tests.unit.autodiff.test_program import (
    SPECS,
    Named,
    arrays,
    largest_of_all,
    mixing,
    product_over_samples,
    program,
    sample_of_another,
    stacked,
    transposed,
    turned,
)

VECTOR_SPECS = (ParameterSpec("w", (3, 2)), ParameterSpec("b", (2,)), ParameterSpec("u", (4,)))


def with_a_vector(p: Named, x: Variable, target: Variable) -> tuple[Variable, Variable]:
    """Products with a vector and parts of samples, which keep every sample apart."""
    hidden = f.affine(x, p["w"], p["b"])
    h = f.tanh(f.transpose(f.sin(hidden.reshape(-1, 2, 1)), (0, 2, 1)).reshape(-1, 2))
    wide = h[:, [0, 1, 1, 0]] * x[:, :1] + x[..., -1].reshape(-1, 1)
    outputs = (wide @ p["u"]).reshape(-1, 1) + h.max(axis=1, keepdims=True) * 0.5
    return f.quadratic(outputs, target[:, 1:]), outputs


@pytest.mark.parametrize("rows", [1, 2, 5])
def test_products_with_vectors_and_subscripts_have_exact_norms(rows: int) -> None:
    chance = np.random.default_rng(3)
    x, target = chance.standard_normal((rows, 3)), chance.standard_normal((rows, 2))
    flat = chance.standard_normal(total_size(VECTOR_SPECS))
    gradients = np.full_like(flat, np.nan)
    bound = program(with_a_vector, specs=VECTOR_SPECS, per_sample=True).bind(
        x, target, weights=flat, gradients=gradients
    )
    bound.forward()
    bound.backward()
    total = np.zeros_like(flat)
    norms = []
    for n in range(rows):
        named = {name: Variable(array) for name, array in views(VECTOR_SPECS, flat).items()}
        with GradientTape() as tape:
            losses, _ = with_a_vector(named, Variable(x[n : n + 1]), Variable(target[n : n + 1]))
        own = np.concatenate([g.ravel() for g in tape.gradient(losses, named).values()])
        assert losses.value[0] == pytest.approx(bound.losses_N[n], rel=1e-13)
        norms.append(float(own @ own))
        total += own
    assert bound.squared_norms_N is not None
    np.testing.assert_allclose(bound.squared_norms_N, norms, rtol=1e-12)
    np.testing.assert_allclose(gradients, total, rtol=1e-12, atol=1e-14)
    assert bound.sample_gradients("u").shape == (rows, 4)
    np.testing.assert_allclose(
        bound.sample_gradients("u").sum(axis=0), views(VECTOR_SPECS, gradients)["u"], rtol=1e-12
    )


@pytest.mark.parametrize(
    "function",
    [transposed, turned, sample_of_another, stacked, mixing, largest_of_all, product_over_samples],
)
@pytest.mark.parametrize("rows", [1, 4])
def test_program_of_gates_that_mix_samples_gives_the_bits_of_the_tape(
    function: SampleLosses, rows: int
) -> None:
    x, target, flat = arrays(rows)
    gradients = np.full_like(flat, np.nan)
    bound = program(function).bind(x, target, weights=flat, gradients=gradients)
    bound.forward()
    bound.backward()
    named = {name: Variable(array) for name, array in views(SPECS, flat).items()}
    with GradientTape() as tape:
        losses, _ = function(named, Variable(x), Variable(target))
    assert bound.losses_N.tolist() == losses.value.tolist()
    for name, gradient in tape.gradient(losses, named).items():
        expected = np.zeros_like(named[name].value) if gradient is None else gradient
        np.testing.assert_array_equal(views(SPECS, gradients)[name], expected)


def test_program_refuses_a_network_that_counts_samples() -> None:
    def first_two(p: Named, x: Variable, target: Variable) -> tuple[Variable, Variable]:
        outputs = f.affine(x, p["w"], p["b"])
        return f.quadratic(outputs, target)[:2], outputs

    with pytest.raises(ModelError, match=r"losses of 5 samples have shape \(2,\)"):
        program(first_two)
