"""Two hosts whose processors compute other bits: refused by name, or one run with portable ones."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.hosts import Host, Hosts, why_not
from tests.processors import needs_avx2

pytestmark = [
    pytest.mark.skipif(bool(why_not()), reason=why_not()),
    pytest.mark.timeout(240),
    needs_avx2,
]
RAY = str(Path(sys.executable).parent / "ray")
# Read by Python as it starts: here the second host has a kernel of its own, and the portable one.
OTHER_PROCESSOR = """
import os

if os.environ.get("OPENBLAS_CORETYPE") != "Haswell":
    os.environ["OPENBLAS_CORETYPE"] = "Sandybridge"
"""


@pytest.fixture
def hosts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hosts]:
    """Two, the first of them the head; both see a directory with the digits."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Nehalem")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    monkeypatch.chdir(tmp_path)
    subprocess.run([sys.executable, "-m", "distsgd", "init", "digits"], check=True)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "sitecustomize.py").write_text(OTHER_PROCESSOR)
    path = {"PYTHONPATH": os.pathsep.join([str(tmp_path / "other"), *sys.path])}
    with Hosts(2) as made:
        common = ["--num-cpus=2", "--object-store-memory=80000000", "--disable-usage-stats"]
        head, other = made
        own = [f"--node-ip-address={head.address}", "--include-dashboard=false", *common]
        head.run([RAY, "start", "--head", *own])
        own = [f"--node-ip-address={other.address}", *common]
        other.run([RAY, "start", f"--address={head.address}:6379", *own], env=path)
        yield made


def train(host: Host, run: str, *overrides: str) -> dict[str, Any]:
    words = ["train", "digits.toml", "--json", "--run-dir", run, "--set", "train.epochs=2"]
    words += [word for override in overrides for word in ("--set", override)]
    done = host.run([sys.executable, "-m", "distsgd", *words], check=False)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found | {"code": done.returncode, "said": done.stderr}


def test_hosts_with_other_bits_are_refused_by_name_and_are_one_when_portable(hosts: Hosts) -> None:
    head, other = hosts
    cluster = (f"parallel.address={head.address}:6379", "parallel.workers=3")
    several = (*cluster, "parallel.assignment=all")
    refused = train(head, "native", *several)
    assert refused["code"] == 4
    assert f"node {other.name} computes other bits than the process that" in refused["error"]
    assert "kernel Sandybridge" in refused["error"]
    assert 'set [train] numerics = "portable"' in refused["error"]
    portable = train(head, "portable", "train.numerics=portable", *several)
    assert (portable["code"], portable["num_workers"]) == (0, 3), portable["said"]
    alone = train(other, "alone", "train.numerics=portable", "parallel.workers=0")
    assert portable["weights_digest"] == alone["weights_digest"]
