from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from distsgd.base.arrays import Array
from distsgd.base.random_keys import Purpose, uniform
from distsgd.errors import CheckpointError, ConfigError, DivergedError
from distsgd.optim.clip import squared_norm
from distsgd.optim.rules import Momentum, Nesterov, Sgd, UpdateRule
from distsgd.optim.schedules import Cosine
from distsgd.parallel.messages import Sums
from distsgd.parallel.pool.reduction import Root
from distsgd.parallel.server.spec import UpdateSpec
from distsgd.parallel.server.training import Training
from distsgd.store.logs import HistoryRow

P = 11
SCHEDULE = Cosine(0.5, total_steps=20, warmup_steps=3)
RULES: list[UpdateRule] = [
    Sgd(weight_decay=0.1),
    Momentum(momentum=0.8),
    Nesterov(momentum=0.7, decoupled_weight_decay=0.01),
]


def task_of(
    rule: UpdateRule = RULES[0],
    *,
    clip_norm: float | None = None,
    per_sample: bool = False,
    history_every: int = 1,
) -> UpdateSpec:
    return UpdateSpec(
        rule=rule,
        schedule=SCHEDULE,
        clip_norm=clip_norm,
        per_sample=per_sample,
        history_every=history_every,
        steps_per_epoch=4,
    )


def training_of(spec: UpdateSpec) -> Training:
    return Training(spec, uniform(0, Purpose.PROBE, count=P).astype(np.float32))


def root_of(step: int, *, per_sample: bool = False) -> Root:
    """The sum over a mini-batch of 3 to 6 samples."""
    gradient = uniform(1, Purpose.PROBE, step, count=P).astype(np.float32)
    count = 3 + step % 4
    norms = (count * 2.0 + step, 3.0 + step) if per_sample else (0.0, 0.0)
    return Root(Sums(count, 1.0 + step / 3, 0, *norms), gradient, squared_norm(gradient))


def run(training: Training, steps: range, *, per_sample: bool = False) -> list[HistoryRow]:
    rows = (training.apply(root_of(t, per_sample=per_sample), float(t)) for t in steps)
    return [row for row in rows if row is not None]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: type(rule).__name__)
@pytest.mark.parametrize("clip_norm", [None, 0.2])
def test_update_is_the_mean_clipped_and_then_the_rule(
    rule: UpdateRule, clip_norm: float | None
) -> None:
    training = training_of(task_of(rule, clip_norm=clip_norm))
    weights = training.weights.copy()
    state = rule.init(weights)
    for step in range(10):
        root = root_of(step)
        given = root.gradient_sum.copy()
        training.apply(root, 0.0)
        assert np.array_equal(root.gradient_sum, given)
        mean = given / np.float32(root.sums.num_samples)
        norm = math.sqrt(float(given @ given)) / root.sums.num_samples
        if clip_norm is not None and norm > clip_norm:
            mean *= np.float32(clip_norm / norm)
        rate = SCHEDULE.rate(step)
        rule.update_inplace(weights, mean, state=state, learning_rate=rate, num_updates=step)
        assert training.weights.tobytes() == weights.tobytes()
    assert training.step == 10


@pytest.mark.parametrize("loss_sum", [math.nan, math.inf, -math.inf])
def test_loss_that_is_not_finite_leaves_everything_as_it_was(loss_sum: float) -> None:
    training = training_of(task_of(RULES[1]))
    run(training, range(3))
    before, weights = training.state(), training.weights.copy()
    velocity = training.rule_state["velocity"].copy()
    root = root_of(3)
    with pytest.raises(DivergedError, match=r"step 3: the loss is .*learning_rate") as caught:
        training.apply(replace(root, sums=root.sums._replace(loss_sum=loss_sum)), 0.0)
    assert caught.value.step == 3
    assert training.state() == before
    assert training.weights.tobytes() == weights.tobytes()
    assert training.rule_state["velocity"].tobytes() == velocity.tobytes()


def test_gradient_that_is_not_finite_leaves_everything_as_it_was() -> None:
    training = training_of(task_of(RULES[1]))
    run(training, range(3))
    before, weights = training.state(), training.weights.copy()
    root = root_of(3)
    root.gradient_sum[4] = np.inf
    root.squared_norm = squared_norm(root.gradient_sum)
    with pytest.raises(DivergedError, match="step 3"):
        training.apply(root, 0.0)
    assert training.state() == before
    assert training.weights.tobytes() == weights.tobytes()


@pytest.mark.parametrize("every", [1, 2, 3, 5])
def test_history_row_sums_up_the_steps_since_the_last(every: int) -> None:
    rows = run(
        training_of(task_of(per_sample=True, history_every=every)), range(10), per_sample=True
    )
    assert [row.step for row in rows] == list(range(every, 11, every))
    for row in rows:
        roots = [root_of(t, per_sample=True).sums for t in range(row.step - every, row.step)]
        count = sum(sums.num_samples for sums in roots)
        assert row.train_loss == pytest.approx(sum(s.loss_sum for s in roots) / count, rel=1e-14)
        assert row.mean_squared_norm == pytest.approx(
            sum(s.squared_norm_sum for s in roots) / count, rel=1e-14
        )
        assert row.max_squared_norm == max(s.squared_norm_max for s in roots)
        assert row.samples == sum(root_of(t).sums.num_samples for t in range(row.step))
        assert row.epoch == row.step / 4
        assert row.learning_rate == SCHEDULE.rate(row.step - 1)
        assert row.seconds == row.step - 1


@pytest.mark.parametrize("clip_norm", [None, 0.2])
def test_per_sample_columns_are_null_when_they_are_off(clip_norm: float | None) -> None:
    rows = run(training_of(task_of(clip_norm=clip_norm)), range(5))
    for row in rows:
        assert row.mean_squared_norm is row.max_squared_norm is row.noise_scale is None
        assert row.grad_norm is not None


def test_gradient_norm_is_that_before_clipping() -> None:
    clipped = run(training_of(task_of(clip_norm=0.2, per_sample=True)), range(3), per_sample=True)
    for step, row in enumerate(clipped):
        root = root_of(step)
        norm = float(np.linalg.norm(root.gradient_sum.astype(np.float64) / root.sums.num_samples))
        # A float32 division and sum of P squares.
        assert row.grad_norm == pytest.approx(norm, rel=P * 2.0**-23)
        assert row.noise_scale is not None or norm * norm * root.sums.num_samples < 2.0


def test_noise_scale_is_that_of_its_formula() -> None:
    gradient = np.full(P, 4.0, np.float32)
    training = training_of(task_of(per_sample=True))
    # Mean gradient of norm² 11; mean squared norm 20, over 4 samples.
    row = training.apply(Root(Sums(4, 1.0, 0, 80.0, 30.0), gradient, squared_norm(gradient)), 0.0)
    assert row is not None
    square = (4 * 11.0 - 20.0) / 3
    assert row.noise_scale == pytest.approx((20.0 - square) / square, rel=1e-6)


def test_train_loss_is_that_of_the_present_epoch() -> None:
    training = training_of(task_of())
    assert training.train_loss is None
    losses: list[float | None] = []
    for step in range(9):
        run(training, range(step, step + 1))
        losses.append(training.train_loss)
    for step, loss in enumerate(losses):
        sums = [root_of(t).sums for t in range(step - step % 4, step + 1)]
        assert loss == pytest.approx(
            sum(s.loss_sum for s in sums) / sum(s.num_samples for s in sums)
        )
    assert training.epoch == 9 / 4
    assert training.num_samples == sum(root_of(t).sums.num_samples for t in range(9))


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: type(rule).__name__)
@pytest.mark.parametrize("at", [0, 1, 4, 7])
def test_restored_training_goes_on_with_the_same_bits(rule: UpdateRule, at: int) -> None:
    spec = task_of(rule, per_sample=True, history_every=3)
    whole = training_of(spec)
    expected = run(whole, range(12), per_sample=True)
    first = training_of(spec)
    rows = run(first, range(at), per_sample=True)
    state = json.loads(json.dumps(first.state()))
    arrays = {"optimizer": {name: array.copy() for name, array in first.rule_state.items()}}
    weights = first.weights.copy()
    second = Training(spec, np.zeros(P, np.float32))
    seen_by_workers = second.weights
    second.restore(state, weights, arrays)
    assert second.state() == first.state()
    rows += run(second, range(at, 12), per_sample=True)
    assert rows == expected
    assert seen_by_workers.tobytes() == whole.weights.tobytes()
    assert second.state() == whole.state()
    for name, array in whole.rule_state.items():
        assert second.rule_state[name].tobytes() == array.tobytes()


@pytest.mark.parametrize(
    "missing", ["step", "num_samples", "epoch_sums", "row_sums", "noise", "loss_monitor"]
)
def test_state_with_something_missing_is_refused(missing: str) -> None:
    training = training_of(task_of())
    state = {name: value for name, value in training.state().items() if name != missing}
    with pytest.raises(CheckpointError, match="must be an object with"):
        training.restore(state, training.weights, {"optimizer": {}})


@pytest.mark.parametrize(
    ("weights", "arrays"),
    [
        (np.zeros(P + 1, np.float32), {"velocity": np.zeros(P, np.float32)}),
        (np.zeros(P, np.float32), {"velocity": np.zeros(P - 1, np.float32)}),
        (np.zeros(P, np.float32), {}),
        (np.zeros(P, np.float32), {"speed": np.zeros(P, np.float32)}),
    ],
)
def test_arrays_that_do_not_fit_are_refused(weights: Array, arrays: dict[str, Array]) -> None:
    training = training_of(task_of(RULES[1]))
    with pytest.raises(CheckpointError, match="does not fit this run"):
        training.restore(training.state(), weights, {"optimizer": arrays})


@pytest.mark.parametrize(
    "change",
    [
        {"noise": None},
        {"noise": []},
        {"step": "3"},
        {"step": 10**400},
        {"num_samples": None},
        {"epoch_sums": [1, 2]},
        {"row_sums": None},
        {"loss_monitor": {"window": 0}},
    ],
)
def test_state_of_wrong_types_is_refused(change: dict[str, Any]) -> None:
    training = training_of(task_of())
    with pytest.raises(CheckpointError, match="must be"):
        training.restore(training.state() | change, training.weights, {"optimizer": {}})


@pytest.mark.parametrize(
    ("loss_sum", "what"), [(math.nan, "is not a number"), (math.inf, "is infinite")]
)
def test_going_back_says_in_words_what_is_no_number(loss_sum: float, what: str) -> None:
    said: list[str] = []
    spec = replace(task_of(), on_divergence="halve_lr")
    training = Training(spec, np.zeros(P, np.float32), say=said.append)
    training.begin()
    run(training, range(1))
    root = root_of(1)
    training.apply(replace(root, sums=root.sums._replace(loss_sum=loss_sum)), 0.0)
    assert [text for text in said if f"the loss {what} at a learning rate" in text]


@dataclass(frozen=True)
class Plain:
    """Gradient descent that keeps a count of its updates by `name`."""

    name: Any = "weights"
    first: Any = None

    def init(self, weights: Array) -> Any:
        return {self.name: np.zeros_like(weights) if self.first is None else self.first}

    def update_inplace(
        self,
        weights: Array,
        mean_grad: Array,
        *,
        state: Mapping[str, Array],
        learning_rate: float,
        num_updates: int,
    ) -> None:
        counted = state[self.name]
        assert (counted == num_updates).all()
        counted += 1
        weights -= mean_grad * weights.dtype.type(learning_rate)


class Nothing(Plain):
    def init(self, weights: Array) -> Any:  # noqa: ARG002
        return None


@pytest.mark.parametrize("name", ["weights", "num_updates", "state.weights"])
def test_rule_may_name_its_state_as_it_likes_and_is_rolled_back_and_restored(name: str) -> None:
    spec = replace(task_of(Plain(name)), on_divergence="halve_lr")
    training = training_of(spec)
    training.begin()
    run(training, range(4))
    good = training.weights.copy()
    low = root_of(4)  # Windows are of 4 steps; the copy of the second becomes the good one.
    low = replace(low, sums=low.sums._replace(loss_sum=1e-3))
    for _ in range(4):
        training.apply(low, 0.0)
    run(training, range(8, 10))
    arrays = {
        group: {key: array.copy() for key, array in named.items()}
        for group, named in training.arrays().items()
    }
    again = Training(spec, np.zeros(P, np.float32))
    again.restore(json.loads(json.dumps(training.state())), training.weights.copy(), arrays)
    bad = replace(root_of(10), sums=root_of(10).sums._replace(loss_sum=math.nan))
    for it in (training, again):
        it.apply(bad, 0.0)
        assert it.weights.tobytes() == good.tobytes()
        assert it.rule_state[name].tolist() == [4.0] * P
        assert it.state()["num_updates"] == 4


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        (
            Plain("n", np.zeros(1)),
            rf"Plain.init gives the state 'n' of shape \(1,\); must be \({P},",
        ),
        (Plain("n", 0.0), "the state 'n', a float; must be an array"),
        (Plain(3), "a state by the name 3; must be a text"),
        (Nothing(), "Nothing.init gives a NoneType; must give a dict"),
    ],
)
def test_state_that_a_rule_cannot_be_given_in_chunks_is_refused(rule: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        training_of(task_of(rule))
