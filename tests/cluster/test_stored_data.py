"""Two hosts that share no cache: data on object storage, and what is said where it is not there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.hosts import Hosts, why_not

pytestmark = [
    pytest.mark.skipif(bool(why_not()), reason=why_not()),
    pytest.mark.timeout(240),
]
RAY = str(Path(sys.executable).parent / "ray")
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


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    """The first is the head, with an S3 server; each has a cache directory of its own."""
    pytest.importorskip("moto.server")
    place = tmp_path_factory.mktemp("shared")
    with pytest.MonkeyPatch.context() as patch, Hosts(2) as made:
        head, other = made
        patch.delenv("RAY_ADDRESS", raising=False)
        patch.delenv("XDG_CACHE_HOME", raising=False)
        for name, value in {
            "HOME": str(place),
            "RAY_AUTH_MODE": "disabled",
            "PYTHONPATH": os.pathsep.join(sys.path),
            "AWS_ENDPOINT_URL": f"http://{head.address}:{PORT}",
            "AWS_ACCESS_KEY_ID": "AKIAOFATEST",
            "AWS_SECRET_ACCESS_KEY": "never-to-be-seen",
            "AWS_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }.items():
            patch.setenv(name, value)
        patch.chdir(place)
        subprocess.run([sys.executable, "-m", "distsgd", "init", "digits"], check=True)
        (place / ".cache").mkdir()
        other.hide(place / ".cache")
        server = head.popen([sys.executable, "-c", SERVE])
        common = ["--num-cpus=2", "--object-store-memory=80000000", "--disable-usage-stats"]
        own = [f"--node-ip-address={head.address}", "--include-dashboard=false", *common]
        head.run([RAY, "start", "--head", *own])
        own = [f"--node-ip-address={other.address}", *common]
        other.run([RAY, "start", f"--address={head.address}:6379", *own])
        head.run([sys.executable, "-c", MAKE_BUCKET])
        yield made
        server.kill()  # What it has started ends with its host.
        server.wait(10.0)


def train(hosts: Hosts, run: str, *overrides: str, cache: str = "") -> dict[str, Any]:
    words = ["train", "digits.toml", "--json", "--run-dir", run, "--set", "train.epochs=2"]
    words += [word for override in overrides for word in ("--set", override)]
    words += ["--cache-dir", cache] if cache else []
    done = hosts[0].run([sys.executable, "-m", "distsgd", *words], check=False)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found | {"code": done.returncode, "said": done.stderr}


def on_all(hosts: Hosts) -> tuple[str, ...]:
    cluster = f"parallel.address={hosts[0].address}:6379"
    return cluster, "parallel.workers=3", "parallel.assignment=all"


def cached_on(hosts: Hosts, number: int) -> str:
    """What lies in the cache of a host."""
    words = [sys.executable, "-m", "distsgd", "cache", "list", "--json"]
    return str(hosts[number].run(words).stdout)


def test_each_host_fetches_what_it_needs_and_the_bits_are_those_of_one(hosts: Hosts) -> None:
    words = ["data", "prepare", "digits.parquet", "--label", "digit", "--test-fraction", "0.2"]
    hosts[0].run([sys.executable, "-m", "distsgd", *words, "--out", "s3://bucket/digits"])
    several = train(hosts, "several", "data.path=s3://bucket/digits", *on_all(hosts))
    assert (several["code"], several["num_workers"]) == (0, 3), several["said"]
    for number in range(2):
        assert "s3://bucket/digits/train-00000.arrow" in cached_on(hosts, number)
    alone = train(hosts, "alone", "parallel.workers=0")
    assert several["weights_digest"] == alone["weights_digest"]


def test_a_cache_at_an_address_serves_hosts_that_share_no_disk(hosts: Hosts) -> None:
    # Other rows in the shards, or a host has them from before, by their checksum.
    several = train(hosts, "cached", "data.split_seed=1", *on_all(hosts), cache="s3://bucket/cache")
    assert (several["code"], several["num_workers"]) == (0, 3), several["said"]
    assert "s3://bucket/cache/" in cached_on(hosts, 1)


def test_a_host_without_the_prepared_data_says_what_to_share(hosts: Hosts) -> None:
    started_s = time.monotonic()
    missing = train(hosts, "missing", *on_all(hosts))
    assert time.monotonic() - started_s < 60.0
    said = missing["said"] + str(missing.get("error"))
    assert hosts[1].name in said, said
    assert "is not on this node; prepare it to an address" in said
