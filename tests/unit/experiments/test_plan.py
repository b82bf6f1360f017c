"""What an experiment is made of: cells, configurations, rungs; what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distsgd.errors import ConfigError
from distsgd.experiments.plan import Grid, LearningKey, ScalePlan, TimingKey
from distsgd.parallel.server.target import Target
from tests.unit.experiments.rows import NUM_ROWS, plan_of, write_rows


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> ScalePlan:
    return plan_of(write_rows(tmp_path_factory.mktemp("rows")))


def test_plan_survives_json(plan: ScalePlan) -> None:
    assert ScalePlan.from_dict(plan.to_dict()) == plan


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"batches": ()}, "--batch-sizes is empty"),
        ({"batches": (8, 8)}, "--batch-sizes is 8,8; must name each size once"),
        ({"workers": (1, 1)}, "--workers is 1,1; must name each number once"),
        ({"rates": (1.0, 0.1)}, "0 < LOW < HIGH"),
        ({"seeds": 0}, "--seeds is 0; must be 1 or more"),
        ({"num_pairs": 4}, "--pairs is 4; must be 5 or more"),
        ({"target": "test_accuracy<=1"}, "test_accuracy"),
        ({"peers": ("keras",)}, "--peers has keras; must be some of sklearn,torch,jax"),
    ],
)
def test_plan_refuses_what_it_cannot_be(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        plan_of(write_rows(tmp_path), **changes)


def test_batch_beyond_the_rows_is_refused(tmp_path: Path) -> None:
    plan = plan_of(write_rows(tmp_path), batches=(8, 1000))
    with pytest.raises(ConfigError, match=r"--batch-sizes has 1000; must be at most the 240"):
        Grid.of(plan, NUM_ROWS)


def test_full_is_all_rows_and_each_batch_size_stands_once(tmp_path: Path) -> None:
    plan = plan_of(write_rows(tmp_path), batches=("full", 4, NUM_ROWS))
    assert Grid.of(plan, NUM_ROWS).batches == (4, NUM_ROWS)


def test_weak_batches_grow_with_the_workers_and_stay_within_the_rows(tmp_path: Path) -> None:
    plan = plan_of(write_rows(tmp_path), batches=(4, "full"), workers=(1, 2), is_weak=True)
    timings = Grid.of(plan, NUM_ROWS).timings
    assert [key for key in timings if key.is_weak] == [TimingKey(8, 2, 4)]
    assert len(timings) == 5


def test_one_core_alone_is_timed_against_itself(plan: ScalePlan) -> None:
    assert Grid.of(plan, NUM_ROWS).timings == (TimingKey(4, 0, 4), TimingKey(240, 0, 240))


@given(st.integers(1, 50), st.integers(1, 50), st.integers(1, 400))
def test_step_at_is_the_first_with_so_many_samples(
    plan: ScalePlan, num_rows: int, batch: int, samples: int
) -> None:
    grid = Grid(plan=plan, num_rows=num_rows, grid_samples=1, most_samples=num_rows)
    batch = min(batch, num_rows)
    step = grid.step_at(samples, batch)
    assert grid.samples_at(step, batch) >= samples > grid.samples_at(step - 1, batch)


def test_all_batch_sizes_are_evaluated_on_one_grid_of_samples(plan: ScalePlan) -> None:
    grid = Grid.of(plan, NUM_ROWS)
    assert grid.grid_samples == NUM_ROWS // 10
    for batch in grid.batches:
        config = grid.learning_config(LearningKey(batch, 0.5, 3))
        assert config.train.evaluate_every_samples == grid.grid_samples
        assert (config.batch.size, config.optimizer.learning_rate) == (batch, 0.5)
        assert (config.train.seed, config.train.target) == (3, str(Target.parse(plan.target)))
        assert config.parallel.workers == 0


def test_rungs_are_the_same_samples_for_each_batch_size(plan: ScalePlan) -> None:
    grid = Grid.of(plan, NUM_ROWS)
    for rung in range(3):
        steps = {batch: grid.rungs(batch)[rung] for batch in (4, 8, 24)}
        assert len({grid.samples_at(step or 0, batch) for batch, step in steps.items()}) == 1
    assert grid.rungs(4)[-1] is None


def test_trials_have_a_seed_that_no_counted_run_has(plan: ScalePlan) -> None:
    grid = Grid.of(plan, NUM_ROWS)
    assert grid.trial_seed not in grid.seeds
    assert len(grid.seeds) == plan.seeds
