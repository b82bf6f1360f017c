import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distsgd.base.arrays import Array
from distsgd.config import OptimizerSection
from distsgd.optim.rules import RULES, AdamW, Momentum, Nesterov, Sgd, UpdateRule

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


@pytest.mark.parametrize("kind", RULES)
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


@pytest.mark.parametrize("kind", RULES)
def test_rule_takes_no_weights_at_all(kind: str) -> None:
    weights, _ = run(RULES[kind](), np.zeros(0, np.float32), [np.zeros(0, np.float32)], [0.1])
    assert weights.shape == (0,)


@pytest.mark.parametrize("kind", RULES)
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


def adamw_as_published(
    weights: Array, grads: list[Array], rates: list[float], *, rule: AdamW
) -> list[Any]:
    """Algorithm 2 of Loshchilov and Hutter (2019) with alpha 1, so that eta is the rate.

    One weight at a time, in float64. PyTorch's convention multiplies the decay by the rate as well.
    """
    found = []
    for i, start in enumerate(weights.astype(np.float64)):
        w, m, v = float(start), 0.0, 0.0
        for t, (grad, eta) in enumerate(zip(grads, rates, strict=True), start=1):
            g = float(grad[i]) + rule.weight_decay * w
            m = rule.beta1 * m + (1 - rule.beta1) * g
            v = rule.beta2 * v + (1 - rule.beta2) * g * g
            m_hat, v_hat = m / (1 - rule.beta1**t), v / (1 - rule.beta2**t)
            step = m_hat / (math.sqrt(v_hat) + rule.epsilon)
            w = w - eta * (step + rule.decoupled_weight_decay * w)
        found.append(w)
    return found


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-13), (np.float32, 1e-5)])
@pytest.mark.parametrize(
    "rule",
    [
        AdamW(),
        AdamW(decoupled_weight_decay=0.0),
        AdamW(beta1=0.0, beta2=0.5, epsilon=0.1, decoupled_weight_decay=0.3),
        AdamW(weight_decay=0.2, decoupled_weight_decay=0.0),
    ],
    ids=str,
)
def test_adamw_is_its_published_formula(rule: AdamW, dtype: type, tolerance: float) -> None:
    weights, grads = random_case(dtype, 17, steps=40)
    rates = [0.01 / (1 + t % 5) for t in range(40)]
    result, state = run(rule, weights, grads, rates)
    assert {array.dtype for array in (result, *state.values())} == {np.dtype(dtype)}
    expected = adamw_as_published(weights, grads, rates, rule=rule)
    assert result == pytest.approx(expected, rel=tolerance, abs=tolerance)


def adamw_in_its_dtype(weights: Array, grads: list[Array], rates: list[float]) -> list[Any]:
    """The rule with its usual settings, one weight at a time, in the arithmetic of the dtype."""
    number, rule, found = weights.dtype.type, AdamW(), []
    for i, start in enumerate(weights):
        w, m, v = start, number(0.0), number(0.0)
        for t, (grad, rate) in enumerate(zip(grads, rates, strict=True), start=1):
            w = w * number(1.0 - rate * rule.decoupled_weight_decay)
            m = m * number(rule.beta1) + grad[i] * number(1.0 - rule.beta1)
            v = v * number(rule.beta2) + grad[i] * grad[i] * number(1.0 - rule.beta2)
            root = np.sqrt(v / number(1.0 - rule.beta2**t)) + number(rule.epsilon)
            w = w - m / root * number(rate / (1.0 - rule.beta1**t))
        found.append(w)
    return found


@pytest.mark.parametrize("dtype", DTYPES)
def test_adamw_is_its_formula_in_the_arithmetic_of_the_dtype_bit_for_bit(dtype: type) -> None:
    weights, grads = random_case(dtype, 17)
    rates = [0.1, 0.3, 0.0, 0.05]
    result, _ = run(AdamW(), weights, grads, rates)
    assert result.tolist() == [float(w) for w in adamw_in_its_dtype(weights, grads, rates)]


@pytest.mark.parametrize("num_updates", [0, 1, 9])
def test_adamw_moves_by_the_rate_along_a_gradient_that_never_changes(num_updates: int) -> None:
    # The corrections make both means exact from the first update on: m / c1 is g, v / c2 is g².
    grads = [np.array([3.0, -1e-3, 0.0])] * (num_updates + 1)
    rule = AdamW(decoupled_weight_decay=0.0)
    result, _ = run(rule, np.zeros(3), grads, [0.5] * (num_updates + 1))
    moved = 0.5 * (num_updates + 1)
    assert result == pytest.approx([-moved, moved, 0.0], rel=2e-5)


def test_adamw_is_chosen_and_set_in_the_configuration_by_its_name() -> None:
    settings: dict[str, Any] = {"type": "adamw", "beta2": 0.99}
    section = OptimizerSection(**settings)
    assert section.component() == AdamW(beta2=0.99)
    assert section.learning_rate == 0.001
    assert OptimizerSection(type="sgd").learning_rate == 0.1
