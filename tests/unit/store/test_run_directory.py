import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from distsgd.errors import RunError
from distsgd.store import RunDirectory

HOLD_LOCK = """
import sys
from distsgd.store import RunDirectory
with RunDirectory.open(sys.argv[1]).lock(5.0):
    print("locked", flush=True)
    sys.stdin.read()
"""


def make_run(path: Path) -> RunDirectory:
    run = RunDirectory.create(path)
    run.write_json(run.config_path, {"seed": 0})
    return run


def test_run_directory_is_private_and_has_its_folders(tmp_path: Path) -> None:
    run = make_run(tmp_path / "runs" / "one")
    for directory in (run.path, run.checkpoints, run.history):
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert stat.S_IMODE(run.config_path.stat().st_mode) == 0o600
    assert RunDirectory.open(run.path) == run
    paths = [run.environment_path, run.model_path, run.result_path]
    paths += [run.evaluations_path, run.digests_path]
    assert len({path.relative_to(run.path) for path in paths}) == 5
    assert run.read_json(run.config_path) == {"seed": 0}


def test_run_directory_may_be_an_empty_one_or_the_rest_of_an_interrupted_creation(
    tmp_path: Path,
) -> None:
    tmp_path.chmod(0o755)
    run = RunDirectory.create(tmp_path)
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o700
    with run.lock(0.0):
        assert not RunDirectory.is_run(tmp_path)
    assert RunDirectory.create(tmp_path) == run


def test_create_refuses_a_run_a_file_and_foreign_content(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    with pytest.raises(RunError, match=r"holds a run already .*--resume auto"):
        RunDirectory.create(run.path)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(RunError, match="file: is a file; must be a directory"):
        RunDirectory.create(tmp_path / "file")
    with pytest.raises(RunError, match=r"holds \w+ and no config.json"):
        RunDirectory.create(tmp_path)


def test_create_refuses_checkpoints_without_a_configuration(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path)
    (run.checkpoints / "step-000000000001").mkdir()
    with pytest.raises(RunError, match=r"holds checkpoints and no config.json"):
        RunDirectory.create(tmp_path)


def test_open_refuses_what_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"holds no config.json, so it is no run"):
        RunDirectory.open(tmp_path)
    with pytest.raises(RunError, match="is no directory"):
        RunDirectory.open(tmp_path / "missing")


def test_lock_is_for_one_holder_and_names_it(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    with run.lock(0.0):
        holder = f"is in use by process {os.getpid()} on .*wait for it"
        with pytest.raises(RunError, match=holder), run.lock(0.0):
            pass
        assert (run.path / "lock").read_text().startswith(f"{os.getpid()} on ")
    assert (run.path / "lock").read_text() == ""
    with run.lock(0.0):
        pass


def test_lock_waits_until_its_time_is_over(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    now_s, naps_s = [100.0], []

    def nap(seconds: float) -> None:
        naps_s.append(seconds)
        now_s[0] += seconds

    waiting = run.lock(1.0, clock=lambda: now_s[0], sleep=nap)
    with run.lock(0.0), pytest.raises(RunError, match="is in use"), waiting:
        pass
    assert sum(naps_s) == pytest.approx(1.0)


def test_lock_is_free_again_when_its_holder_is_killed(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    with subprocess.Popen(
        [sys.executable, "-c", HOLD_LOCK, str(run.path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "locked\n"
        in_use = f"is in use by process {holder.pid} on "
        with pytest.raises(RunError, match=in_use), run.lock(0.0):
            pass
        # A prompt resume: it is already waiting when the holder dies.
        with run.lock(30.0, sleep=lambda _: holder.kill()):
            assert (run.path / "lock").read_text().startswith(f"{os.getpid()} on ")


def test_lock_clears_away_what_an_interrupted_write_left(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    for directory in (run.path, run.history):
        (directory / ".staging-result.json-12ab").write_bytes(b"{")
    with run.lock(0.0):
        assert not list(run.path.glob("**/.staging-*"))
