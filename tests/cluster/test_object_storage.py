"""Hosts that share no cache, with data and runs on object storage: any of them goes on with a run.

One cluster for all: the head has no CPUs, so the driver of a job is where no worker can be.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.clusters import (
    NEEDS_HOSTS,
    ended,
    prepare_place,
    said_until,
    start_ray,
    started,
    train,
    training,
)
from tests.cluster.hosts import Host, Hosts
from tests.integration.program import wait_until
from tests.storage.server import moto_server

pytestmark = NEEDS_HOSTS
PORT = 5555
SERVE = f"""
import time
from moto.server import ThreadedMotoServer
ThreadedMotoServer(ip_address="0.0.0.0", port={PORT}, verbose=False).start()
time.sleep(600)
"""
# Of the program's own bucket, once the server answers.
MAKE_BUCKET = """
import os
from pyarrow import fs
fs.S3FileSystem(
    endpoint_override=os.environ["AWS_ENDPOINT_URL"], allow_bucket_creation=True
).create_dir("bucket")
"""
DATA = "data.path=s3://bucket/digits"
AUTO = ("parallel.address=auto", "parallel.assignment=all")
# Small steps, which take several times as long on the cluster as alone, and often a checkpoint.
LENGTH = (
    "batch.size=16",
    "optimizer.learning_rate=0.01",
    "train.epochs=1000",
    "train.evaluate_every_epochs=200",
    "train.digest_every=10000",
    "checkpoint.every_s=1",
)


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    """The head, with an S3 server; two nodes; one that has not joined. Each has its own cache."""
    moto_server()
    place = tmp_path_factory.mktemp("shared")
    with pytest.MonkeyPatch.context() as patch, Hosts(4) as made:
        prepare_place(place, patch)
        for name, value in {
            "AWS_ENDPOINT_URL": f"http://{made[0].address}:{PORT}",
            "AWS_ACCESS_KEY_ID": "AKIAOFATEST",
            "AWS_SECRET_ACCESS_KEY": "never-to-be-seen",
            "AWS_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }.items():
            patch.setenv(name, value)
        patch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)  # Of jobs.
        (place / "home" / ".cache").mkdir(parents=True)
        for host in list(made)[1:]:
            host.hide(place / "home" / ".cache")
        server = made[0].popen([sys.executable, "-c", SERVE], stderr=subprocess.DEVNULL)
        for number, num_cpus in enumerate((0, 2, 2)):
            start_ray(made[number], made[0], num_cpus=num_cpus, takes_jobs=True)
        made[0].run([sys.executable, "-c", MAKE_BUCKET])
        words = ["data", "prepare", "digits.parquet", "--label", "digit", "--test-fraction", "0.2"]
        made[0].run([sys.executable, "-m", "distsgd", *words, "--out", "s3://bucket/digits"])
        yield made
        server.kill()  # What it has started ends with its host.
        server.wait(10.0)


@pytest.fixture(scope="module")
def digest_alone(hosts: Hosts) -> str:
    return digest_of(train(hosts[0], "alone", "parallel.workers=0"))


@pytest.fixture(scope="module")
def long_digest_alone(hosts: Hosts) -> str:
    return digest_of(train(hosts[0], "long", *LENGTH, "parallel.workers=0"))


def digest_of(found: dict[str, Any]) -> str:
    assert found["code"] == 0, found
    return str(found["weights_digest"])


def begun(host: Host, run: str, *words: str) -> subprocess.Popen[str]:
    """A long run, begun or gone on with."""
    return training(host, run, "--resume=auto", DATA, *LENGTH, *words)


def shown(host: Host, run: str) -> dict[str, Any]:
    """What ``show`` on `host` says; empty where there is no run."""
    words = [sys.executable, "-m", "distsgd", "show", run, "--json"]
    found: dict[str, Any] = json.loads(host.run(words, check=False).stdout)
    return found


def digest_shown(host: Host, run: str) -> str:
    """Of a run that is done."""
    found = shown(host, run)
    assert found["status"] == "done", found
    return str(found["result"]["weights_digest"])


def cached_on(host: Host) -> str:
    """What lies in the cache of a host."""
    return str(host.run([sys.executable, "-m", "distsgd", "cache", "list", "--json"]).stdout)


def test_data_and_run_on_storage_have_the_bits_of_one_and_are_read_from_any_host(
    hosts: Hosts, digest_alone: str
) -> None:
    run = "s3://bucket/runs/several"
    several = train(hosts[0], run, DATA, *AUTO, "parallel.workers=3")
    assert digest_of(several) == digest_alone
    assert several["num_workers"] == 3
    for host in (hosts[1], hosts[2]):  # Workers were on both.
        assert "s3://bucket/digits/train-00000.arrow" in cached_on(host)
    assert digest_shown(hosts[2], run) == digest_alone


def test_job_on_a_head_without_cpus_ends_done_with_the_same_bits(
    hosts: Hosts, digest_alone: str
) -> None:
    run = "s3://bucket/runs/job"
    words = ["job", "submit", "digits.toml", "--name=a", "--workers=3", "--follow", "--json"]
    where = [f"--address=http://{hosts[0].address}:8265", f"--run-dir={run}"]
    found = ended(started(hosts[2], *words, *where, f"--set={DATA}", "--set=train.epochs=2"))
    assert found["code"] == 0, found
    assert digest_shown(hosts[1], run) == digest_alone


def test_of_two_drivers_on_two_hosts_the_second_is_refused_and_wins_when_told_to(
    hosts: Hosts, long_digest_alone: str
) -> None:
    run = "s3://bucket/runs/two"
    first = begun(hosts[0], run, *AUTO, "parallel.workers=2")
    said_until(first, "worker 1 has joined")
    refused = ended(begun(hosts[2], run, "parallel.workers=0"))
    assert refused["code"] == 2
    assert f"{run}: is in use by process" in refused["error"]
    won = begun(hosts[2], run, "parallel.workers=0", "--take-over")
    lost = ended(first)
    assert lost["code"] == 2, lost
    # The winner may be through before the loser looks who it is.
    winner = f"(on {hosts[2].name}|another, which has ended since,)"
    assert re.search(f"{winner} has taken it over; nothing more is written", lost["error"])
    assert digest_of(ended(won)) == long_digest_alone
    assert digest_shown(hosts[1], run) == long_digest_alone


@pytest.mark.long
def test_run_of_a_host_that_died_is_gone_on_with_from_another(
    hosts: Hosts, long_digest_alone: str
) -> None:
    run = "s3://bucket/runs/died"
    start_ray(hosts[3], hosts[0], num_cpus=1)
    first = begun(hosts[3], run, *AUTO, "parallel.workers=2", "checkpoint.every_s=1")
    wait_until(lambda: shown(hosts[2], run).get("checkpoints"), 60, "a checkpoint")
    hosts[3].kill()
    with first:  # What it holds is closed.
        first.wait(20)
    again = begun(hosts[1], run, *AUTO, "parallel.workers=2")
    said_until(again, "continuing after step")
    assert digest_of(ended(again)) == long_digest_alone


def test_cache_at_an_address_serves_hosts_that_share_no_disk(hosts: Hosts) -> None:
    # Other rows in the shards, or a host has them from before, by their checksum.
    words = ("data.split_seed=1", *AUTO, "parallel.workers=3")
    several = train(hosts[0], "cached", *words, "--cache-dir=s3://bucket/cache")
    assert (several["code"], several["num_workers"]) == (0, 3), several["said"]
    assert "s3://bucket/cache/" in cached_on(hosts[1])


def test_host_without_the_prepared_data_says_what_to_share(hosts: Hosts) -> None:
    missing = train(hosts[0], "missing", *AUTO, "parallel.workers=3")
    assert missing["seconds_taken"] < 60.0
    assert missing["code"] == 3, missing
    assert f"is not on node {hosts[1].name[:-1]}" in missing["error"]  # One of the two.
    assert "; prepare it to an address" in missing["error"]
