"""Losses and slopes in float32 against the same in extended precision, over the whole range.

The unit is the ulp, the spacing of float32 at the true value. Where a bound is not a plain number
of ulp, the test says of what: no float32 computation of a sum of terms with both signs does better
than a few ulp of its terms.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from distsgd import autodiff as f
from distsgd.autodiff import GradientTape, Variable
from distsgd.autodiff.ops.cross_entropies import stage_log1p_of_unit, stage_log_of_sum
from distsgd.base.arrays import Array
from distsgd.nn import find_loss

Wide = np.longdouble
TINY = np.finfo(np.float32).tiny
CHANCE = np.random.default_rng(0)
# Evenly over where exp changes, and over all sizes.
SIZES = 10.0 ** CHANCE.uniform(-38, 38, 20_000)
OUTPUTS: Array = np.concatenate(
    [np.linspace(-110, 110, 50_001), SIZES, -SIZES, [0.0, 88.0, -88.0, 1e4, -1e4, 1e-30, -1e-30]]
).astype(np.float32)


def ulps(found: Array, true: Array, scale: Array | None = None) -> Array:
    """Errors in ulp of the true value, or of `scale`; below the normal numbers in theirs."""
    size = np.minimum(np.abs(true if scale is None else scale), Wide(3e38)).astype(np.float32)
    spacing = np.maximum(np.spacing(size), np.spacing(TINY))
    return np.asarray(np.abs(found.astype(Wide) - true) / spacing, np.float64)


def loss_and_gradient(name: str, outputs: Array, target: Array) -> tuple[Array, Array]:
    """By the gates that train."""
    variable = Variable(outputs)
    with GradientTape() as tape, np.errstate(over="ignore", under="ignore"):
        losses = find_loss(name).sample_losses(variable, target)
        return losses.value, tape.gradient(losses, variable)


@pytest.mark.parametrize("target", [0.0, 1.0, 0.5, 0.3, 1 - 2.0**-24, 1e-6, 1e-30, None])
def test_sigmoid_cross_entropy_is_within_4_ulp_however_far_out(target: float | None) -> None:
    z = OUTPUTS[:, None]
    t = np.full_like(z, target) if target is not None else CHANCE.random(z.shape, np.float32)
    loss, gradient = loss_and_gradient("sigmoid_cross_entropy", z, t)
    wide_z, wide_t = z.astype(Wide), t.astype(Wide)
    e = np.exp(-abs(wide_z))
    q, r = np.where(wide_z > 0, 1 - wide_t, wide_t), e / (1 + e)
    assert ulps(loss, (abs(wide_z) * q + np.log1p(e))[:, 0]).max() <= 4
    true = np.where(wide_z > 0, q - r, r - q)
    assert ulps(gradient, true, np.maximum(q, r)).max() <= 4
    if target in (0.0, 1.0):  # A label of two classes: nothing cancels.
        assert ulps(gradient, true).max() <= 4


def test_sigmoid_cross_entropy_far_out_is_what_it_was_not() -> None:
    z = np.array([[10.0], [15.0], [50.0]], np.float32)
    loss, gradient = loss_and_gradient("sigmoid_cross_entropy", z, np.ones_like(z))
    np.testing.assert_allclose(loss, [4.5398901e-5, 3.0590227e-7, 1.9287498e-22], rtol=3e-7)
    np.testing.assert_allclose(gradient[:, 0], [-4.5397869e-5, -3.0590222e-7, -1.9287498e-22], 4e-7)


@pytest.mark.parametrize("num_classes", [2, 10, 300])
@pytest.mark.parametrize("is_right", [True, False])
def test_softmax_cross_entropy_keeps_its_digits(num_classes: int, *, is_right: bool) -> None:
    scale = 10.0 ** CHANCE.uniform(-3, 4, (3000, 1))
    z = (CHANCE.standard_normal((3000, num_classes)) * scale).astype(np.float32)
    at = np.arange(len(z))
    classes = z.argmax(1) if is_right else CHANCE.integers(0, num_classes, len(z))
    loss, gradient = loss_and_gradient("softmax_cross_entropy", z, classes)
    shifted = z.astype(Wide) - z.max(1).astype(Wide)[:, None]
    exp = np.exp(shifted)
    own, rest = exp[at, classes], exp.copy()
    rest[at, classes] = 0
    others = rest.sum(1)
    with np.errstate(over="ignore"):
        near = np.log1p(others / np.maximum(own, np.finfo(Wide).tiny))
    true = np.where(own > others, near, np.log(own + others) - shifted[at, classes])
    # exp of a difference d is off by half the spacing at d, as if an output were off by that
    # (beyond 110 nothing is left of it); a sum of O numbers by half an ulp each.
    gap = np.minimum(-shifted.min(1), 110).astype(np.float32)
    bound = 6 + num_classes / 2 + 2.0**24 * np.spacing(gap) / 2
    assert (ulps(loss, true) <= bound).all()
    by_outputs = rest / (own + others)[:, None]
    by_outputs[at, classes] = -others / (own + others)
    assert (ulps(gradient, by_outputs).max(1) <= bound).all()


def test_softmax_cross_entropy_of_a_sure_class_is_not_0() -> None:
    z = np.array([[0.0, 17.0], [-40.0, 40.0], [0.0, 88.0]], np.float32)
    loss, gradient = loss_and_gradient("softmax_cross_entropy", z, np.array([1, 1, 1]))
    np.testing.assert_allclose(loss, np.exp([-17.0, -80.0, -88.0]), rtol=1e-5)
    np.testing.assert_allclose(gradient[:, 1], -np.exp([-17.0, -80.0, -88.0]), rtol=1e-5)


def test_one_hot_rows_of_a_sure_class_are_as_exact_as_its_number() -> None:
    z = np.array([[0.0, 17.0], [-40.0, 40.0], [0.0, 80.0], [3.0, 1.0]], np.float32)
    hot = np.eye(2, dtype=np.float32)[[1, 1, 1, 1]]
    of_hot, of_number = Variable(z), Variable(z)
    with GradientTape(persistent=True) as tape:
        by_hot = f.softmax_cross_entropy(of_hot, hot)
        by_number = f.softmax_cross_entropy(of_number, [1, 1, 1, 1])
    np.testing.assert_allclose(by_hot.value, by_number.value, rtol=3e-7)
    gradient = tape.gradient(by_hot, of_hot)
    np.testing.assert_allclose(gradient, tape.gradient(by_number, of_number), rtol=3e-7)
    assert (gradient[:, 1] < 0).all()


def test_masked_outputs_count_for_nothing_however_the_class_is_told() -> None:
    z = np.array([[-np.inf, 0.0, 1.0]])
    expected = np.log1p(np.exp(1.0))
    share = 1 / (1 + np.exp(1.0))
    for target in ([1], [[0.0, 1.0, 0.0]]):
        outputs = Variable(z)
        with GradientTape() as tape:
            loss = f.softmax_cross_entropy(outputs, target)
        np.testing.assert_allclose(loss.value, expected, rtol=1e-15)
        gradient = tape.gradient(loss, outputs)[0]
        np.testing.assert_allclose(gradient, [0.0, share - 1.0, 1.0 - share], rtol=1e-15)


@pytest.mark.parametrize(
    ("name", "bound", "slope_bound", "reach"), [("sigmoid", 4, 6, 87), ("tanh", 2, 5, 43)]
)
def test_activations_and_their_slopes_keep_their_digits(
    name: str, bound: int, slope_bound: int, reach: float
) -> None:
    x = Variable(OUTPUTS)
    with GradientTape() as tape, np.errstate(under="ignore"):
        y = getattr(f, name)(x)
        slope = tape.gradient(y, x)
    wide = OUTPUTS.astype(Wide)
    e = np.exp(-abs(wide) * (1 if name == "sigmoid" else 2))
    true = np.where(wide > 0, 1, e) / (1 + e) if name == "sigmoid" else np.tanh(wide)
    true_slope = (1 if name == "sigmoid" else 4) * e / (1 + e) ** 2
    inside = abs(wide) <= reach  # Beyond it the results are no longer normal numbers.
    assert ulps(y.value, true)[inside].max() <= bound
    assert ulps(slope, true_slope)[inside].max() <= slope_bound
    assert np.abs(slope.astype(Wide) - true_slope)[~inside].max() <= 2 * TINY


def test_softmax_slope_of_a_sure_class_is_not_lost() -> None:
    x = Variable(np.array([[20.0, 0.0], [0.0, 30.0], [0.0, 0.0]], np.float32))
    with GradientTape() as tape:
        y = f.softmax(x)
        cost = (y * np.array([1.0, 0.25], np.float32)).sum()
    p = np.exp(np.array([-20.0, -30.0, -np.log(1.0)]))
    true = 0.75 * p / (1 + p) ** 2
    found = tape.gradient(cost, x)
    np.testing.assert_allclose(found, np.stack([true, -true], 1), rtol=1e-6)


def _quotients(near: float) -> tuple[Array, Array]:
    """Outputs and targets above 0, some far from each other, some as near as `near`."""
    far_a, far_e = 10.0 ** CHANCE.uniform(-37, 37, (2, 20_000))
    a = 10.0 ** CHANCE.uniform(-3, 3, 40_000)
    e = a * (1 + 10.0 ** CHANCE.uniform(np.log10(near), 0, a.size) * CHANCE.choice([-1, 1], a.size))
    pairs = np.concatenate([far_a, a]), np.concatenate([far_e, np.maximum(e, 1e-37)])
    return pairs[0].astype(np.float32), pairs[1].astype(np.float32)


def _less_its_logarithm(s: Array) -> Array:
    """``s - ln(1 + s)``."""
    series = s**2 * (
        1 / Wide(2) - s * (1 / Wide(3) - s * (1 / Wide(4) - s * (1 / Wide(5) - s / 6)))
    )
    return np.where(abs(s) < 1e-3, series, s - np.log1p(np.maximum(s, -1 + 1e-10)))


def _hellinger(a: Array, e: Array) -> tuple[Array, Array]:
    gap = (a - e) / (np.sqrt(a) + np.sqrt(e))
    return gap**2 / np.sqrt(Wide(2)), gap / np.sqrt(2 * a)


def _log_of_quotient(e: Array, a: Array) -> Array:
    near = np.maximum((e - a) / a, -0.9)
    return np.where(abs(e - a) < 0.5 * a, np.log1p(near), np.log(e) - np.log(a))


def _kullback_leibler(a: Array, e: Array) -> tuple[Array, Array]:
    return e * _log_of_quotient(e, a), -e / a


def _generalised(a: Array, e: Array) -> tuple[Array, Array]:
    far = e * _log_of_quotient(e, a) - e + a
    return np.where(abs(a - e) < 0.5 * e, e * _less_its_logarithm((a - e) / e), far), (a - e) / a


def _itakura_saito(a: Array, e: Array) -> tuple[Array, Array]:
    far = (e - a) / a - _log_of_quotient(e, a)
    near = _less_its_logarithm((e - a) / a)
    return np.where(abs(e - a) < 0.5 * a, near, far), (a - e) / a / a


@pytest.mark.parametrize(
    ("name", "formula", "bound"),
    [
        ("hellinger", _hellinger, 6),
        ("kullback_leibler", _kullback_leibler, 8),
        ("generalised_kullback_leibler", _generalised, 32),
        ("itakura_saito", _itakura_saito, 32),
    ],
)
def test_divergences_keep_their_digits_near_and_far(
    name: str, formula: Callable[[Array, Array], tuple[Array, Array]], bound: int
) -> None:
    a, e = _quotients(near=1e-7)
    loss, gradient = loss_and_gradient(name, a[:, None], e[:, None])
    true, slope = formula(a.astype(Wide), e.astype(Wide))
    for found, wanted, most in ((loss, true, bound), (gradient[:, 0], slope, 4)):
        size = np.abs(wanted)
        normal = (size > TINY) & (size < 3e38)
        assert normal.mean() > 0.5
        assert ulps(found, wanted)[normal].max() <= most


def test_divergences_of_the_smallest_numbers_are_not_below_0() -> None:
    least = np.finfo(np.float32).smallest_subnormal
    a, e = np.array([TINY, least, 1.0], np.float32), np.array([least, TINY, least], np.float32)
    with np.errstate(under="ignore"):
        saito, _ = loss_and_gradient("itakura_saito", a[:2, None], e[:2, None])
        leibler, _ = loss_and_gradient("kullback_leibler", a[1:, None], e[1:, None])
    quotient = e.astype(Wide) / a.astype(Wide)
    logarithm = np.log(quotient)
    np.testing.assert_allclose(saito, (quotient - logarithm - 1)[:2].astype(float), rtol=1e-6)
    np.testing.assert_allclose(leibler[0], float((e * logarithm)[1]), rtol=1e-6)


@pytest.mark.parametrize("target", [0.0, 1.0, 0.3])
def test_cross_entropy_keeps_its_digits_at_both_ends(target: float) -> None:
    near_1 = 1 - 10.0 ** CHANCE.uniform(-7, 0, 20_000)
    a = np.concatenate([10.0 ** CHANCE.uniform(-38, 0, 20_000), near_1]).astype(np.float32)
    a = a[(a >= TINY) & (a < 1)]
    t = np.full_like(a, target)
    loss, gradient = loss_and_gradient("cross_entropy", a[:, None], t[:, None])
    wide, rest = a.astype(Wide), 1 - Wide(np.float32(target))
    of_a, of_rest = (1 - rest) * np.log(wide), rest * np.log1p(-wide)
    assert ulps(loss, -of_a - of_rest).max() <= 5
    true, size = rest / (1 - wide) - (1 - rest) / wide, rest / (1 - wide) + (1 - rest) / wide
    assert ulps(gradient[:, 0], true, size).max() <= 4


def test_hinge_of_large_outputs_keeps_small_differences() -> None:
    own = np.array([1e4, 3e6, -1e5], np.float32)
    z = np.stack([own, own + np.float32(0.25)], 1)
    loss, _ = loss_and_gradient("hinge", z, np.zeros(3, np.int64))
    assert loss.tolist() == (z[:, 1] - own + 1).tolist() == [1.25, 1.25, 1.25]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_logarithms_near_1_are_exact(dtype: type) -> None:
    x: Array = np.concatenate([10.0 ** CHANCE.uniform(-37, 0, 5000), [0.0, 1.0]]).astype(dtype)
    out, a, b, log = (np.empty_like(x) for _ in range(4))
    true = np.log1p(x.astype(Wide))
    spacing = np.maximum(np.spacing(true.astype(dtype)), np.finfo(dtype).smallest_subnormal)
    for operations, most in (
        (stage_log1p_of_unit(x, out, a, b), 2.0),
        (stage_log_of_sum(np.ones_like(x), x, out, total=a, log=log), 4.0),
    ):
        for operation in operations:
            operation()
        assert (np.abs(out.astype(Wide) - true) / spacing).max() <= most
