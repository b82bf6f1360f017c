import os
import resource
import signal
import stat
from pathlib import Path

import pytest

from distsgd.base.files import (
    STAGING,
    make_private_directory,
    read_json,
    remove_leftover_files,
    replace_text,
    write_bytes_atomic,
    write_json_atomic,
)
from distsgd.errors import CheckpointError, RunError


def test_write_replaces_what_was_there_and_leaves_nothing_aside(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for data in (b"long before", b"", b"after"):
        write_bytes_atomic(path, data)
        assert path.read_bytes() == data
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_file_in_the_place_of_a_directory_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for place in ("file", "file/run", "file/a/run"):
        with pytest.raises(RunError, match=f"{tmp_path}/file is a file") as error:
            make_private_directory(tmp_path / place)
        assert error.value.exit_code == 2


def test_write_that_fails_leaves_the_old_file_and_nothing_aside(tmp_path: Path) -> None:
    target = tmp_path / "taken"
    target.mkdir()
    with pytest.raises(RunError, match=r"taken: cannot be written: .*make room"):
        write_bytes_atomic(target, b"data")
    assert [entry.name for entry in tmp_path.iterdir()] == ["taken"]
    with pytest.raises(RunError, match="cannot be written: No such file"):
        write_bytes_atomic(tmp_path / "missing" / "file", b"data")


def test_json_comes_back_as_it_was(tmp_path: Path) -> None:
    value = {"name": "größe", "numbers": [0.1, 1e300, 2**60, None, True], "nested": {"a": {}}}
    write_json_atomic(tmp_path / "a.json", value)
    assert read_json(tmp_path / "a.json") == value


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {"a": object()}])
def test_json_refuses_what_it_has_no_word_for(tmp_path: Path, value: object) -> None:
    with pytest.raises(RunError, match="cannot hold this as JSON"):
        write_json_atomic(tmp_path / "a.json", {"value": value})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "is not JSON"),
        (b'{"a": 1', "is not JSON"),
        (b'{"a": NaN}', "NaN is no JSON number"),
        (b"\xff\xfe{}", "is not JSON"),
        (b"[" * 100_000, "nested too deeply"),
        (b"[1]", "holds a JSON list; must hold an object"),
    ],
)
def test_json_that_is_damaged_is_refused_with_its_path(
    tmp_path: Path, data: bytes, reason: str
) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=rf"a.json: .*{reason}"):
        read_json(path, error=CheckpointError)


def test_json_that_is_missing_or_a_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"a.json: is missing"):
        read_json(tmp_path / "a.json")
    with pytest.raises(RunError, match="cannot be read: Is a directory"):
        read_json(tmp_path)


def test_private_directory_is_private_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        make_private_directory(tmp_path / "a" / "b")
        make_private_directory(tmp_path / "a" / "b")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a" / "b").stat().st_mode) == 0o700


def test_leftovers_are_removed_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / f"{STAGING}config.json-abc").write_bytes(b"half")
    (tmp_path / "config.json").write_bytes(b"whole")
    remove_leftover_files(tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["config.json"]


def test_text_that_cannot_be_written_leaves_the_old_one_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "status.json"
    replace_text(path, "old")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2, before[1]))
    try:
        for _ in range(2):
            with pytest.raises(OSError, match="File too large"):
                replace_text(path, "new and longer")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert [it.read_text() for it in tmp_path.iterdir()] == ["old"]
    replace_text(path, "new")
    assert [it.read_text() for it in tmp_path.iterdir()] == ["new"]
