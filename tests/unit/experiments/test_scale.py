"""A whole experiment on one core: what it finds, that it says what is missing, that a kill changes
nothing but the times."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from distsgd.errors import RunError
from distsgd.experiments.findings import Findings
from distsgd.experiments.plan import LearningKey
from distsgd.experiments.scale import PLAN_FILE, Scale, read_plan, write
from tests.unit.experiments.rows import begun, but_for_times, plan_of, write_rows

QUICK = {"timed_s": 0.05}


def made(directory: Path) -> Findings:
    """What an experiment finds, in this process."""
    return Scale(directory, read_plan(directory), directory.parent / "cache", lambda _: None).run()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Findings]:
    """An experiment that was not disturbed."""
    directory, _ = begun(tmp_path_factory.mktemp("whole"), **QUICK)
    return directory, made(directory)


def test_each_batch_size_has_its_trials_its_seeds_and_its_time(
    whole: tuple[Path, Findings],
) -> None:
    _, found = whole
    assert found.batches == (4, 240)
    for batch in found.batches:
        runs = [cell for cell in found.learning if cell.batch == batch]
        assert len([cell for cell in runs if cell.is_trial]) == 8
        counted = [cell for cell in runs if not cell.is_trial]
        assert [cell.seed for cell in counted] == [1, 2]
        assert len({cell.rate for cell in counted}) == 1
    timed = {(cell.batch, cell.workers): cell for cell in found.timings}
    assert set(timed) == {(4, 0), (240, 0)}
    assert all(cell.step_s is not None for cell in timed.values())


def test_steps_to_target_lie_on_the_grid_of_samples(whole: tuple[Path, Findings]) -> None:
    _, found = whole
    reached = [cell for cell in found.learning if cell.steps is not None]
    assert reached, "nothing met the target"
    for cell in reached:
        assert cell.samples_until is not None
        assert cell.samples_after is not None
        assert cell.samples_until - cell.samples_after <= max(found.grid_samples, cell.batch)
        before = [value for samples, value in cell.curve if samples <= cell.samples_after]
        assert all(value < 0.85 for value in before)
        assert cell.curve[-1][1] >= 0.85


def test_what_is_missing_has_its_reason(whole: tuple[Path, Findings]) -> None:
    _, found = whole
    for cell in found.learning:
        assert bool(cell.reason) == (cell.steps is None)
    for way in found.critical:
        assert bool(way.reason) == (way.batch is None)


def test_runs_without_workers_prove_nothing_about_workers(whole: tuple[Path, Findings]) -> None:
    _, found = whole
    assert found.num_digests == 0
    assert found.digests_equal
    assert found.products_hold is not None, "no run was made in full"


def test_a_branch_with_the_batch_of_the_trunk_is_the_trunk_trained_on(
    whole: tuple[Path, Findings],
) -> None:
    directory, found = whole
    branching = next(way for way in found.critical if way.way == "branching")
    assert branching.batch is not None, branching.reason
    trunk = next(
        cell for cell in found.learning if not cell.is_trial and cell.batch == 4 and cell.steps
    )
    key = LearningKey(trunk.batch, trunk.rate, trunk.seed)
    places = sorted((directory / "branches" / key.path).glob("step-*/into-batch-4"))
    first, place = places[0], directory / key.name
    step = int(first.parent.name.split("-")[1])
    result = json.loads((first / "result.json").read_text())
    history = pq.read_table(place / "history")
    branch = pq.read_table(first / "history")
    losses = dict(zip(history["step"].to_pylist(), history["train_loss"].to_pylist(), strict=True))
    common = [
        (losses[step], loss)
        for step, loss in zip(
            branch["step"].to_pylist(), branch["train_loss"].to_pylist(), strict=True
        )
        if step in losses
    ]
    assert common, "the trunk ended before the branch began"
    assert all(ours == its for ours, its in common)
    assert result["steps"] > step


def test_branches_use_the_same_number_of_samples(whole: tuple[Path, Findings]) -> None:
    directory, _ = whole
    ends = {
        place.name: pq.read_table(place / "history")["samples"].to_pylist()
        for place in directory.glob("branches/batch-4/*/*/step-*/into-batch-*")
    }
    assert len(ends) > 2
    used = {name: samples[-1] - samples[0] for name, samples in ends.items()}
    batches = {name: int(name.rsplit("-", 1)[1]) for name in used}
    for name, samples in used.items():
        assert 2 * 240 - batches[name] <= samples + batches[name] <= 2 * 240 + batches[name]


def test_cells_are_written_one_a_row(whole: tuple[Path, Findings], tmp_path: Path) -> None:
    _, found = whole
    files = write(found, tmp_path)
    assert {file.name for file in files} == {"report.html", "report.json", "cells.parquet"}
    table = pq.read_table(tmp_path / "cells.parquet")
    assert len(table) == len(found.learning) + len(found.timings) + len(found.runs)
    assert set(table["kind"].to_pylist()) == {"trial", "learning", "timing", "full", "branch"}
    assert all(table["machine"].to_pylist())


def test_each_run_in_full_and_each_branch_has_a_row_of_its_own(
    whole: tuple[Path, Findings],
) -> None:
    directory, found = whole
    named = {run.name: run for run in found.runs}
    for kind, place in (("full", "full/*/*/*/*"), ("branch", "branches/*/*/*/*/into-*")):
        made = {str(run.relative_to(directory)) for run in directory.glob(place)}
        assert made
        assert made == {run.name for run in found.runs if run.kind == kind}
        for name in made:
            result = json.loads((directory / name / "result.json").read_text())
            assert named[name].digest == result["weights_digest"]
            assert named[name].steps == result["steps"]
            assert named[name].reason == ""
    assert all(run.seconds is not None for run in found.runs if run.kind == "full")
    assert all(run.test_loss is not None for run in found.runs if run.kind == "branch")


def test_a_row_says_where_its_run_was_made(whole: tuple[Path, Findings], tmp_path: Path) -> None:
    _, found = whole
    run = found.runs[-1]
    there = {"distsgd": "9", "python": "9", "numpy": "9", "platform": "CP/M", "numerics": "f00"}
    write(replace(found, elsewhere={run.name: there}), tmp_path)
    rows = pq.read_table(tmp_path / "cells.parquet").to_pylist()
    (row,) = (it for it in rows if it["name"] == run.name)
    assert (row["machine"], row["versions"]) == ("CP/M", "distsgd 9, python 9, numpy 9")
    assert all("CP/M" not in it["machine"] for it in rows if it["name"] != run.name)


def test_the_report_for_programs_says_which_rows(
    whole: tuple[Path, Findings], tmp_path: Path
) -> None:
    directory, found = whole
    write(found, tmp_path)
    told = json.loads((tmp_path / "report.json").read_text())["findings"]
    record = next(directory.glob("learning/*/*/*/environment.json"))
    assert told["data_digest"] == json.loads(record.read_text())["data_digest"]


def test_an_experiment_is_not_begun_over_another(whole: tuple[Path, Findings]) -> None:
    directory, _ = whole
    again = Scale(directory, read_plan(directory), None, lambda _: None)
    with pytest.raises(RunError, match="holds an experiment already; continue it by --resume"):
        again.begin()


def test_a_damaged_plan_is_said(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="holds no experiment"):
        read_plan(tmp_path)
    (tmp_path / PLAN_FILE).write_text("{}")
    with pytest.raises(RunError, match="is damaged"):
        read_plan(tmp_path)


def test_without_time_all_cells_are_there_with_their_reason(tmp_path: Path) -> None:
    plan = plan_of(write_rows(tmp_path), budget_s=1e-9, **QUICK)
    directory = tmp_path / "experiment"
    scale = Scale(directory, plan, tmp_path / "cache", lambda _: None)
    scale.begin()
    found = scale.run()
    assert found.left_out
    counted = [cell for cell in found.learning if not cell.is_trial]
    assert {cell.reason for cell in counted} == {"out of budget"}
    assert {cell.reason for cell in found.timings} == {"out of budget"}
    assert write(found, directory)


COMMAND = """
import sys
from pathlib import Path
from distsgd.experiments.plan import LearningKey
from distsgd.experiments.scale import Scale, read_plan

place = Path(sys.argv[1])
Scale(place, read_plan(place), place.parent / "cache", lambda _: None).run()
"""


def has_trials(place: Path) -> bool:
    return len(list(place.glob("learning/*/*/*/result.json"))) >= 3


def has_pairs(place: Path) -> bool:
    return len(list(place.glob("timing/*/pair-*.json"))) >= 4


def has_branch(place: Path) -> bool:
    return bool(list(place.glob("branches/*/*/*/step-*/into-*/config.json")))


LATER = [pytest.param(is_time, marks=pytest.mark.long) for is_time in (has_pairs, has_branch)]


@pytest.mark.parametrize("is_time", [has_trials, *LATER])
def test_a_killed_experiment_finds_the_same_when_it_is_resumed(
    whole: tuple[Path, Findings], tmp_path: Path, is_time: Callable[[Path], bool]
) -> None:
    directory, _ = begun(tmp_path, **QUICK)
    process = subprocess.Popen(
        [sys.executable, "-c", COMMAND, str(directory)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    while not is_time(directory):
        assert process.poll() is None, "it ended before it was killed"
    process.send_signal(signal.SIGKILL)
    process.wait()
    found, (_, undisturbed) = made(directory), whole
    assert list(map(but_for_times, found.learning)) == list(
        map(but_for_times, undisturbed.learning)
    )
    assert (found.critical, found.fit) == (undisturbed.critical, undisturbed.fit)
    assert found.digests_equal
