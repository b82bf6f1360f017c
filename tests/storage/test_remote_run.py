"""A run on object storage: whole or not there, one owner at a time, through faults."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import pytest

from distsgd.base import leases
from distsgd.base.leases import LEASE_S
from distsgd.base.locations import Location
from distsgd.errors import CheckpointError, DiskError, RunError, StorageError
from distsgd.run.run_files import withdraw
from distsgd.store import upload
from distsgd.store.beginning import BEGINNING
from distsgd.store.pointer import POINTER, Files
from distsgd.store.remote_run import RemoteRun, RunLease
from distsgd.store.run_directory import RunDirectory
from tests.storage.elsewhere import Elsewhere
from tests.storage.proxy import FaultProxy


@pytest.fixture
def run(bucket: Location) -> RemoteRun:
    return RemoteRun(bucket / "runs" / "a")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A run's directory at its beginning."""
    place = tmp_path / "work"
    write(place, "config.json", "{}")
    return place


def write(place: Path, name: str, text: str) -> None:
    path = place / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def files(place: Path) -> dict[str, str]:
    return {
        path.relative_to(place).as_posix(): path.read_text()
        for path in sorted(place.rglob("*"))
        if path.is_file()
    }


def fetched(run: RemoteRun, tmp_path: Path) -> dict[str, str]:
    number = len(list(tmp_path.iterdir()))
    return files(run.fetch(tmp_path / f"fetched-{number}"))


def test_what_was_published_is_fetched_and_private_files_are_not(
    run: RemoteRun, place: Path, tmp_path: Path
) -> None:
    assert not run.exists()
    write(place, "lock", "1")
    write(place, "checkpoints/.staging-x/weights", "half")
    run.create(place)
    assert run.exists()
    assert fetched(run, tmp_path) == {"config.json": "{}"}
    with run.lease("me") as lease:
        write(place, "checkpoints/step-1/weights", "w")
        lease.publish(place)
        assert fetched(run, tmp_path) == {"config.json": "{}", "checkpoints/step-1/weights": "w"}
    assert run.fetch(tmp_path / "again").stat().st_mode & 0o077 == 0


def test_run_is_begun_once_and_one_that_is_not_there_says_so(run: RemoteRun, place: Path) -> None:
    with pytest.raises(RunError, match=r"s3://.*/runs/a: holds no RUN\.json"):
        run.fetch(place.parent / "none")
    run.create(place)
    with pytest.raises(RunError, match="another process began this run"):
        run.create(place)
    run.withdraw(BEGINNING)
    assert not run.exists()
    assert run.location.files() == []


@pytest.mark.parametrize(
    "name", ["history/part-0.parquet", "result.json", "digests.jsonl", "checkpoints/step-1/weights"]
)
def test_run_with_more_than_its_beginning_is_not_withdrawn(
    run: RemoteRun, place: Path, name: str
) -> None:
    run.create(place)
    write(place, name, "{}")
    with run.lease("me") as lease:
        lease.publish(place)
    before = run.location.files()
    withdraw(RunDirectory.of(run.location))
    assert run.location.files() == before


def test_publishing_uploads_only_what_is_new_and_grown_files_in_pieces(
    run: RemoteRun,
    place: Path,
    proxy: FaultProxy,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(upload, "_MOST_PIECES", 8)
    run.create(place)
    expected = {}
    with run.lease("me") as lease:
        for step in range(10):
            with (place / "digests.jsonl").open("a") as file:
                file.write(f"{step}\n")
            before = len(proxy.requests)
            lease.publish(place)
            requests = [it.partition(" HTTP")[0] for it in proxy.requests[before:]]
            puts = [it for it in requests if it.startswith("PUT") and it[-1] != "/"]
            assert len(puts) == 2, puts  # The new line, and the pointer.
        expected = files(place)
        assert fetched(run, tmp_path) == expected
        write(place, "digests.jsonl", "0\nanother\n")  # A resume has dropped lines.
        lease.publish(place)
    assert fetched(run, tmp_path)["digests.jsonl"] == "0\nanother\n"
    objects = [it.location.name for it in run.location.files()]
    assert len(objects) < 10


def test_checkpoint_is_there_whole_or_not_at_all_wherever_a_publish_fails(
    run: RemoteRun, place: Path, tmp_path: Path
) -> None:
    run.create(place)
    for k in range(6):
        before = fetched(run, tmp_path)
        for name in ("weights", "state", "manifest"):
            write(place, f"checkpoints/step-{k}/{name}", f"{name} {k}")
        with run.lease("me") as lease:
            fails_from(lease, k)
            try:
                lease.publish(place)
            except StorageError:
                assert fetched(run, tmp_path) == before
            else:
                assert fetched(run, tmp_path) == files(place)
                assert k >= 4


def fails_from(lease: RunLease, k: int) -> None:
    """From its `k`-th upload on, the storage refuses."""
    put, count = lease._upload._put, iter(range(100))

    def put_or_fail(file: BinaryIO, num_bytes: int) -> object:
        if next(count) >= k:
            raise StorageError("s3://x", "refused")
        return put(file, num_bytes)

    lease._upload._put = put_or_fail  # type: ignore[assignment,method-assign]


def test_second_owner_is_refused_while_the_first_renews_and_takes_over_when_told(
    run: RemoteRun, place: Path, tmp_path: Path
) -> None:
    run.create(place)
    with run.lease("1 on a") as first:
        other = Elsewhere(run, lambda: first.publish(place)).run
        with (
            pytest.raises(RunError, match=r"in use by process 1 on a.*--take-over"),
            other.lease("2 on b"),
        ):
            raise AssertionError
        with other.lease("2 on b", take_over=True) as second:
            write(place, "mine", "second")
            second.publish(place)
            write(place, "mine", "first")
            with pytest.raises(RunError, match="process 2 on b has taken it over"):
                first.publish(place)
            with pytest.raises(RunError, match="nothing more is written"):
                first.check()
    assert fetched(run, tmp_path)["mine"] == "second"
    with other.lease("3 on c"):
        pass  # Both have let go of it.


def test_owner_that_stopped_renewing_is_superseded_and_writes_nothing_when_it_wakes(
    run: RemoteRun, place: Path
) -> None:
    run.create(place)
    with run.lease("1 on a") as stopped:  # Its thread renews each ten seconds.
        other = Elsewhere(run)
        with other.run.lease("2 on b"):
            assert other.now_s >= LEASE_S
            with pytest.raises(RunError, match="process 2 on b"):
                stopped.publish(place)


def test_renewal_notices_a_take_over_and_the_owner_learns_of_it(
    run: RemoteRun, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "LEASE_S", 0.3)
    run.create(place)
    with run.lease("1 on a") as first:
        with RemoteRun(run.location).lease("2 on b", take_over=True):
            wait_until(lambda: first._lease._lost is not None)
        with pytest.raises(RunError, match="taken it over"):
            first.check()


def wait_until(happened: Callable[[], bool]) -> None:
    ticks = threading.Event()
    for _ in range(500):
        if happened():
            return
        ticks.wait(0.01)
    raise AssertionError("it did not happen")


def test_damaged_and_missing_objects_are_named(run: RemoteRun, place: Path, tmp_path: Path) -> None:
    run.create(place)
    (stored,) = [it for it in run.location.files() if "/objects/" in str(it.location)]
    stored.location.write_bytes(b"[]")
    with pytest.raises(CheckpointError, match=r"objects/0-1.*is damaged \(config\.json"):
        run.fetch(tmp_path / "damaged")
    stored.location.delete()
    with pytest.raises(CheckpointError, match="is missing"):
        run.fetch(tmp_path / "missing")
    text = (run.location / POINTER).read_bytes()
    for forged in (b"{}", text.replace(b'"fence": 0', b'"fence": 1e999')):
        (run.location / POINTER).write_bytes(forged)
        with pytest.raises(CheckpointError, match=r"RUN\.json is no pointer"):
            run.fetch(tmp_path / "forged")


@pytest.mark.parametrize("name", ["../kept", "a/../b", "/kept", "", "a//b", "\\u0000", "\\ud800"])
def test_pointer_cannot_name_files_outside_of_the_run(
    run: RemoteRun, place: Path, tmp_path: Path, name: str
) -> None:
    run.create(place)
    write(tmp_path, "kept", "not of the run")
    text, files_there = (run.location / POINTER).read_bytes(), Files()
    (run.location / POINTER).write_bytes(text.replace(b"config.json", name.encode()))
    with pytest.raises(CheckpointError, match="which is none of a run"):
        run.fetch(tmp_path / "copy", files_there)
    (run.location / POINTER).write_bytes(text)
    assert files(run.fetch(tmp_path / "copy", files_there)) == {"config.json": "{}"}
    assert (tmp_path / "kept").exists()


def test_disk_that_refuses_what_is_fetched_is_named(
    run: RemoteRun, place: Path, tmp_path: Path
) -> None:
    run.create(place)
    (tmp_path / "copy" / "config.json").mkdir(parents=True)
    with pytest.raises(DiskError, match=r"copy/config\.json: cannot be written"):
        run.fetch(tmp_path / "copy")


def test_owner_whose_pointer_was_overwritten_learns_of_it_and_lets_go(
    run: RemoteRun, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "LEASE_S", 0.3)
    run.create(place)
    with run.lease("me") as lease:
        (run.location / POINTER).write_bytes(b"junk")
        wait_until(lambda: lease._lease._lost is not None)
        for act in (lease.check, lambda: lease.publish(place)):
            with pytest.raises(RunError, match=r"RUN\.json is no pointer.*nothing more is written"):
                act()
    assert (run.location / POINTER).read_bytes() == b"junk"


@pytest.mark.parametrize("method", ["HEAD", "GET"])
@pytest.mark.parametrize("times", [1, 9])
def test_reader_that_is_overtaken_by_two_publishes_reads_a_whole_state(
    run: RemoteRun, place: Path, proxy: FaultProxy, tmp_path: Path, method: str, times: int
) -> None:
    run.create(place)
    with run.lease("me") as lease:
        overtakes(lease, place, proxy, method, times)
        assert fetched(run, tmp_path) == {"config.json": "{}", "result.json": f"{2 * times}"}


@pytest.mark.parametrize("method", ["HEAD", "GET"])
def test_reader_that_is_overtaken_again_and_again_gives_up(
    run: RemoteRun, place: Path, proxy: FaultProxy, tmp_path: Path, method: str
) -> None:
    run.create(place)
    with run.lease("me") as lease:
        overtakes(lease, place, proxy, method, 50)
        with pytest.raises(StorageError, match="faster than it is read: 10 times"):
            fetched(run, tmp_path)


def overtakes(lease: RunLease, place: Path, proxy: FaultProxy, method: str, times: int) -> None:
    """Publish a result; and twice more before a reader gets it, so many times."""
    texts, is_publishing = iter(range(2 * times + 1)), threading.Lock()

    def publish() -> None:
        if (text := next(texts, None)) is not None:
            write(place, "result.json", f"{text}")
            lease.publish(place)

    def on_request(line: str) -> None:
        (piece,) = lease._lease.record.files["result.json"]
        is_read = line.startswith(method) and f"/{piece.name} " in line
        if is_read and is_publishing.acquire(blocking=False):
            publish()
            publish()
            is_publishing.release()

    publish()
    proxy.on_request = on_request


def test_publish_survives_a_lost_answer(
    run: RemoteRun, place: Path, proxy: FaultProxy, tmp_path: Path
) -> None:
    run.create(place)
    with run.lease("me") as lease:
        write(place, "result.json", "1")
        proxy.refusals = 1
        lease.publish(place)
    assert fetched(run, tmp_path)["result.json"] == "1"
