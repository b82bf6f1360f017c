"""The rows of the report's table."""

from __future__ import annotations

from distsgd.experiments.report.table import rows
from tests.unit.experiments.planted import Plant, bare, findings


def test_table_has_a_row_for_each_cell_and_each_peer() -> None:
    found = findings(Plant(peers=("sklearn", "torch")))
    made = rows(found)
    assert [row.kind for row in made].count("peer") == 2
    assert len(made) == len(found.cells) + 2


def test_table_says_each_figure_with_its_interval() -> None:
    row = next(row for row in rows(findings()) if (row.batch, row.who) == ("64", "2 workers"))
    assert (row.rate, row.plan) == ("0.1", "worker 0 and worker 1")
    assert (row.steps, row.steps_range, row.num_seeds) == ("229", "213 to 252", "3 of 3 seeds")
    assert row.step == "431 µs (413 to 448)"
    assert row.time == "98.6 ms (86.8 to 110)"
    assert row.full_run == "in full 98.6 ms"
    assert row.efficiency == "71 % (68 to 73)"
    assert row.verdict == "pass"


def test_efficiency_is_over_the_processes_that_computed() -> None:
    """One worker and the server are two: as fast as one core is 50 % efficient."""
    row = next(
        row for row in rows(findings()) if (row.batch, row.who) == ("whole (1,437)", "1 worker")
    )
    assert row.plan == "server and worker 0"
    assert row.efficiency.startswith("50 %")


def test_table_says_why_a_figure_is_missing() -> None:
    made = rows(findings(Plant(missing={8: "diverged"}, edges=frozenset({8}))))
    row = next(row for row in made if row.batch == "8")
    assert (row.steps, row.time, row.num_seeds) == ("diverged", "diverged", "0 of 3 seeds")
    assert row.is_edge
    assert row.verdict == "baseline"


def test_table_of_nothing_is_empty() -> None:
    assert rows(bare()) == []
