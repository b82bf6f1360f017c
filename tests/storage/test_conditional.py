"""One object that is replaced only by who has seen its present version."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest

from distsgd.base import conditional, leases
from distsgd.base.conditional import ConditionalObject, Seen, Superseded
from distsgd.base.leases import Lease
from distsgd.base.locations import Location
from distsgd.errors import StorageError
from distsgd.store.pointer import POINTER, Pointer
from tests.storage.proxy import FaultProxy


@pytest.fixture(params=["obstore", "compared before"])
def target(
    request: pytest.FixtureRequest, bucket: Location, monkeypatch: pytest.MonkeyPatch
) -> ConditionalObject:
    if request.param == "compared before":
        monkeypatch.setattr(conditional, "_ATOMIC", ())
    made = ConditionalObject(bucket / "pointer")
    assert bool(made.weakness) == (request.param != "obstore")
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


def test_store_that_ignores_conditions_is_found_out_when_the_object_is_begun(
    target: ConditionalObject, proxy: FaultProxy
) -> None:
    before = target.weakness
    first = target.begin(b"1", over=None)
    second = target.begin(b"2", over=first)
    assert target.weakness == before
    proxy.has_conditions = False
    third = target.begin(b"3", over=second)
    assert target.weakness == before or "ignores the conditions" in target.weakness
    assert target.weakness
    with pytest.raises(Superseded):
        target.write(b"late", over=second)
    assert target.write(b"4", over=third).data == b"4"


def test_object_that_is_gone_is_not_replaced(target: ConditionalObject, bucket: Location) -> None:
    seen = target.write(b"1", over=None)
    (bucket / "pointer").delete()
    with pytest.raises(Superseded):
        target.write(b"2", over=seen)
    assert target.read() is None


def test_bucket_that_is_not_there_is_no_missing_object(target: ConditionalObject) -> None:
    nowhere = ConditionalObject(Location("s3://no-such-bucket/pointer"))
    assert nowhere.weakness == target.weakness
    said = "^s3://no-such-bucket/pointer: bucket no-such-bucket does not exist, or is not visible"
    for act in (nowhere.read, lambda: nowhere.write(b"1", over=None)):
        with pytest.raises(StorageError, match=said):
            act()


@pytest.mark.usefixtures("bucket")
def test_bucket_that_may_not_be_asked_for_refuses_a_new_object(proxy: FaultProxy) -> None:
    nowhere = ConditionalObject(Location("s3://no-such-bucket/pointer"))
    proxy.spared, proxy.refusals = 1, 1000  # It is not found; of the bucket nothing is said.
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


class WrittenOver(ConditionalObject):
    """One that is written over, with the same words, before each write."""

    def write(self, data: bytes, *, over: Seen | None) -> Seen:
        if over is not None:
            super().write(over.data.replace(b'"renewals": ', b'"renewals": 1'), over=self.read())
        return super().write(data, over=over)


def test_lease_that_is_written_over_in_its_own_name_ends_in_time_and_names_its_process(
    bucket: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "LEASE_S", 0.3)
    target = WrittenOver(bucket / POINTER)
    decode = partial(Pointer.decoded, location=bucket)
    lease = Lease(target, Pointer(owner="7 on a"), over=None, decode=decode)
    with pytest.raises(StorageError, match=r"written over by process 7 on a, this one, after 0\.3"):
        lease.write(lambda pointer: replace(pointer, fence=1))
    lease.end()
