"""The driver of a job: what is started again, and what is told to it."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from distsgd import __version__
from distsgd.errors import ClusterError
from distsgd.jobs.drive import Driver, check_version, steady_path


def ends_with(*codes: int) -> list[str]:
    """A command whose calls, in this directory, end with `codes`, one after the other."""
    code = f"""
    import os, pathlib
    mark = pathlib.Path("calls")
    calls = len(mark.read_text()) if mark.exists() else 0
    mark.write_text("x" * (calls + 1))
    code = {codes}[calls]
    if code < 0:
        os.kill(os.getpid(), -code)
    raise SystemExit(code)
    """
    return [sys.executable, "-S", "-c", textwrap.dedent(code)]


@pytest.mark.parametrize(
    ("codes", "retries", "code", "calls"),
    [
        ((0,), 3, 0, 1),
        ((4, 0), 3, 0, 2),
        ((-9, 4, 0), 2, 0, 3),
        ((4, 4), 1, 4, 2),
        ((4,), 0, 4, 1),
        ((2,), 3, 2, 1),
        ((3,), 3, 3, 1),
        ((5,), 3, 5, 1),
        ((6,), 3, 6, 1),
        ((1,), 3, 1, 1),
    ],
)
def test_what_the_cluster_may_mend_is_started_again(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    codes: tuple[int, ...],
    retries: int,
    code: int,
    calls: int,
) -> None:
    monkeypatch.chdir(tmp_path)
    said: list[str] = []
    begun: list[None] = []
    driver = Driver(
        ends_with(*codes),
        retries=retries,
        say=said.append,
        pause_s=0.0,
        prepare=lambda: begun.append(None),
    )
    assert driver.run() == code
    assert len(begun) == calls
    assert len(Path("calls").read_text()) == calls
    assert len(said) == calls - 1
    assert all("starting it again" in text for text in said)


def test_driver_that_is_killed_every_time_is_given_up_with_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    driver = Driver(ends_with(-9, -9), retries=1, say=lambda _: None)
    with pytest.raises(ClusterError, match=r"by SIGKILL, and it was started 2 times.*submit"):
        driver.run()


CHILD = """
import signal, sys, time
def stop(number, frame):
    print("asked by", signal.Signals(number).name, flush=True)
    sys.exit(6)
signal.signal(signal.SIGHUP, stop)
print("runs", flush=True)
time.sleep(60)
"""
PARENT = f"""
import sys
from distsgd.jobs.drive import Driver
sys.exit(Driver([sys.executable, "-c", {CHILD!r}], retries=3, say=print, pass_on_s=0.0).run())
"""


def test_wish_to_stop_is_passed_on_and_ends_it() -> None:
    process = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "runs\n"
        process.send_signal(signal.SIGTERM)
        assert process.communicate(timeout=20)[0] == "asked by SIGHUP\n"
        assert process.returncode == 6
    finally:
        process.kill()
        process.wait()


def test_directory_has_one_path_for_every_submission(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    paths = set()
    for package in ("first", "second"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "a.toml").write_text(package)
        monkeypatch.chdir(tmp_path / package)
        paths.add(steady_path("digits"))
        assert (steady_path("digits") / "a.toml").read_text() == package
    assert len(paths) == 1
    assert steady_path("others") not in paths


def test_another_version_than_the_one_that_submitted_is_refused() -> None:
    check_version(__version__)
    with pytest.raises(ClusterError, match=r"with distsgd 0\.0\.1, but its node has"):
        check_version("0.0.1")
