"""The grid of evaluations: a function of two counts, the same for all batch sizes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distsgd.parallel.server.evaluation_grid import EvaluationGrid

counts = st.integers(1, 200)


def due_after(grid: EvaluationGrid, num_rows: int, batch_rows: int, epochs: int) -> list[int]:
    """Samples used at each evaluation of a run with a short last batch."""
    step, num_samples, found = 0, 0, []
    for _ in range(epochs):
        for first in range(0, num_rows, batch_rows):
            of_step = min(batch_rows, num_rows - first)
            step, num_samples = step + 1, num_samples + of_step
            if grid.is_due(step, num_samples, of_step=of_step):
                found.append(num_samples)
    return found


@given(every=counts, num_rows=counts, batch_rows=counts)
def test_each_multiple_is_met_by_the_first_step_at_or_behind_it(
    every: int, num_rows: int, batch_rows: int
) -> None:
    found = due_after(EvaluationGrid(every, "samples"), num_rows, batch_rows, epochs=3)
    ends = [
        epoch * num_rows + min(first + batch_rows, num_rows)
        for epoch in range(3)
        for first in range(0, num_rows, batch_rows)
    ]
    multiples = range(every, 3 * num_rows + 1, every)
    assert found == sorted({next(end for end in ends if end >= it) for it in multiples})


@given(every=counts, step=counts, of_step=counts)
def test_steps_do_not_look_at_samples(every: int, step: int, of_step: int) -> None:
    is_due = EvaluationGrid(every).is_due(step, step * of_step, of_step=of_step)
    assert is_due == (step % every == 0)


@pytest.mark.parametrize(
    ("batch_rows", "found"),
    [
        (1, [20, 40, 60, 80, 100]),
        (16, [32, 48, 66, 82, 100]),
        (20, [20, 40, 70, 90, 100]),
        (30, [30, 50, 80, 100]),
        (50, [50, 100]),
    ],
)
def test_batch_larger_than_the_grid_is_evaluated_after_each_step(
    batch_rows: int, found: list[int]
) -> None:
    assert due_after(EvaluationGrid(20, "samples"), 50, batch_rows, epochs=2) == found


@pytest.mark.parametrize("unit", ["steps", "samples"])
def test_nothing_is_due_before_the_first_step(unit: str) -> None:
    grid = EvaluationGrid(10, unit)  # type: ignore[arg-type] # of the literal
    assert not grid.is_due(0, 0, of_step=0)
