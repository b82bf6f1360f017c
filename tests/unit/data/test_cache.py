from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path

import pytest

from distsgd.data.cache import cached
from distsgd.data.dataset import DataSet
from distsgd.data.options import PrepareOptions
from distsgd.errors import DataError

Write = Callable[..., Path]
LABEL = PrepareOptions(label=("label",))
COLUMNS = {"a": [1.0, 2.0, 3.0], "label": [0, 1, 0]}


def grow_old(entry: Path, age_s: float = 5000.0) -> None:
    then = entry.stat().st_mtime - age_s
    os.utime(entry, (then, then))


def test_cached_prepares_once_and_says_so(tmp_path: Path, write: Write) -> None:
    path, said = write(COLUMNS), list[str]()
    first = cached(path, options=LABEL, cache_dir=tmp_path / "c", on_message=said.append)
    again = cached([path], options=LABEL, cache_dir=tmp_path / "c", on_message=said.append)
    assert first == again
    assert said == [f"preparing rows.parquet into {first} (once)"]
    assert DataSet.open(first).train.num_rows == 3


def test_cached_keeps_options_and_versions_of_a_file_apart(tmp_path: Path, write: Write) -> None:
    path = write(COLUMNS)

    def entry(options: PrepareOptions) -> Path:
        return cached(path, options=options, cache_dir=tmp_path / "c", on_message=lambda _: None)

    first = entry(LABEL)
    assert entry(PrepareOptions(label=("label",), split_seed=1)) != first
    write({"a": [1.0, 2.0], "label": [0, 1]})
    assert entry(LABEL) != first


def test_options_that_are_new_change_no_key_of_before() -> None:
    before = {
        "label": ("label",),
        "features": "rest",
        "exclude": (),
        "label_kind": "auto",
        "test_fraction": 0.0,
        "stratify": False,
        "test_sources": (),
        "standardise": "none",
        "dtype": "float32",
        "split_seed": 0,
        "shards": "auto",
        "csv": {"separator": "auto", "encoding": "utf-8", "decimal": ".", "null_values": None},
    }
    assert LABEL.chosen == before
    asked = PrepareOptions(label=("label",), feature_kind="integer", target_shape=(2,))
    assert asked.chosen == before | {"feature_kind": "integer", "target_shape": (2,)}


def test_cached_prepares_a_damaged_entry_again(tmp_path: Path, write: Write) -> None:
    path, said = write(COLUMNS), list[str]()
    entry = cached(path, options=LABEL, cache_dir=tmp_path / "c", on_message=said.append)
    shard = next(entry.glob("*.arrow"))
    shard.write_bytes(b"x" * shard.stat().st_size)
    assert cached(path, options=LABEL, cache_dir=tmp_path / "c", on_message=said.append) == entry
    assert "is damaged and is prepared again" in said[1]
    DataSet.open(entry)


def test_cached_leaves_nothing_of_data_it_cannot_use(tmp_path: Path, write: Write) -> None:
    path = write({"a": [1.0, None], "label": [0, 1]})
    with pytest.raises(DataError, match="null feature"):
        cached(path, options=LABEL, cache_dir=tmp_path / "c", on_message=lambda _: None)
    assert [left.suffix for left in (tmp_path / "c").iterdir()] == [".lock"]


def test_cached_removes_what_a_killed_process_left(tmp_path: Path, write: Write) -> None:
    path, say = write(COLUMNS), lambda _: None
    entry = cached(path, options=LABEL, cache_dir=tmp_path / "c", on_message=say)
    entry.rename(entry.with_name(f".{entry.name}.killed"))
    cached(path, options=LABEL, cache_dir=tmp_path / "c", on_message=say)
    assert not list((tmp_path / "c").glob(".*"))


def test_cached_names_the_lock_it_waited_for(tmp_path: Path, write: Write) -> None:
    path, said = write(COLUMNS), list[str]()
    entry = cached(path, options=LABEL, cache_dir=tmp_path / "c", on_message=said.append)
    with entry.with_suffix(".lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(DataError, match=r"\.lock: is still held after 0.1 s"):
            cached(
                path,
                options=LABEL,
                cache_dir=tmp_path / "c",
                on_message=said.append,
                lock_timeout_s=0.1,
            )
    assert "waiting for another process" in said[-1]


def test_cached_evicts_the_longest_unused_but_nothing_in_use(tmp_path: Path, write: Write) -> None:
    path, said = write(COLUMNS), list[str]()

    def entry(seed: int, max_bytes: int) -> Path:
        options = PrepareOptions(label=("label",), split_seed=seed)
        return cached(
            path,
            options=options,
            cache_dir=tmp_path / "c",
            on_message=said.append,
            max_bytes=max_bytes,
        )

    oldest, opened, recent = (entry(seed, 1 << 30) for seed in range(3))
    grow_old(oldest, 9000.0)
    grow_old(opened, 8000.0)
    data = DataSet.open(opened)
    kept = entry(3, 1)
    assert not oldest.exists()
    assert said[-1].startswith(f"removed {oldest}")
    assert opened.exists()
    assert recent.exists()
    assert kept.exists()
    del data
    grow_old(kept)
    entry(3, 1)
    assert not opened.exists()


def _prepare(path: Path, cache_dir: Path, said: list[str]) -> None:
    cached(path, options=LABEL, cache_dir=cache_dir, on_message=said.append)


def _prepare_and_say(path: Path, cache_dir: Path, out: Path) -> None:
    said: list[str] = []
    _prepare(path, cache_dir, said)
    out.write_text("\n".join(said))


def test_two_processes_do_not_both_prepare(tmp_path: Path, write: Write) -> None:
    path = write({"a": [float(i) for i in range(20_000)], "label": [0, 1] * 10_000})
    context = get_context("spawn")
    outs = [tmp_path / f"said{i}" for i in range(2)]
    processes = [
        context.Process(target=_prepare_and_say, args=(path, tmp_path / "c", out)) for out in outs
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert sum(out.read_text().count("preparing") for out in outs) == 1
