"""A cluster on this machine, with a token: who may use it, who asks for runs, how these end."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import distsgd
from tests.integration.program import Program, digest_alone, settings, wait_until

pytestmark = pytest.mark.timeout(240)
RAY = str(Path(sys.executable).parent / "ray")
TOKEN, OTHER_TOKEN = secrets.token_hex(32), secrets.token_hex(32)
NICENESS = 3
ENDLESS = settings("train.epochs=1000000", "schedule.type=constant", "parallel.assignment=all")


@contextlib.contextmanager
def node(short: str, *options: str, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """A node of Ray's that ends with the block, and nothing of another Ray."""
    common = ["--block", "--disable-usage-stats", "--object-store-memory=80000000"]
    known = {"TMPDIR": short, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN}
    with subprocess.Popen(
        [RAY, "start", *common, *options],
        env={**os.environ, **known, "RAY_worker_niceness": str(NICENESS), **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A head with three CPUs."""
    with tempfile.TemporaryDirectory(prefix="dt", dir="/tmp") as short:
        own = ["--head", "--port=0", "--num-cpus=3", "--include-dashboard=false"]
        with node(short, *own, f"--temp-dir={short}"):
            file = Path(short) / "ray_current_cluster"
            wait_until(file.is_file, 60, "the head to start")
            yield file.read_text().strip()


@pytest.fixture
def token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)


def asked(*words: str, cwd: Path) -> tuple[int, dict[str, Any], str]:
    """Exit code, the object of the last line, what else was said."""
    command = [sys.executable, "-m", "distsgd", *words, "--json"]
    done = subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, check=False, timeout=100
    )
    lines = done.stdout.strip().splitlines()
    assert "Traceback" not in done.stderr
    return done.returncode, json.loads(lines[-1]) if lines else {}, done.stderr


@pytest.mark.parametrize("given", ["", OTHER_TOKEN], ids=["none", "another"])
def test_missing_and_wrong_tokens_are_named_within_seconds(
    place: Path, address: str, monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "token" if given else "disabled")
    monkeypatch.setenv("RAY_AUTH_TOKEN", given)
    begun = time.monotonic()
    on_it = settings(f'parallel.address="{address}"')
    code, found, said = asked("train", "digits.toml", "--workers", "1", *on_it, cwd=place)
    assert time.monotonic() - begun < 15
    assert code == found["exit_code"] == 4
    assert "refuses this process; set RAY_AUTH_MODE and RAY_AUTH_TOKEN" in said


@pytest.mark.usefixtures("token")
def test_run_is_seen_scaled_and_stopped_from_elsewhere(
    place: Path, address: str, tmp_path: Path
) -> None:
    on_it = settings(f'parallel.address="{address}"')
    program = Program(place, "--workers", "1", "--run-dir", "a run", *on_it, *ENDLESS)
    program.wait_for_words("step ")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    code, found, said = asked("status", "a run", "--address", address, cwd=elsewhere)
    assert code == 0, said
    assert found["run"] == str(place / "a run")
    assert found["status"] in ("training", "evaluating", "saving")
    assert found["step"] > 0
    assert list(found["nodes"].values()) == [[0]]
    _, here, _ = asked("status", "a run", cwd=place)
    assert here.keys() == found.keys()
    assert here["nodes"] == found["nodes"]
    code, _, said = asked("status", "another", "--address", address, cwd=elsewhere)
    assert code == 2
    assert "is not being trained on the cluster" in said
    assert "a run" in said
    assert asked("scale-to", "a run", "2", "--address", address, cwd=elsewhere)[0] == 0
    program.wait_for_words("worker 1 has joined")
    code, found, said = asked("scale-to", "a run", "99", "--address", address, cwd=elsewhere)
    assert (code, found["before"]) == (0, 2), said
    assert found["no_room"].startswith("97 workers need 97 CPU; there are ")
    assert found["no_room"] in said
    _, here, _ = asked("status", "a run", "--address", address, cwd=elsewhere)
    assert (here["num_workers"], here["wanted_workers"]) == (2, 99)
    assert here["no_room"] == found["no_room"]
    code, found, said = asked("stop", "a run", "--address", address, cwd=elsewhere)
    assert (code, found["status"]) == (0, "interrupted"), said
    code, result, said = program.result()
    assert (code, result["status"]) == (6, "interrupted"), said
    assert result["steps"] >= found["step"]  # That was seen last.
    assert asked("status", "a run", cwd=place)[1]["step"] == result["steps"]


@pytest.mark.usefixtures("token")
def test_deaths_are_told_with_process_and_node(place: Path, address: str) -> None:
    on_it = settings(f'parallel.address="{address}"')
    program = Program(place, "--workers", "1", "--run-dir", "run", *on_it, *ENDLESS)
    program.wait_for_words("step ")
    # They are the cluster's processes, not the program's.
    for name, words in (
        ("WorkerActor", "worker 0 died on node"),
        ("ServerActor", "the server died"),
    ):
        (pid,) = actors(name)
        os.kill(pid, signal.SIGKILL)
        program.wait_for_words(words)
        assert f"process {pid} ended without a word: killed for want of memory" in program.heard
    assert asked("stop", "run", cwd=place)[0] == 0
    assert program.result()[0] == 6


def actors(name: str) -> list[int]:
    """Actors of the cluster."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            is_named = (path / "cmdline").read_bytes().startswith(f"ray::{name}".encode())
            if is_named and TOKEN.encode() in (path / "environ").read_bytes():
                found.append(int(path.name))
    return found


@pytest.mark.usefixtures("token")
def test_entry_point_of_a_job_trains_on_its_cluster_or_on_a_ray_of_its_own(
    place: Path, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = digest_alone(place, "train.epochs=2")
    monkeypatch.setenv("RAY_ADDRESS", address)
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", '{"runtime_env": {"working_dir": "gcs://x"}}')
    for own in ([], ["parallel.address=local"]):
        words = settings("train.epochs=2", *own)
        if not own:
            monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
        code, found, said = Program(place, "--workers", "1", *words).result()
        assert code == 0, said
        assert f"on Ray ({'local' if own else 'auto'})" in said
        assert found["weights_digest"] == alone


@pytest.mark.usefixtures("token")
def test_doctor_says_what_is_on_each_node(place: Path, address: str) -> None:
    code, found, said = asked("doctor", "--address", address, cwd=place)
    assert code == 0, said
    (only,) = found["facts"]["nodes"]
    assert (only["cpus"], only["niceness"], only["error"]) == (3, NICENESS, None)
    assert only["distsgd"] == distsgd.__version__
    assert found["facts"]["can_train_together"] == [[only["name"]]]
    assert any("RAY_worker_niceness=0" in advice for advice in found["advice"])


@pytest.mark.usefixtures("token")
def test_node_with_another_version_is_named_before_a_step(
    place: Path, address: str, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    ours = Path(distsgd.__file__).parent
    shutil.copytree(ours, other / "distsgd", ignore=shutil.ignore_patterns("__pycache__"))
    init = other / "distsgd" / "__init__.py"
    text = init.read_text()
    assert distsgd.__version__ in text
    init.write_text(text.replace(distsgd.__version__, "9.9.9"))
    with tempfile.TemporaryDirectory(prefix="dt", dir="/tmp") as short:
        own = [f"--address={address}", "--num-cpus=1"]
        with node(short, *own, PYTHONPATH=str(other)):
            wait_until(lambda: num_nodes(address, place) == 2, 60, "the second node to join")
            on_it = settings(f'parallel.address="{address}"')
            code, found, said = asked("train", "digits.toml", "--workers", "1", *on_it, cwd=place)
            assert code == found["exit_code"] == 4, said
            assert f"has distsgd 9.9.9, this process {distsgd.__version__}" in said
            assert "step " not in said


def num_nodes(address: str, place: Path) -> int:
    return len(asked("doctor", "--address", address, cwd=place)[1]["facts"]["nodes"])
