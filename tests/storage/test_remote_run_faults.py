"""A run on object storage where every request may fail, and where its owner is another process."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from distsgd.base import conditional
from distsgd.base.locations import Location
from distsgd.errors import CheckpointError, RunError, StorageError
from distsgd.store.beginning import BEGINNING
from distsgd.store.pointer import POINTER
from distsgd.store.remote_run import RemoteRun
from tests.storage import owner
from tests.storage.elsewhere import Elsewhere
from tests.storage.proxy import FaultProxy

Files = dict[str, str]


@pytest.fixture
def run(bucket: Location) -> RemoteRun:
    return RemoteRun(bucket / "runs" / "a")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A run's directory with one of each kind of file."""
    return write(tmp_path / "work", {"config.json": "{}", "digests.jsonl": "0\n"})


def write(place: Path, files: Files) -> Path:
    for name, text in files.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(text)
    return place


def fetched(run: RemoteRun, tmp_path: Path) -> Files:
    number = len(list(tmp_path.iterdir()))
    place = run.fetch(tmp_path / f"fetched-{number}")
    found = [path for path in sorted(place.rglob("*")) if path.is_file()]
    return {path.relative_to(place).as_posix(): path.read_text() for path in found}


def next_state(before: Files, k: int) -> Files:
    """A new file, a grown one, and another content for one that was there."""
    grown = before["digests.jsonl"] + f"{k}\n"
    return before | {f"checkpoints/step-{k}/w": f"w {k}", "digests.jsonl": grown, "result": f"{k}"}


@pytest.mark.parametrize("fault", ["refused", "answer lost"])
def test_old_or_new_state_is_whole_wherever_a_publish_fails_and_it_may_be_tried_again(
    run: RemoteRun, place: Path, proxy: FaultProxy, tmp_path: Path, fault: str
) -> None:
    run.create(place)
    state, failures = {"config.json": "{}", "digests.jsonl": "0\n"}, 0
    with run.lease("me") as lease:
        for k in range(8):
            new = next_state(state, k)
            write(place, new)
            proxy.spared, proxy.cut_after = k, 0
            proxy.refusals, proxy.cuts = (1000, 0) if fault == "refused" else (0, 1000)
            try:
                lease.publish(place)
            except StorageError:
                failures += 1
            proxy.spared, proxy.refusals, proxy.cuts = 0, 0, 0
            assert fetched(run, tmp_path) in (state, new), k
            lease.publish(place)
            assert fetched(run, tmp_path) == new
            state = new
    assert failures >= 4  # Three files, and the pointer.


@pytest.mark.parametrize("k", range(4))
def test_answer_that_is_lost_once_costs_nothing(
    run: RemoteRun, place: Path, proxy: FaultProxy, tmp_path: Path, k: int
) -> None:
    run.create(place)
    with run.lease("me") as lease:
        write(place, {"result": "1"})
        proxy.spared, proxy.cut_after, proxy.cuts = k, 0, 1
        lease.publish(place)
        proxy.spared = proxy.cuts = 0
        assert fetched(run, tmp_path)["result"] == "1"
        write(place, {"result": "2"})
        lease.publish(place)
    assert fetched(run, tmp_path)["result"] == "2"


def test_next_owner_sweeps_what_an_owner_that_died_has_left(
    run: RemoteRun, place: Path, proxy: FaultProxy, tmp_path: Path
) -> None:
    run.create(place)
    with run.lease("me") as lease:
        for text in "12":
            write(place, {"result": text})
            lease.publish(place)
        write(place, {"result": "3"})
        proxy.spared, proxy.refusals = 1, 1000  # The file arrives, the pointer does not.
        with pytest.raises(StorageError):
            lease.publish(place)
        proxy.spared = proxy.refusals = 0
    (run.location / "objects" / "of-another").write_bytes(b"")
    assert len(run.location.files()) == 1 + 1 + 3 + 2
    with run.lease("me"):
        assert len(run.location.files()) == 1 + 1 + 1 + 2  # Of others, nothing is removed.
        assert fetched(run, tmp_path)["result"] == "2"


def test_what_a_beginning_that_failed_has_left_is_swept_a_day_later(
    run: RemoteRun, place: Path, proxy: FaultProxy, tmp_path: Path
) -> None:
    proxy.spared, proxy.refusals = 1, 1000  # A file arrives, and no more.
    with pytest.raises(StorageError):
        run.create(place)
    proxy.spared = proxy.refusals = 0
    (left,) = run.location.files()
    run.create(place)
    with run.lease("me"):
        assert left in run.location.files()  # It may be of a process that is about to publish.
    age_by_a_day(left.location)
    with run.lease("me"):
        assert left.location not in [it.location for it in run.location.files()]
        assert fetched(run, tmp_path) == {"config.json": "{}", "digests.jsonl": "0\n"}


def age_by_a_day(location: Location) -> None:
    """Have its storage say so."""
    from moto.core.models import DEFAULT_ACCOUNT_ID
    from moto.s3.models import s3_backends

    backend = s3_backends[DEFAULT_ACCOUNT_ID]["aws"]
    backend.buckets[location.bucket].keys[location.key].last_modified -= timedelta(days=1.1)


def test_superseded_owner_writes_nothing_where_the_storage_ignores_conditions(
    run: RemoteRun, place: Path, proxy: FaultProxy, tmp_path: Path
) -> None:
    proxy.has_conditions = False
    run.create(place)
    assert "ignores the conditions" in run.weakness
    with run.lease("1 on a") as first, run.lease("2 on b", take_over=True) as second:
        write(place, {"result.json": "of 2"})
        second.publish(place)
        write(place, {"result.json": "of 1"})
        with pytest.raises(RunError, match="process 2 on b has taken it over"):
            first.publish(place)
    assert fetched(run, tmp_path)["result.json"] == "of 2"


def test_file_that_was_gone_and_comes_again_is_uploaded_again(
    run: RemoteRun, place: Path, tmp_path: Path
) -> None:
    run.create(place)
    with run.lease("me") as lease:
        write(place, {"result": "1"})
        lease.publish(place)
        (place / "result").unlink()
        for text in "ab":
            write(place, {"other": text})
            lease.publish(place)
        write(place, {"result": "1"})
        lease.publish(place)
    assert fetched(run, tmp_path)["result"] == "1"


def test_run_that_another_process_has_by_now_is_not_withdrawn(
    run: RemoteRun, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run.create(place)
    late, read = RemoteRun(run.location), conditional.ConditionalObject.read
    with monkeypatch.context() as patch:
        seen = read(late._object)
        patch.setattr(late._object, "read", lambda: seen)
        with run.lease("me") as lease:
            late.withdraw(BEGINNING)
            lease.publish(place)
    assert run.exists()


def test_process_in_place_of_one_that_died_succeeds_it_at_once_and_nobody_else(
    run: RemoteRun, place: Path
) -> None:
    run.create(place)
    assert run.living_owner() is None
    with (
        run.lease("1 on a", session="s") as first,
        run.lease("2 on a", session="s") as second,
    ):
        second.publish(place)
        with pytest.raises(RunError, match="process 2 on a has taken it over"):
            first.publish(place)
        with run.lease("3 on b", take_over=True, session="t") as third:
            other = Elsewhere(run, lambda: third.publish(place)).run
            assert other.living_owner() == "3 on b"
            with (
                pytest.raises(RunError, match="in use by process 3 on b"),
                other.lease("4 on a", session="s"),
            ):
                raise AssertionError
            third.publish(place)
    assert run.living_owner() is None


@pytest.mark.parametrize("name", ["../b/RUN.json", "objects/../../b", "objects/1-1-xyz"])
def test_pointer_cannot_name_objects_outside_of_the_run(
    run: RemoteRun, place: Path, tmp_path: Path, name: str
) -> None:
    run.create(place)
    (stored, *_) = (run.location / "objects").files()
    text = (run.location / POINTER).read_bytes()
    forged = text.replace(b"objects/" + stored.location.name.encode(), name.encode())
    (run.location / POINTER).write_bytes(forged)
    for read in (lambda: run.fetch(tmp_path / "forged"), lambda: run.withdraw(BEGINNING)):
        with pytest.raises(CheckpointError, match="which is none of a run"):
            read()


@contextmanager
def process_that_owns(run: RemoteRun, place: Path) -> Iterator[Owner]:
    command = [sys.executable, "-W", "error", owner.__file__, str(run.location), str(place)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes) as process:  # type: ignore[call-overload]
        try:
            yield Owner(process)
        finally:
            process.kill()


class Owner:
    """`owner.py`, which answers line by line."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        assert self._answer() == "has it"

    def publishes(self, text: str) -> str:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{text}\n")
        self._process.stdin.flush()
        return self._answer()

    def gets(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def _answer(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


def test_stopped_process_is_superseded_and_writes_nothing_when_it_is_continued(
    run: RemoteRun, place: Path, tmp_path: Path
) -> None:
    run.create(place)
    with process_that_owns(run, tmp_path / "theirs") as first:
        assert first.publishes("theirs") == "published"
        first.gets(signal.SIGSTOP)
        with Elsewhere(run).run.lease("2 on b") as lease:
            write(place, {"result.json": "mine"})
            lease.publish(place)
            first.gets(signal.SIGCONT)
            assert "process 2 on b has taken it over" in first.publishes("theirs again")
            assert fetched(run, tmp_path)["result.json"] == "mine"
            lease.publish(place)


def test_killed_process_leaves_what_it_published_to_who_waits_for_the_run(
    run: RemoteRun, place: Path, tmp_path: Path
) -> None:
    run.create(place)
    with process_that_owns(run, tmp_path / "theirs") as first:
        assert first.publishes("theirs") == "published"
        first.gets(signal.SIGKILL)
        with Elsewhere(run).run.lease("2 on b"):
            assert fetched(run, tmp_path)["result.json"] == "theirs\n"
