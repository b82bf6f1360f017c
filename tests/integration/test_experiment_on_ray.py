"""Work of an experiment on a cluster of two nodes: as with processes, whoever dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from distsgd.config import TrainConfig
from distsgd.experiments.findings import Findings
from distsgd.experiments.plan import LearningKey
from distsgd.experiments.scale import Scale, read_plan
from tests.integration.program import wait_until
from tests.unit.experiments.rows import begun, but_for_times, config_of, write_rows

pytestmark = pytest.mark.timeout(240)

CLUSTER = """
import sys
from ray.cluster_utils import Cluster

small = {"include_dashboard": False, "object_store_memory": 80 * 1024 * 1024}
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, **small})
node = cluster.add_node(num_cpus=1, object_store_memory=80 * 1024 * 1024)
print(cluster.address, flush=True)
if sys.stdin.readline():
    cluster.remove_node(node, allow_graceful=False)
    print("removed", flush=True)
    sys.stdin.read()
cluster.shutdown()
"""


@dataclass(frozen=True)
class Nodes:
    """A cluster of two nodes with a CPU each, by its address."""

    address: str
    mark: str
    host: subprocess.Popen[str]

    def tasks(self) -> list[int]:
        """Processes that do a task now."""
        return [pid for pid, line in _marked(self.mark) if line.startswith(b"ray::do_task")]

    def remove_one(self) -> None:
        """End that which has no head, as a machine that fails."""
        assert self.host.stdin is not None
        assert self.host.stdout is not None
        print("remove", file=self.host.stdin, flush=True)
        assert self.host.stdout.readline() == "removed\n"


def _marked(mark: str) -> Iterator[tuple[int, bytes]]:
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (path / "environ").read_bytes():
                yield int(path.name), (path / "cmdline").read_bytes()
        except OSError:
            continue  # It has ended meanwhile.


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    """A cluster; it ends with its tests, and nothing of it is left."""
    with tempfile.TemporaryDirectory(prefix="dt", dir="/tmp") as short:
        process = subprocess.Popen(
            [sys.executable, "-c", CLUSTER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "TMPDIR": short, "RAY_AUTH_MODE": "disabled"},
        )
        try:
            assert process.stdout is not None
            yield Nodes(process.stdout.readline().strip(), short, process)
        finally:
            try:
                process.communicate("", timeout=60)
            finally:
                process.kill()


@pytest.fixture(autouse=True)
def _open_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")


WORKS = """
import os
import signal
import time
from pathlib import Path

from distsgd.errors import ConfigError


def finish(task, stop):
    print("a library says something")


def refuse(task, stop):
    raise ConfigError(["a is 1; must be 2"])


def fail(task, stop):
    raise ValueError(task["what"])


def die(task, stop):
    os.kill(os.getpid(), signal.SIGKILL)


def die_once(task, stop):
    try:
        Path(task["place"], "died").touch(exist_ok=False)
    except FileExistsError:
        return
    die(task, stop)


def wait(task, stop):
    Path(task["place"], "waits").touch()
    while not stop.is_asked:
        time.sleep(0.02)
    Path(task["place"], "was_asked").touch()
"""
DRIVER = """
import sys
from pathlib import Path

from distsgd.config import TrainConfig
from distsgd.errors import ClusterError
from distsgd.experiments.children import Work
from distsgd.experiments.cluster_tasks import run_all_of
from distsgd.experiments.plan import Piece
from distsgd.run.source import prepared_data

place, address = Path.cwd(), sys.argv[1]
config = TrainConfig.from_toml("digits.toml").with_overrides([f"parallel.address={address}"])
data = prepared_data(config, cache_dir=place / "cache", on_message=print)


def works(*names):
    task = {"place": str(place), "what": "no such thing"}
    return [Work(Piece("learning", 1, name), f"some_works:{name}", task) for name in names]


def waits():
    return (place / "waits").exists()


def interrupted():
    if waits():
        raise KeyboardInterrupt
    return False


def asked():
    (place / "was_asked").unlink()
    (place / "waits").unlink()


with run_all_of(config, place, data) as run_all:
    names = ["finish", "refuse", "fail", "die", "die_once", "absent"]
    done = run_all(works(*names), is_over=lambda: False)
    found = {it.piece.name: it.failure for it in done}
    assert (found["finish"], found["die_once"]) == ("", ""), found
    assert found["refuse"] == "a is 1; must be 2", found
    assert "ValueError: no such thing" in found["fail"], found
    assert "died 3 times" in found["die"] and "want of memory" in found["die"], found
    assert '"some_works:absent" cannot be found' in found["absent"], found
    assert sorted(found) == sorted(names), found

    assert list(run_all(works("wait"), is_over=waits)) == []
    asked()
    try:
        list(run_all(works("wait"), is_over=interrupted))
    except KeyboardInterrupt:
        asked()
    else:
        raise AssertionError("Ctrl-C was swallowed")

    manifest = data / "manifest.json"
    manifest.touch()
    try:
        list(run_all(works("finish"), is_over=lambda: False))
    except ClusterError as error:
        assert f"does not see {manifest}" in str(error), error
        assert "disk that all nodes share" in str(error), error
    else:
        raise AssertionError("the node's rows were taken for ours")
assert not list(place.glob("session-*"))
"""


def test_each_end_is_told_as_by_processes_and_each_stop_is_heard(place: Path, nodes: Nodes) -> None:
    (place / "some_works.py").write_text(WORKS)
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, nodes.address],
        cwd=place,
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    wait_until(lambda: not nodes.tasks(), 30, "tasks to end with their driver")


EXPERIMENT = """
import sys
from pathlib import Path
from distsgd.experiments.scale import Scale, read_plan

place = Path(sys.argv[1])
Scale(place, read_plan(place), place.parent / "cache", lambda _: None).run()
"""


@contextmanager
def experiment(directory: Path) -> Iterator[subprocess.Popen[bytes]]:
    """One that runs in a process of its own; killed at the end of the block."""
    with subprocess.Popen([sys.executable, "-c", EXPERIMENT, str(directory)]) as driver:
        try:
            yield driver
        finally:
            driver.kill()


def num_results(directory: Path) -> int:
    return len(list(directory.glob("learning/*/*/*/result.json")))


def found_by_processes(place: Path) -> Findings:
    directory, _ = begun(place, timed_s=0.05)
    return made(directory)


def made(directory: Path) -> Findings:
    return Scale(directory, read_plan(directory), directory.parent / "cache", lambda _: None).run()


def test_experiment_finds_on_nodes_what_processes_find_whoever_dies(
    tmp_path: Path, nodes: Nodes
) -> None:
    for name in ("processes", "tasks"):
        (tmp_path / name).mkdir()
    expected = found_by_processes(tmp_path / "processes")
    place = tmp_path / "tasks"
    config = on_cluster(config_of(write_rows(place)), nodes)
    directory, grid = begun(place, timed_s=0.05, config=config)

    with experiment(directory):
        wait_until(nodes.tasks, 60, "a task")
        for pid in nodes.tasks():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        wait_until(lambda: num_results(directory) >= 3, 60, "three runs")
    wait_until(lambda: not nodes.tasks(), 30, "tasks to end with their driver")
    before = num_results(directory)

    with experiment(directory) as driver:
        wait_until(lambda: num_results(directory) > before, 60, "another run")
        nodes.remove_one()
        assert driver.wait(120) == 0
    wait_until(lambda: not nodes.tasks(), 30, "tasks to end with their driver")

    found = made(directory)  # All is made.
    assert list(map(but_for_times, found.learning)) == list(map(but_for_times, expected.learning))
    assert (found.critical, found.fit) == (expected.critical, expected.fit)
    assert found.digests_equal
    key = LearningKey(4, found.learning[0].rate, grid.trial_seed)
    assert (directory / key.name / "config.json").is_file()
    assert not list(directory.glob("session-*"))


def on_cluster(config: TrainConfig, nodes: Nodes) -> TrainConfig:
    return config.with_overrides([f"parallel.address={nodes.address}"])
