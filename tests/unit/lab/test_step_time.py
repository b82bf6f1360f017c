"""Seconds of a step, by the clock of each step."""

from __future__ import annotations

import pyarrow as pa
import pytest

from distsgd.errors import ConfigError
from distsgd.lab.step_time import ROUNDS, round_means


def history(step_s: float, count: int, every: int = 1) -> pa.Table:
    steps = list(range(every, count + 1, every))
    return pa.table({"step": steps, "seconds": [step * step_s for step in steps]})


@pytest.mark.parametrize("step_s", [0.0196, 0.0116, 0.0001])
def test_long_steps_are_timed_exactly(step_s: float) -> None:
    means = round_means(history(step_s, 100), 30, 61)
    assert len(means) == ROUNDS
    assert means == pytest.approx([step_s] * ROUNDS)


def test_few_rows_make_few_rounds_and_one_makes_none() -> None:
    assert round_means(history(0.5, 3), 1, 3) == pytest.approx([0.5, 0.5])
    assert round_means(history(0.01, 100, every=40), 30, 100) == pytest.approx([0.01])
    with pytest.raises(ConfigError, match="history_every=1"):
        round_means(history(0.5, 3), 2, 2)
