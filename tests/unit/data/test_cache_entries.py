"""Listing entries of the cache, and removing those that nobody uses."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from distsgd.data.cache import cached
from distsgd.data.cache_directory import Cache, DirectoryLock
from distsgd.data.cache_entries import (
    Cleared,
    clear,
    list_entries,
)
from distsgd.data.dataset import DataSet
from distsgd.data.options import PrepareOptions, default_cache_dir
from distsgd.errors import DataError, DiskError

Write = Callable[..., Path]


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def three(cache: Path, write: Write) -> list[Path]:
    """Entries that were last asked for 3000, 2000 and 1000 seconds ago."""
    path = write({"a": [1.0, 2.0, 3.0], "label": [0, 1, 0]})
    entries = [
        cached(
            path,
            options=PrepareOptions(("label",), split_seed=seed),
            cache_dir=cache,
            on_message=lambda _: None,
        )
        for seed in range(3)
    ]
    for i, entry in enumerate(entries):
        then = entry.stat().st_mtime - 1000.0 * (3 - i)
        os.utime(entry, (then, then))
    return entries


def cleared(cache: Path, *names: str, older_than_s: float = 0.0) -> Cleared:
    return clear(cache, names, older_than_s=older_than_s, on_message=lambda _: None)


def test_list_shows_what_lies_there_the_last_used_first(cache: Path, three: list[Path]) -> None:
    found = list_entries(cache)
    assert [entry.path for entry in found] == three[::-1]
    for entry in found:
        assert entry.manifest is not None
        assert entry.manifest.train_rows == 3
        assert entry.num_bytes == sum(file.stat().st_size for file in entry.path.iterdir())
        assert not entry.is_in_use
        assert not entry.problem


def test_list_knows_what_is_in_use_and_what_cannot_be_read(cache: Path, three: list[Path]) -> None:
    data = DataSet.open(three[0])
    (three[1] / "manifest.json").write_text("{")
    found = {entry.path: entry for entry in list_entries(cache)}
    assert [found[entry].is_in_use for entry in three] == [True, False, False]
    assert "is not valid JSON" in found[three[1]].problem
    assert found[three[1]].manifest is None
    del data


def test_a_cache_that_is_not_there_is_empty_and_a_file_is_none(tmp_path: Path) -> None:
    assert list_entries(tmp_path / "none") == []
    assert cleared(tmp_path / "none") == Cleared((), (), 0)
    (tmp_path / "file").touch()
    for act in (list_entries, cleared):
        with pytest.raises(DiskError, match=r"cannot be used as a cache .*--cache-dir"):
            act(tmp_path / "file")


def test_clear_removes_all_and_says_what_it_freed(cache: Path, three: list[Path]) -> None:
    num_bytes = sum(entry.num_bytes for entry in list_entries(cache))
    assert cleared(cache) == Cleared(tuple(sorted(e.name for e in three)), (), num_bytes)
    assert list(cache.iterdir()) == []


def test_clear_by_age_and_by_the_beginning_of_a_name(cache: Path, three: list[Path]) -> None:
    assert cleared(cache, older_than_s=2500.0).removed == (three[0].name,)
    assert cleared(cache, three[1].name[:8]).removed == (three[1].name,)
    assert cleared(cache, three[2].name, older_than_s=2500.0).removed == ()
    assert [entry.path for entry in list_entries(cache)] == [three[2]]


@pytest.mark.parametrize(
    ("name", "message"),
    [("xyz", "has no entry 'xyz'"), ("", "has no entry ''"), ("../cache", "has no entry")],
)
def test_clear_refuses_what_is_no_entry(
    cache: Path, three: list[Path], name: str, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        cleared(cache, name)
    assert all(entry.exists() for entry in three)


def test_clear_refuses_the_beginning_of_several_names(cache: Path, three: list[Path]) -> None:
    twin = cache / f"{three[0].name[:31]}{'0' if three[0].name[31] != '0' else '1'}"
    twin.mkdir()
    with pytest.raises(DataError, match="has 2 entries that begin with"):
        cleared(cache, three[0].name[:31])
    assert cleared(cache, three[0].name).removed == (three[0].name,)


def test_clear_keeps_what_this_or_another_process_uses(cache: Path, three: list[Path]) -> None:
    lock = DirectoryLock(three[0])
    opens = (
        "import sys; from distsgd.data.dataset import DataSet; data = DataSet.open(sys.argv[1]);"
    )
    with subprocess.Popen(
        [sys.executable, "-c", f"{opens} print(flush=True); input()", str(three[1])],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as other:
        assert other.stdout is not None
        other.stdout.readline()
        found = cleared(cache)
        assert found.in_use == tuple(sorted(entry.name for entry in three[:2]))
        assert found.removed == (three[2].name,)
        DataSet.open(three[1])
        other.kill()
    lock.release()
    assert len(cleared(cache).removed) == 2


def test_clear_keeps_what_is_being_prepared_and_sweeps_what_was_left(
    cache: Path, three: list[Path]
) -> None:
    for entry in three[:2]:
        entry.rename(cache / f".{entry.name}.unfinished")
    with (cache / f"{three[0].name}.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert cleared(cache).freed_bytes > 0
    assert {path.name for path in cache.iterdir()} == {
        f".{three[0].name}.unfinished",
        f"{three[0].name}.lock",
    }


def test_nothing_but_entries_is_touched(cache: Path, three: list[Path], tmp_path: Path) -> None:
    mine = [cache / "photos", cache / "0123", cache / ".hidden.0123"]
    for place in mine:
        place.mkdir()
        (place / "file").write_text("mine")
    (tmp_path / "elsewhere").mkdir()
    (cache / ("0" * 32)).symlink_to(tmp_path / "elsewhere")
    (cache / "notes.lock").touch()
    Cache(cache, 0).evict(keep=cache / "none")
    cleared(cache)
    assert not any(entry.exists() for entry in three)
    assert all((place / "file").read_text() == "mine" for place in mine)
    assert (cache / ("0" * 32)).is_symlink()
    assert (cache / "notes.lock").exists()


def test_evict_says_what_it_removes_and_stops_when_there_is_room(
    cache: Path, three: list[Path]
) -> None:
    sizes = [entry.num_bytes for entry in list_entries(cache)]
    said: list[str] = []
    Cache(cache, sum(sizes) - 1, said.append).evict(keep=three[0])
    assert [entry.exists() for entry in three] == [True, False, True]
    assert len(said) == 1
    assert said[0].startswith(f"removed {three[1]} from the cache (0 MB, the longest unused")


def test_a_held_entry_stays_until_it_is_let_go(cache: Path, write: Write) -> None:
    held: list[DirectoryLock] = []
    path = write({"a": [1.0, 2.0], "label": [0, 1]})
    options = PrepareOptions(("label",))
    entry = cached(path, options=options, cache_dir=cache, on_message=lambda _: None, held=held)
    assert cleared(cache).in_use == (entry.name,)
    held.clear()
    assert cleared(cache).removed == (entry.name,)


def test_who_waited_for_a_lock_that_is_removed_takes_a_new_one(cache: Path, write: Write) -> None:
    path, options = write({"a": [1.0, 2.0], "label": [0, 1]}), PrepareOptions(("label",))
    entry = cached(path, options=options, cache_dir=cache, on_message=lambda _: None)
    lock = entry.with_suffix(".lock")
    number = lock.stat().st_ino
    with lock.open() as old:
        # The number of the file is still taken, so that the new one has another.
        cleared(cache)
        assert not lock.exists()
        cached(path, options=options, cache_dir=cache, on_message=lambda _: None)
        assert lock.stat().st_ino != number
        fcntl.flock(old, fcntl.LOCK_EX | fcntl.LOCK_NB)  # Nobody has the old one.


@pytest.mark.parametrize("named", ["", "relative/place", None])
def test_cache_is_in_the_home_unless_an_absolute_place_is_named(
    named: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    assert default_cache_dir(named) == Path("/home/somebody/.cache/distsgd")
    assert default_cache_dir("/caches") == Path("/caches/distsgd")
