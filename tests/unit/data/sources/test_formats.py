from __future__ import annotations

from pathlib import Path

import pytest

from distsgd.data.sources.formats import expand_paths
from distsgd.errors import DataError


def test_paths_and_globs_come_sorted_and_once(tmp_path: Path) -> None:
    for name in ("b.parquet", "a.parquet", "c.txt"):
        (tmp_path / name).touch()
    found = expand_paths(str(tmp_path / "*.parquet"))
    assert [path.name for path in found] == ["a.parquet", "b.parquet"]
    with pytest.raises(DataError, match="is named twice"):
        expand_paths([tmp_path / "a.parquet", str(tmp_path / "*.parquet")])


def test_a_file_whose_name_looks_like_a_glob_is_that_file(tmp_path: Path) -> None:
    (tmp_path / "a[1].parquet").touch()
    assert expand_paths(tmp_path / "a[1].parquet") == [tmp_path / "a[1].parquet"]


@pytest.mark.parametrize(
    ("name", "message"),
    [("none.parquet", "no such file"), ("*.parquet", "no file matches"), ("", "is a directory")],
)
def test_paths_that_name_nothing_are_refused(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        expand_paths(str(tmp_path / name))


def test_no_path_is_refused() -> None:
    with pytest.raises(DataError, match="no file was named"):
        expand_paths([])
