"""The head's host dies in the middle of a run: last words in time, a checkpoint, the same bits."""

from __future__ import annotations

import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.clusters import (
    NEEDS_HOSTS,
    cluster_of,
    ended,
    prepare_place,
    said_until,
    started,
)
from tests.cluster.hosts import Hosts

pytestmark = [*NEEDS_HOSTS, pytest.mark.long]
TRAIN = ["train", "digits.toml", "--set", "schedule.type=constant", "--json"]
TRAIN += ["--set", "parallel.assignment=all", "--set", "train.epochs=1000000"]


@pytest.fixture
def hosts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hosts]:
    """Two, the first of them the head of a cluster."""
    prepare_place(tmp_path, monkeypatch)
    yield from cluster_of(2, 2)


def test_head_that_dies_in_mid_run_is_named_before_ray_ends_the_process(hosts: Hosts) -> None:
    on_it = ["--workers", "2", "--set", "parallel.address=auto", "--run-dir", "run"]
    process = started(hosts[1], *TRAIN, *on_it)
    said_until(process, "step ")
    hosts[0].kill()
    begun = time.monotonic()
    found = ended(process)
    assert time.monotonic() - begun < 50
    said = found["said"]
    assert found["code"] == 4, said
    assert (found["status"], found["exit_code"]) == ("failed", 4)
    assert Path(found["run"]).name == "run"
    last = said.strip().splitlines()[-1]
    assert "has not answered for" in last, said
    assert f"stopped after step {found['steps']}, with a checkpoint" in last
    command = shlex.split(last.rpartition("resume with: ")[2])
    assert command[-2:] == ["--resume", "auto"]
    words = [word if word != "2" else "0" for word in command[1:]]
    resumed = subprocess.Popen(
        [sys.executable, "-m", "distsgd", *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    with resumed:
        said_until(resumed, f"continuing after step {found['steps']}")
        resumed.kill()
    alone = ["--workers", "0", "--run-dir", "alone", "--set", f"train.steps={found['steps']}"]
    again = ended(started(hosts[1], *TRAIN, *alone))
    assert again["code"] == 0, again["said"]
    assert again["weights_digest"] == found["weights_digest"]
