"""The number of workers as the one who types it wants it, in the run directory."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from distsgd.errors import RunError
from distsgd.parallel.launch.actors.desired_workers import (
    FILE,
    DesiredWorkers,
    forget_drivers,
    sees_driver,
)


def test_wish_is_seen_once_and_file_is_private(tmp_path: Path) -> None:
    driver, other = DesiredWorkers(tmp_path), DesiredWorkers(tmp_path)
    driver.begin(2)
    assert stat.S_IMODE((tmp_path / FILE).stat().st_mode) == 0o600
    assert driver.changed() is None
    assert other.ask(5) == 2
    assert driver.changed() == 5
    assert driver.changed() is None
    assert other.ask(0) == 5
    assert driver.changed() == 0
    driver.end()
    assert driver.changed() is None
    with pytest.raises(RunError, match="is not being trained"):
        other.ask(1)


@pytest.mark.parametrize("count", [-1, 4097])
def test_wish_out_of_bounds_is_refused(tmp_path: Path, count: int) -> None:
    DesiredWorkers(tmp_path).begin(2)
    with pytest.raises(RunError, match="must be 0 to 4096"):
        DesiredWorkers(tmp_path).ask(count)


def test_wish_of_a_run_whose_driver_died_is_refused(tmp_path: Path) -> None:
    DesiredWorkers(tmp_path).begin(2)
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    found = json.loads((tmp_path / FILE).read_text())
    for driver in (found["driver"] | {"pid": ended.pid}, {"pid": os.getpid(), "host": "?"}, None):
        (tmp_path / FILE).write_text(json.dumps(found | {"driver": driver}))
        with pytest.raises(RunError, match="no driver on this machine"):
            DesiredWorkers(tmp_path).ask(3)


@pytest.mark.parametrize(
    "text", ["{", '{"wanted": "3"}', '{"wanted": 5000}', "[]", '{"wanted":true}']
)
def test_damaged_wish_is_named(tmp_path: Path, text: str) -> None:
    desired = DesiredWorkers(tmp_path)
    desired.begin(1)
    (tmp_path / FILE).write_text(text)
    with pytest.raises(RunError, match=FILE):
        desired.changed()
    assert desired.changed() is None


def test_driver_is_seen_until_it_ends_whatever_another_does(tmp_path: Path) -> None:
    first, second = DesiredWorkers(tmp_path), DesiredWorkers(tmp_path)
    first.begin(2, "one")
    assert sees_driver(tmp_path, "one")
    second.begin(3, "two")
    assert sees_driver(tmp_path, "one")
    second.end()
    assert sees_driver(tmp_path, "one")
    assert not sees_driver(tmp_path, "two")
    first.end()
    assert list(tmp_path.iterdir()) == []


def test_driver_that_ends_leaves_what_is_anothers(tmp_path: Path) -> None:
    first, second = DesiredWorkers(tmp_path), DesiredWorkers(tmp_path)
    DesiredWorkers(tmp_path).end()
    first.begin(2, "one")
    second.begin(3, "two")
    first.end()
    assert second.ask(4) == 3
    assert second.changed() == 4


def test_number_that_a_server_was_asked_for_is_wanted_also_where_the_file_is_gone(
    tmp_path: Path,
) -> None:
    driver = DesiredWorkers(tmp_path)
    driver.begin(2, "one")
    (tmp_path / FILE).unlink()
    driver.want(5)
    assert driver.changed() == 5


def test_what_killed_drivers_left_is_removed(tmp_path: Path) -> None:
    for session in ("one", "two"):
        DesiredWorkers(tmp_path).begin(2, session)
    (tmp_path / "config.json").touch()
    forget_drivers(tmp_path)
    assert [it.name for it in tmp_path.iterdir()] == ["config.json"]
