"""The directory in which a process has a run on object storage, and what is left of it."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from distsgd.base.locations import Location
from distsgd.store.run_directory import RunDirectory
from distsgd.store.working_copy import WorkingCopy

HOLDS_ONE = """
import sys
from distsgd.base.locations import Location
from distsgd.store.working_copy import WorkingCopy
copy = WorkingCopy(Location(sys.argv[1]))
copy.fetch()
print(copy.path, flush=True)
sys.stdin.read()
"""


@contextmanager
def process_with_a_copy(run: Location) -> Iterator[tuple[Path, subprocess.Popen[str]]]:
    """A process that has a working copy until it is killed, and where that is."""
    command = [sys.executable, "-W", "error", "-c", HOLDS_ONE, str(run)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            yield Path(process.stdout.readline().strip()), process
        finally:
            process.kill()


@pytest.fixture
def run(bucket: Location, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Location:
    """A run; temporary files of this process and of those that it starts lie in `tmp_path`."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    made = RunDirectory.create(bucket / "runs" / "lock")
    made.write_json(made.config_path, {})
    made.begin()
    return bucket / "runs" / "lock"


def test_copy_of_a_killed_process_is_removed_by_the_next_and_that_of_a_living_one_is_not(
    run: Location, tmp_path: Path
) -> None:
    with process_with_a_copy(run) as (left, killed), process_with_a_copy(run) as (kept, _):
        killed.kill()
        killed.wait(30)
        assert (left / "config.json").exists()
        mine = WorkingCopy(run)
        assert not left.exists()
        assert (kept / "config.json").exists()
        mine.fetch()
        assert len(list(tmp_path.iterdir())) == 2
        mine.remove()
        assert len(list(tmp_path.iterdir())) == 1


def test_whether_there_is_a_run_takes_no_directory(run: Location, tmp_path: Path) -> None:
    before = list(tmp_path.iterdir())
    assert RunDirectory.is_run(run)
    assert list(tmp_path.iterdir()) == before
