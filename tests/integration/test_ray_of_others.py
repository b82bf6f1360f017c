"""Runs beside, before, after and on a Ray that is not the run's own.

Each test starts processes of its own, since a process has one Ray at a time.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.program import Program, digest_alone, settings

pytestmark = pytest.mark.timeout(240)

NOTEBOOK = """
import logging
import os
import shutil

import ray  # First, with its own settings.
from distsgd import TrainConfig, Trainer
from distsgd.errors import ClusterError

CONFIG = TrainConfig.from_toml("digits.toml").with_overrides(["parallel.assignment=all"])
digests = set()


def fit(workers, address):
    pairs = [f"parallel.workers={workers}", f'parallel.address="{address}"']
    trained = Trainer(CONFIG.with_overrides(pairs)).fit()
    assert trained.metrics["num_workers"] == workers
    digests.add(trained.metrics["weights_digest"])


def start_my_own():
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    assert answer() == 42


def answer():
    return ray.get(ray.remote(num_cpus=0)(lambda: 42).remote(), timeout=60)


def state():
    variables = {name: value for name, value in os.environ.items() if name.startswith("RAY_")}
    return variables, list(logging.getLogger("ray").handlers)


before = state()
fit(2, "local")
assert state() == before, state()
start_my_own()
try:
    fit(2, "local")
except ClusterError as error:
    assert 'set address = "auto"' in str(error), error
    assert "ray.shutdown()" in str(error), error
else:
    raise AssertionError("trained on a Ray that was not wanted")
fit(2, "auto")  # Two CPUs: the server takes none.
port = ray.get_runtime_context().gcs_address.rpartition(":")[2]
fit(1, f"localhost:{port}")  # By another name.
assert answer() == 42
ray.shutdown()
fit(1, "local")
assert len(digests) == 1, digests
shutil.rmtree(os.path.join(os.environ["TMPDIR"], "ray"))  # Ray leaves that of one's own.
"""


def test_ray_of_a_notebook_is_as_it_was_before_and_after_runs(place: Path) -> None:
    done = run_script(NOTEBOOK, place)
    assert done.returncode == 0, done.stderr


# A cluster of two nodes whose head has room for one process: workers that came first would take it.
CLUSTER = """
import sys
import ray
from ray.cluster_utils import Cluster

small = {"include_dashboard": False, "object_store_memory": 80 * 1024 * 1024}
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, **small})
cluster.add_node(num_cpus=2, object_store_memory=80 * 1024 * 1024)
print(cluster.address, cluster.head_node.node_manager_port, flush=True)
sys.stdin.read()
cluster.shutdown()
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[tuple[str, int]]:
    """A cluster's address, and a port of it where another service of Ray's listens."""
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
            address, port = process.stdout.readline().split()
            yield address, int(port)
        finally:
            try:
                process.communicate("", timeout=60)
            finally:
                process.kill()


def run_script(code: str, place: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=place,
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )


def test_cluster_has_its_server_first_and_trains_to_the_same_bits(
    place: Path, cluster: tuple[str, int]
) -> None:
    alone = digest_alone(place, "parallel.assignment=all")
    on_it = settings(f'parallel.address="{cluster[0]}"', "parallel.assignment=all")
    for workers in ("2", "3"):  # Three CPUs: room for a server too, or for none.
        code, found, said = Program(place, "--workers", workers, *on_it).result()
        assert code == 0, said
        assert found["weights_digest"] == alone
        assert "wait for room" not in said


FAILURES = """
import sys
from pathlib import Path

from distsgd.errors import ClusterError, ConfigError, DistSGDError
from distsgd.config import TrainConfig
from distsgd.parallel.launch.session.address import check_address
from distsgd.parallel.launch.supervisor.on_ray import train_on_ray
from distsgd.parallel.launch.nodes.placement import Placement
from tests.integration.pools import server_spec

config = TrainConfig.from_toml("digits.toml").with_overrides(["parallel.workers=2"])


def error_of(worker):
    spec = server_spec(config, Path.cwd() / worker.partition(":")[2], cache_dir=Path.cwd())
    try:
        train_on_ray(spec, worker, lambda _: False, placement=Placement(sys.argv[1]))
    except DistSGDError as error:
        return error
    raise AssertionError(f"{worker} trained")


found = error_of("bad_workers:CannotBeMade")
assert "worker " in str(found) and "on node" in str(found), found
assert "OSError: no such device" in str(found), found
found = error_of("bad_workers:Exits")
assert "SystemExit: the licence has expired" in str(found), found
found = error_of("bad_workers:Dies")
assert "cannot be started: its process died 3 times" in str(found), found
found = error_of("bad_workers:SpoilsTheServer")
assert type(found) is ConfigError, found
assert "SpoilsTheServer" in str(found) and "ValueError: 42 is no device" in str(found), found
found = error_of("bad_workers:NotThere")
assert "NotThere" in str(found), found

try:
    check_address(sys.argv[2], stage_s=2.0)
except ClusterError as error:
    assert "does not answer as Ray does" in str(error), error
else:
    raise AssertionError("another service was taken for the cluster's head")
"""

BAD_WORKERS = """
import os
import sys
from pathlib import Path

from distsgd_workers.gradient_worker import GradientWorker


def is_in_worker():
    return b"WorkerActor" in Path("/proc/self/cmdline").read_bytes()


class CannotBeMade(GradientWorker):
    def __init__(self, spec):
        if is_in_worker():
            raise OSError("no such device")
        super().__init__(spec)


class Exits(GradientWorker):
    def __init__(self, spec):
        if is_in_worker():
            sys.exit("the licence has expired")
        super().__init__(spec)


class Dies(GradientWorker):
    def __init__(self, spec):
        if is_in_worker():
            os._exit(9)
        super().__init__(spec)


class SpoilsTheServer(GradientWorker):
    def __init__(self, spec):
        raise ValueError("42 is no device")
"""


def test_reason_why_a_process_cannot_start_is_told_within_seconds(
    place: Path, cluster: tuple[str, int]
) -> None:
    (place / "bad_workers.py").write_text(BAD_WORKERS)
    address, other_port = cluster
    other = f"{address.rpartition(':')[0]}:{other_port}"
    done = run_script(FAILURES, place, address, other)
    assert done.returncode == 0, done.stderr


UNDER_OO = """
from distsgd import TrainConfig, Trainer

config = TrainConfig.from_toml("digits.toml").with_overrides(
    ["parallel.assignment=all", "parallel.workers=1"]
)
print(Trainer(config).fit().metrics["weights_digest"])
"""


def test_interpreter_without_docstrings_trains(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = digest_alone(place, "parallel.assignment=all")
    monkeypatch.setenv("PYTHONOPTIMIZE", "2")
    done = run_script(UNDER_OO, place)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == alone
