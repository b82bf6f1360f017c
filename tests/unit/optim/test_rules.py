from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distsgd.base.arrays import Array
from distsgd.optim.rules import RULES, Momentum, Nesterov, Sgd, UpdateRule

DTYPES = [np.float32, np.float64]
TYPES = ["sgd", "momentum", "nesterov"]  # Those of `loop_over_weights`.


def loop_over_weights(
    weights: Array,
    grads: list[Array],
    rates: list[float],
    *,
    kind: str,
    momentum: float = 0.9,
    weight_decay: float = 0.0,
    decoupled: float = 0.0,
) -> tuple[list[Any], list[Any]]:
    """The formulas, one weight at a time, in the arithmetic of the dtype."""
    number = weights.dtype.type
    w, v = list(weights), [number(0.0)] * len(weights)
    for grad, rate in zip(grads, rates, strict=True):
        for i in range(len(w)):
            g = grad[i]
            if weight_decay:
                g = g + w[i] * number(weight_decay)
            if decoupled:
                w[i] = w[i] * number(1.0 - rate * decoupled)
            v[i] = v[i] * number(momentum) + g
            step = {"sgd": g, "momentum": v[i], "nesterov": g + v[i] * number(momentum)}[kind]
            w[i] = w[i] - step * number(rate)
    return w, v


def random_case(dtype: type, size: int, *, steps: int = 4) -> tuple[Array, list[Array]]:
    chance = np.random.default_rng(7)
    weights: Array = chance.standard_normal(size).astype(dtype)
    return weights, [chance.standard_normal(size).astype(dtype) for _ in range(steps)]


def run(
    rule: UpdateRule, weights: Array, grads: list[Array], rates: list[float]
) -> tuple[Array, dict[str, Array]]:
    state = rule.init(weights)
    weights = weights.copy()
    for t, (grad, rate) in enumerate(zip(grads, rates, strict=True)):
        rule.update_inplace(weights, grad.copy(), state=state, learning_rate=rate, num_updates=t)
    return weights, state


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize(("weight_decay", "decoupled"), [(0, 0), (0.1, 0), (0, 0.1), (0.03, 0.2)])
def test_rule_is_its_formula_bit_for_bit(
    dtype: type, kind: str, weight_decay: float, decoupled: float
) -> None:
    weights, grads = random_case(dtype, 17)
    rates = [0.1, 0.3, 0.0, 0.05]
    given = {} if kind == "sgd" else {"momentum": 0.8}
    rule = RULES[kind](**given, weight_decay=weight_decay, decoupled_weight_decay=decoupled)

    result, state = run(rule, weights, grads, rates)

    expected, velocity = loop_over_weights(
        weights,
        grads,
        rates,
        kind=kind,
        momentum=0.8,
        weight_decay=weight_decay,
        decoupled=decoupled,
    )
    assert result.dtype == dtype
    assert result.tolist() == [float(w) for w in expected]
    if kind == "sgd":
        assert state == {}
    else:
        assert state["velocity"].dtype == dtype
        assert state["velocity"].tolist() == [float(v) for v in velocity]


def test_nesterov_follows_the_convention_of_pytorch() -> None:
    # As torch.optim.SGD(lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01) from weight 1 with
    # the gradient 1 twice: decay enters the gradient, the learning rate not the velocity.
    rule = Nesterov(0.9, weight_decay=0.01)
    weights, state = run(rule, np.array([1.0]), [np.array([1.0])] * 2, [0.1, 0.1])
    first = 1.0 - 0.1 * (1.01 + 0.9 * 1.01)
    grad = 1.0 + 0.01 * first
    velocity = 0.9 * 1.01 + grad
    assert state["velocity"][0] == pytest.approx(velocity, rel=1e-15)
    assert weights[0] == pytest.approx(first - 0.1 * (grad + 0.9 * velocity), rel=1e-15)


@pytest.mark.parametrize("kind", TYPES)
def test_rule_on_a_slice_does_to_it_what_it_does_to_the_whole(kind: str) -> None:
    weights, grads = random_case(np.float32, 100)
    rule = RULES[kind]()
    whole, _ = run(rule, weights, grads, [0.1] * 4)
    frozen, state = weights.copy(), rule.init(weights)
    part = slice(30, 70)
    part_of_state = {name: array[part] for name, array in state.items()}
    for t, grad in enumerate(grads):
        rule.update_inplace(
            frozen[part], grad[part], state=part_of_state, learning_rate=0.1, num_updates=t
        )
    assert frozen[part].tobytes() == whole[part].tobytes()
    assert frozen[:30].tobytes() == weights[:30].tobytes()
    assert frozen[70:].tobytes() == weights[70:].tobytes()


@pytest.mark.parametrize("kind", TYPES)
def test_rule_takes_no_weights_at_all(kind: str) -> None:
    weights, _ = run(RULES[kind](), np.zeros(0, np.float32), [np.zeros(0, np.float32)], [0.1])
    assert weights.shape == (0,)


@pytest.mark.parametrize("kind", TYPES)
def test_rule_keeps_float32_when_the_rate_is_a_numpy_float64(kind: str) -> None:
    weights, grads = random_case(np.float32, 5, steps=1)
    by_float, _ = run(RULES[kind](weight_decay=0.1), weights, grads, [0.1])
    by_scalar, state = run(RULES[kind](weight_decay=0.1), weights, grads, [np.float64(0.1)])
    assert by_scalar.dtype == np.float32
    assert by_scalar.tobytes() == by_float.tobytes()
    assert all(array.dtype == np.float32 for array in state.values())


@given(momentum=st.floats(0.0, 0.99), rate=st.floats(0.0, 1.0), size=st.integers(0, 40))
def test_momentum_agrees_with_its_formula_for_any_size(
    momentum: float, rate: float, size: int
) -> None:
    weights, grads = random_case(np.float64, size, steps=3)
    result, _ = run(Momentum(momentum), weights, grads, [rate] * 3)
    expected, _ = loop_over_weights(weights, grads, [rate] * 3, kind="momentum", momentum=momentum)
    assert result.tolist() == [float(w) for w in expected]


def test_momentum_of_zero_is_sgd() -> None:
    weights, grads = random_case(np.float32, 50)
    with_momentum, _ = run(Momentum(0.0), weights, grads, [0.1] * 4)
    nesterov, _ = run(Nesterov(0.0), weights, grads, [0.1] * 4)
    without, _ = run(Sgd(), weights, grads, [0.1] * 4)
    assert with_momentum.tobytes() == nesterov.tobytes() == without.tobytes()
