"""A real S3 server on this machine, by moto; a bucket for each test."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
from pyarrow import fs

from distsgd.base import locations
from distsgd.base.locations import Location
from tests.storage.proxy import FaultProxy
from tests.storage.server import moto_server

KEY_ID, SECRET = "AKIAOFATEST", "never-to-be-seen"
_numbers = itertools.count()


@pytest.fixture(scope="session")
def s3_server() -> Iterator[tuple[str, int]]:
    server = moto_server().ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    yield server.get_host_and_port()
    server.stop()


@pytest.fixture
def proxy(s3_server: tuple[str, int]) -> Iterator[FaultProxy]:
    made = FaultProxy(s3_server)
    yield made
    made.close()


@pytest.fixture
def bucket(proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch) -> Location:
    """A new bucket, behind the proxy."""
    for name, value in {
        "AWS_ENDPOINT_URL": proxy.endpoint,
        "AWS_ACCESS_KEY_ID": KEY_ID,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(locations, "MOST_ATTEMPTS", 2)  # Waits between them double.
    name = f"bucket-{next(_numbers)}"
    client = fs.S3FileSystem(endpoint_override=proxy.endpoint, allow_bucket_creation=True)
    client.create_dir(name)
    return Location(f"s3://{name}")
