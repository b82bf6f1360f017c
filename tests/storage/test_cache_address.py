"""A cache on object storage: each data set is prepared by one process at a time."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from distsgd.base import conditional, leases
from distsgd.base.locations import Location
from distsgd.data.cache_address import cached_at
from distsgd.data.dataset import DataSet
from distsgd.data.node_cache import StoredData
from distsgd.data.options import PrepareOptions
from distsgd.errors import DataError
from tests.storage import preparer

LABEL = PrepareOptions(label=("label",))
LEASE_S, LONG_LEASE_S = 0.9, 6.0  # Of who is killed or stopped, and of who is to be believed.
POINTER = re.compile(r"[0-9a-f]{32}\.json")


@pytest.fixture
def rows(bucket: Location) -> Location:
    (bucket / "rows.csv").write_bytes(b"a,label\n" + b"1,0\n2,1\n" * 20)
    return bucket / "rows.csv"


@pytest.fixture
def cache(bucket: Location, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Location:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(leases, "LEASE_S", LEASE_S)
    return bucket / "cache"


class Preparer:
    """`preparer.py` on a node of its own, in a process that says line by line what it does."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.name = f"{process.pid} on {socket.gethostname()}"

    def says(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def continues(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def gets(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def reaches(self, start: str) -> str:
        """The first line from now on that begins so."""
        while line := self.says():
            if line.startswith(start):
                return line
        raise AssertionError(start)


@contextmanager
def node(
    rows: Location, cache: Location, home: Path, lease_s: float = LEASE_S
) -> Iterator[Preparer]:
    words = [str(rows), str(cache), str(lease_s)]
    with subprocess.Popen(
        [sys.executable, "-W", "error", preparer.__file__, *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"HOME": str(home)},
    ) as process:
        try:
            yield Preparer(process)
        finally:
            process.kill()


def pointer(cache: Location) -> dict[str, object]:
    (found,) = [it.location for it in cache.files() if POINTER.fullmatch(it.location.name)]
    return dict(json.loads(found.read_bytes()))


def test_second_process_waits_for_the_first_says_for_whom_and_prepares_nothing(
    rows: Location, cache: Location, tmp_path: Path
) -> None:
    with (
        node(rows, cache, tmp_path / "a", LONG_LEASE_S) as first,
        node(rows, cache, tmp_path / "b", LONG_LEASE_S) as second,
    ):
        both = [first, second]
        lines = [it.says() for it in both]
        if lines[1].startswith("preparing"):
            both.reverse()
            lines.reverse()
        owner, other = both
        assert lines[0].startswith("preparing rows.csv")
        assert lines[1] == (
            f"waiting for process {owner.name}, which prepares the same data into {cache}"
        )
        owner.continues()
        at = owner.reaches("at ")
        assert other.says() == at
    data = DataSet.open(StoredData(Location(at.removeprefix("at ")), tmp_path / "c"))
    assert data.train.num_rows == 40
    assert pointer(cache)["owner"] == ""


def test_process_that_was_killed_is_superseded_by_who_waits_for_it(
    rows: Location, cache: Location, tmp_path: Path
) -> None:
    with node(rows, cache, tmp_path / "a") as first, node(rows, cache, tmp_path / "b") as second:
        owner, other = first, second
        if not first.says().startswith("preparing"):
            owner, other = second, first
            owner.reaches("preparing")
        owner.gets(signal.SIGKILL)
        assert other.reaches("process ") == f"process {owner.name} has not been heard of for 0.9 s"
        other.reaches("preparing")
        other.continues()
        assert other.reaches("at ")


def test_process_that_was_stopped_and_continues_leaves_what_is_named_as_it_is(
    rows: Location, cache: Location, tmp_path: Path
) -> None:
    with node(rows, cache, tmp_path / "a") as first:
        first.reaches("preparing")
        first.gets(signal.SIGSTOP)
        at = cached_at(str(rows), cache, options=LABEL, on_message=lambda _: None)
        named = pointer(cache)
        first.gets(signal.SIGCONT)
        first.continues()
        assert first.reaches("at ") == f"at {at}"
    assert pointer(cache) == named


def test_process_that_fails_lets_go_at_once(
    rows: Location, cache: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "LEASE_S", 60.0)
    said: list[str] = []

    def fail(text: str) -> None:
        said.append(text)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cached_at(str(rows), cache, options=LABEL, on_message=fail)
    assert pointer(cache)["owner"] == ""
    assert cached_at(str(rows), cache, options=LABEL, on_message=said.append).stat() is None
    assert not any(text.startswith("waiting") for text in said)


def test_wait_ends_in_time_and_names_the_process(
    rows: Location, cache: Location, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "LEASE_S", LONG_LEASE_S)
    with node(rows, cache, tmp_path / "a", LONG_LEASE_S) as first:
        first.reaches("preparing")
        said = f"is still being prepared by process {first.name} after 0.1 s; end that process"
        with pytest.raises(DataError, match=said):
            cached_at(
                str(rows), cache, options=LABEL, on_message=lambda _: None, lock_timeout_s=0.1
            )


@pytest.mark.parametrize("junk", [b"", b"[]", b'{"directory": "../x", "owner": 3}', b"\xff"])
def test_pointer_that_is_none_is_replaced(rows: Location, cache: Location, junk: bytes) -> None:
    at = cached_at(str(rows), cache, options=LABEL, on_message=lambda _: None)
    (cache / f"{at.name[:32]}.json").write_bytes(junk)
    assert cached_at(str(rows), cache, options=LABEL, on_message=lambda _: None) == at
    assert pointer(cache)["directory"] == at.name


def test_storage_without_conditional_writes_is_used_all_the_same(
    rows: Location, cache: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conditional, "_ATOMIC", ())
    at = cached_at(str(rows), cache, options=LABEL, on_message=lambda _: None)
    assert pointer(cache)["directory"] == at.name
    assert cached_at(str(rows), cache, options=LABEL, on_message=lambda _: None) == at
