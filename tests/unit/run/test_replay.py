"""A replay that ends early says how, and never that the record is wrong."""

from __future__ import annotations

import json
import shutil
import tempfile
import threading
from pathlib import Path

import numpy as np
import pytest

from distsgd.config import TrainConfig
from distsgd.errors import (
    DataError,
    DiskError,
    DistSGDError,
    DivergedError,
    ReplayInterrupted,
    VerificationError,
)
from distsgd.run.progress import Progress
from distsgd.run.run import Run
from distsgd.run.trainer import Trainer
from tests.hostile.test_bad_disk import files_of_at_most

STEPS = 300
CONFIG = TrainConfig.from_dict(
    {
        "model": {"layers": [{"type": "dense", "units": 1}], "loss": "quadratic"},
        "batch": {"size": 2},
        "optimizer": {"learning_rate": 1e-4},
        "train": {"steps": STEPS, "digest_every": 1, "evaluate_every_epochs": 5},
        "parallel": {"workers": 0},
        "checkpoint": {"every_steps": 50},
    }
)
ROWS = np.arange(16.0, dtype=np.float32).reshape(8, 2), np.arange(8.0, dtype=np.float32)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("trained") / "run"
    Trainer(CONFIG, data=ROWS, run_dir=path).fit()
    return path


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A sound run of its own."""
    return shutil.copytree(trained, tmp_path / "run")


def change_digest(run: Path, number: int) -> None:
    log = run / "digests.jsonl"
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    rows[number - 1]["digest"] = "0" * 64
    log.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_sound_run_holds_and_a_changed_one_names_the_step(run: Path) -> None:
    seen: list[Progress] = []
    assert Run.open(run).verify(on_progress=seen.append).steps == STEPS
    assert {now.total_steps for now in seen} == {STEPS}
    change_digest(run, 7)
    with pytest.raises(VerificationError, match="step 7 is the first that is wrong") as found:
        Run.open(run).verify()
    assert (found.value.step, found.value.exit_code) == (7, 3)


def test_stop_that_comes_after_the_last_step_hides_no_verdict(run: Path) -> None:
    stop = threading.Event()

    def at_end(now: Progress) -> None:
        if now.step == STEPS:
            stop.set()

    change_digest(run, 1)
    with pytest.raises(VerificationError, match="step 1 "):
        Run.open(run).verify(stop=stop, on_progress=at_end)


@pytest.fixture(scope="module")
def long_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with so many steps that a replay is looked at before they are made."""
    path = tmp_path_factory.mktemp("long") / "run"
    longer = CONFIG.with_overrides(["train.steps=20000", "train.evaluate_every_epochs=5000"])
    Trainer(longer.with_overrides(["train.digest_every=1000"]), data=ROWS, run_dir=path).fit()
    change_digest(path, 1)  # Of the first digest, which is that of step 1000.
    return path


def test_stopped_replay_gives_no_verdict_even_on_a_wrong_record(long_run: Path) -> None:
    stop = threading.Event()
    stop.set()
    with pytest.raises(ReplayInterrupted, match="nothing was found out") as found:
        Run.open(long_run).verify(stop=stop)
    assert found.value.exit_code == 6
    assert found.value.step < 20000


@pytest.mark.parametrize(
    ("raised", "error"),
    [
        (KeyboardInterrupt(), ReplayInterrupted),
        (MemoryError(), MemoryError),
        (DistSGDError("a resource is gone"), DistSGDError),
    ],
    ids=["Ctrl-C", "memory", "resource"],
)
def test_what_breaks_a_replay_comes_out_as_what_it_is(
    long_run: Path, raised: BaseException, error: type[BaseException]
) -> None:
    seen: list[int] = []

    def look(now: Progress) -> None:
        seen.append(now.step)
        if len(seen) == 1:
            raise raised

    with pytest.raises((error, VerificationError)) as found:
        Run.open(long_run).verify(on_progress=look)
    assert found.type is error
    assert seen[0] < 20000


def test_replay_that_diverges_says_so_and_where(run: Path) -> None:
    file = run / "config.json"
    config = json.loads(file.read_text())
    config["optimizer"]["learning_rate"] = 1e30
    file.write_text(json.dumps(config))
    with pytest.raises(DivergedError, match="diverges here when it is computed again") as found:
        Run.open(run).verify()
    assert found.value.exit_code == 5
    assert found.value.step < STEPS


def test_replay_without_its_rows_is_no_verdict(run: Path) -> None:
    for file in (run / "data").glob("*.arrow"):
        file.unlink()
    with pytest.raises(DataError, match="holds the rows of this run no more"):
        Run.open(run).verify()


def test_replay_without_room_names_the_disk_and_the_way_out(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with files_of_at_most(2000), pytest.raises(DiskError, match="TMPDIR") as found:
        Run.open(run).verify()
    assert str(run) in found.value.reason
    assert list(tmp_path.iterdir()) == [run]
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    with pytest.raises(DiskError, match=r"nowhere.*TMPDIR") as found:
        Run.open(run).verify()
    assert found.value.exit_code == 4


def test_run_that_came_to_rest_is_replayed_to_its_rest(tmp_path: Path) -> None:
    at_rest = CONFIG.with_overrides(["train.stop_gradient_norm=1e9"])
    result = Trainer(at_rest, data=ROWS, run_dir=tmp_path / "run").fit()
    assert (result.metrics["stopped_by"], result.metrics["steps"]) == ("gradient", 1)
    assert Run.open(tmp_path / "run").verify().steps == 1


def test_objects_of_a_notebook_are_short(trained: Path) -> None:
    result = Trainer(CONFIG, data=ROWS, run_dir=trained).fit(resume="auto")
    assert isinstance(result, Run)
    saved = Run.open(trained)
    for one in (result, saved, saved.manifest, saved.checkpoint):
        assert type(one).__name__ in repr(one)
        assert len(repr(one)) < 500
    for words in ("status='done'", "steps=300", "2 arrays, 3 numbers", "300 rows", str(trained)):
        assert words in repr(result)
