"""One sample, mini-batch, whole batch; from the data, and from a pool drawn from the data."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distsgd.data.sampler import BatchSampler, Blocking
from distsgd.errors import ConfigError
from distsgd.lessons.two_stage import TwoStageSampler
from distsgd.parallel.server.step_runner import StepView
from tests.lessons.little_runs import Lesson, learn

TWO_STAGE = "distsgd.lessons.two_stage:TwoStageSampler.of"
ROWS, POOL = 1000, 50
X = np.cos(np.arange(3.0 * ROWS)).reshape(ROWS, 3)
GOALS = X @ np.array([1.0, -2.0, 0.5]) + 0.1 * np.sin(np.arange(float(ROWS)) ** 2)
REGIMES: dict[str, tuple[Any, int]] = {"one": (1, 50), "mini": (10, 5), "whole": ("full", 1)}


def lesson(size: Any, *, pool: int | None = POOL, **train: Any) -> Lesson:
    sampler = {"sampler": TWO_STAGE, "sampler_options": {"pool": pool}} if pool else {}
    sections = {
        "batch": {"size": size, **sampler},
        "optimizer": {"learning_rate": 0.05},
        "parallel": {"workers": 0, "lane_rows": 2, "block_rows": 4},
        "train": {"epochs": 1, **train},
    }
    return Lesson(X, GOALS, np.zeros((3, 1)), sections)


def weight(view: StepView) -> np.ndarray[Any, Any]:
    return view.weights["layers.0.weight"]


@pytest.mark.parametrize("regime", REGIMES)
def test_pool_of_fifty_is_used_up_by_each_regime(regime: str, tmp_path: Path) -> None:
    size, steps_per_pool = REGIMES[regime]
    learnt = learn(lesson(size), tmp_path / "run")
    pools = ROWS // POOL
    assert learnt.result.metrics["steps"] == pools * steps_per_pool
    rows = POOL // steps_per_pool
    assert {len(view.predictions) for view in learnt.views} == {rows}
    # Every row once an epoch: the targets of all steps are all targets.
    used = np.concatenate([view.targets for view in learnt.views]).ravel()
    assert np.sort(used).tobytes() == np.sort(GOALS).tobytes()
    assert np.mean(learnt.errors[-steps_per_pool:]) < 0.5 * learnt.errors[0]


def test_regimes_of_one_seed_draw_the_same_pools(tmp_path: Path) -> None:
    pools = []
    for size, steps_per_pool in REGIMES.values():
        views = learn(lesson(size), tmp_path / f"{size}").views
        used = [view.targets.ravel() for view in views]
        pools.append(
            [
                np.sort(np.concatenate(used[first : first + steps_per_pool])).tobytes()
                for first in range(0, len(used), steps_per_pool)
            ]
        )
    assert pools[0] == pools[1] == pools[2]
    assert len(set(pools[0])) == ROWS // POOL


def test_change_of_a_mini_batch_is_the_mean_of_the_changes_of_its_samples(tmp_path: Path) -> None:
    x, goals = X[:4], GOALS[:4]
    first = np.array([[0.1], [0.2], [0.3]])
    whole = replace(lesson("full", pool=None, steps=1), x=x, targets=goals, weights=first)
    change = learn(whole, tmp_path / "whole").weight - first
    alone = [
        learn(replace(whole, x=x[n : n + 1], targets=goals[n : n + 1]), tmp_path / f"{n}").weight
        - first
        for n in range(4)
    ]
    assert change == pytest.approx(np.mean(alone, axis=0), rel=1e-13)


def test_one_sample_wiggles_more_than_a_mini_batch_and_that_more_than_the_whole(
    tmp_path: Path,
) -> None:
    wiggles = []
    for size, _ in REGIMES.values():
        views = learn(lesson(size, pool=None, epochs=3), tmp_path / f"{size}").views
        errors = np.array(
            [2 * view.loss for view in views[-3:] if size == "full"]
            or [2 * view.loss for view in views[-200:]]
        )
        wiggles.append(float(np.abs(np.diff(errors)).mean()) / float(errors.mean()))
    assert wiggles[0] > wiggles[1] > wiggles[2]


@pytest.mark.parametrize("size", [1, 7, "full"])
def test_short_pools_and_short_mini_batches_drop_nothing(size: Any, tmp_path: Path) -> None:
    rows, pool = 43, 20  # Pools of 20, 20 and 3.
    example = replace(lesson(size, pool=pool, epochs=2), x=X[:rows], targets=GOALS[:rows])
    learnt = learn(example, tmp_path / "run")
    used = np.concatenate([view.targets for view in learnt.views]).ravel()
    assert np.sort(used[:rows]).tobytes() == np.sort(GOALS[:rows]).tobytes()
    assert np.sort(used[rows:]).tobytes() == np.sort(GOALS[:rows]).tobytes()
    assert used[:rows].tobytes() != used[rows:].tobytes()  # Another order in the next epoch.
    sizes = [len(view.predictions) for view in learnt.views[: len(learnt.views) // 2]]
    assert sizes == {1: [1] * 43, 7: [7, 7, 6, 7, 7, 6, 3], "full": [20, 20, 3]}[size]
    assert learnt.result.history["epoch"].to_pylist()[-1] == 2.0


def test_batch_larger_than_its_pool_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"batch.size is 51 and the pool 50"):
        learn(lesson(51), tmp_path / "run")


@pytest.mark.parametrize("pool", [1001, -1, 1.5, True])
def test_pool_that_cannot_be_drawn_from_the_data_is_refused(pool: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=rf"is {pool}; must be 1 to 1000"):
        learn(lesson(10, pool=pool), tmp_path / "run")


def test_option_that_the_sampler_does_not_have_is_refused(tmp_path: Path) -> None:
    example = lesson(10)
    wrong = {"sampler": TWO_STAGE, "sampler_options": {"pol": 50}}
    example = replace(example, sections={**example.sections, "batch": wrong})
    with pytest.raises(ConfigError, match=r"does not take the options \{pol = 50\}"):
        learn(example, tmp_path / "run")


def test_sampler_of_the_lesson_has_twenty_pools_an_epoch() -> None:
    blocking = Blocking.of(10, lanes=16, lane_rows=None, block_rows=256)
    sampler = TwoStageSampler(BatchSampler.of(ROWS, POOL, blocking=blocking), 10, blocking)
    pools = [sampler.pool_of(step)[0] for step in (0, 4, 5, 99, 100)]
    assert pools == [0, 0, 1, 19, 20]
