"""What ``experiment scale`` takes, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from distsgd.cli.experiment import Typed, _refuse_changes, seconds_of
from distsgd.errors import ConfigError, RunError
from distsgd.experiments.scale import Scale
from tests.unit.experiments.rows import plan_of, write_rows


@pytest.mark.parametrize("typed", ["0s", "0", "-1m", "soon", ""])
def test_budget_is_a_time_above_0(typed: str) -> None:
    with pytest.raises(ConfigError, match="must be a time above 0"):
        seconds_of(typed)


def test_an_experiment_is_continued_as_it_was_begun(tmp_path: Path) -> None:
    _refuse_changes(None, Typed(), None)
    for config, typed, out in (
        (tmp_path, Typed(), None),
        (None, Typed(seeds=9), None),
        (None, Typed(overrides=["batch.size=3"]), None),
        (None, Typed(), tmp_path),
    ):
        with pytest.raises(ConfigError, match="as it was begun"):
            _refuse_changes(config, typed, out)


def test_an_experiment_is_not_mixed_with_other_files(tmp_path: Path) -> None:
    plan = plan_of(write_rows(tmp_path))
    with pytest.raises(RunError, match="holds other files; choose a new directory"):
        Scale(tmp_path, plan, tmp_path / "cache", lambda _: None).begin()
    assert not (tmp_path / "experiment.json").exists()
