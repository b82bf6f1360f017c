"""Timing a run: what is timed, on whose rows, and who looks on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from distsgd.errors import ConfigError
from distsgd.lab.bench import Bench, describe, empty_bench, prepare_synthetic, run_bench
from distsgd.parallel.server.spec import Status


def test_empty_step_is_timed_in_all_its_phases() -> None:
    found = run_bench(
        replace(empty_bench(num_workers=0, num_parameters=1000, num_blocks=4), seconds=0.1)
    )
    assert found["batch"] == 4
    assert found["step_us"] > 0
    assert found["phases_us"]["read"] < found["step_us"]
    assert set(found["phases_us"]) == {"read", "compute", "signal", "reduce", "update", "wait"}


def test_prepared_rows_are_used_as_they_are_and_seen_by_whoever_watches(tmp_path: Path) -> None:
    bench = Bench((5, 3), 4, 0, 0.1)
    bench = replace(bench, data=prepare_synthetic(bench, 40, tmp_path / "rows"))
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "rows").iterdir()}
    seen: list[Status] = []

    def look(status: Status) -> bool:
        seen.append(status)
        return False

    run_bench(bench, look)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "rows").iterdir()} == before
    assert seen[-1].epoch == seen[-1].step / 10  # 40 rows in mini-batches of 4.


def test_batch_that_is_set_is_the_one_that_is_reported() -> None:
    bench = Bench((5, 3), 64, 0, 0.1, overrides=("batch.size=3",))
    found, said = run_bench(bench), list[str]()
    describe(bench, found, said.append)
    assert found["batch"] == 3
    assert "(layers 5,3; batch 3)" in said[0]


def test_one_size_is_no_network() -> None:
    with pytest.raises(ConfigError, match=r"layers are 3; must be at least two .*\(set --layers\)"):
        run_bench(Bench((3,), 4, 0, 0.1))
