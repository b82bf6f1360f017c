"""One object that is replaced only by who has seen its present version."""

from __future__ import annotations

import pytest

from distsgd.base.locations import Location
from distsgd.errors import StorageError
from distsgd.store import conditional
from distsgd.store.conditional import ConditionalObject, Superseded
from tests.storage.proxy import FaultProxy


@pytest.fixture(params=["obstore", "compared before"])
def target(
    request: pytest.FixtureRequest, bucket: Location, monkeypatch: pytest.MonkeyPatch
) -> ConditionalObject:
    if request.param == "compared before":
        monkeypatch.setattr(conditional, "_ATOMIC", ())
    made = ConditionalObject(bucket / "pointer")
    assert made.is_atomic == (request.param == "obstore")
    return made


def test_object_is_created_once_and_replaced_by_who_has_seen_it(target: ConditionalObject) -> None:
    assert target.read() is None
    first = target.write(b"1", over=None)
    with pytest.raises(Superseded):
        target.write(b"another", over=None)
    second = target.write(b"2", over=first)
    with pytest.raises(Superseded):
        target.write(b"late", over=first)
    seen = target.read()
    assert seen is not None
    assert seen.data == b"2"
    assert target.write(b"3", over=seen).data == b"3"
    assert second.data == b"2"


def test_object_that_is_gone_is_not_replaced(target: ConditionalObject, bucket: Location) -> None:
    seen = target.write(b"1", over=None)
    (bucket / "pointer").delete()
    with pytest.raises(Superseded):
        target.write(b"2", over=seen)
    assert target.read() is None


def test_bucket_that_is_not_there_is_named(target: ConditionalObject) -> None:
    nowhere = ConditionalObject(Location("s3://no-such-bucket/pointer"))
    assert nowhere.is_atomic == target.is_atomic
    with pytest.raises(StorageError, match="s3://no-such-bucket/pointer: writing: "):
        nowhere.write(b"1", over=None)


def test_endpoint_of_s3_alone_is_used_before_that_of_all_services(
    bucket: Location, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    (bucket / "pointer").write_bytes(b"1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "https://127.0.0.1:9")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy.endpoint)
    seen = ConditionalObject(bucket / "pointer").read()
    assert seen is not None
    assert seen.data == b"1"
