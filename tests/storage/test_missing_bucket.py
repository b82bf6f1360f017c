"""A bucket that is not there is said to be so, and not that a run or a data set is missing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from distsgd import Run
from distsgd.base.locations import Location
from distsgd.data.cache_address import cached_at
from distsgd.data.check import check
from distsgd.data.dataset import DataSet
from distsgd.data.node_cache import StoredData
from distsgd.data.options import PrepareOptions
from distsgd.data.prepare.prepare import prepare
from distsgd.data.tables import arrays_source
from distsgd.errors import StorageError
from distsgd.store.run_directory import RunDirectory
from tests.storage.proxy import FaultProxy

NOWHERE = Location("s3://no-such-bucket/a/b")
LABEL = PrepareOptions(label=("label",))
READS: dict[str, Callable[[Location], object]] = {
    "is it a run": RunDirectory.is_run,
    "a run": lambda it: Run.open(str(it)),
    "a new run": RunDirectory.create,
    "data": lambda it: DataSet.open(StoredData(it)),
    "a file": Location.read_bytes,
    "a listing": Location.files,
    "a look": Location.stat,
    "a file to remove": Location.delete,
    "a file to write": lambda it: it.write_bytes(b"1"),
}


@pytest.mark.usefixtures("bucket")
@pytest.mark.parametrize("what", READS)
def test_missing_bucket_is_named(what: str) -> None:
    with pytest.raises(StorageError, match="bucket no-such-bucket does not exist, or is not vis"):
        READS[what](NOWHERE)


def test_missing_bucket_of_a_cache_is_named_before_anything_is_prepared(
    bucket: Location, tmp_path: Path
) -> None:
    (bucket / "rows.csv").write_bytes(b"a,label\n1,0\n2,1\n")
    said: list[str] = []
    with pytest.raises(StorageError, match="bucket no-such-bucket does not exist"):
        cached_at(f"{bucket}/rows.csv", NOWHERE, options=LABEL, on_message=said.append)
    source = arrays_source(np.eye(2), np.arange(2))
    with pytest.raises(StorageError, match="bucket no-such-bucket does not exist"):
        prepare(source, NOWHERE, options=LABEL, cache_dir=tmp_path)
    assert not said


def test_missing_bucket_of_raw_rows_is_named(bucket: Location) -> None:
    del bucket
    for pattern in ("rows.csv", "*.csv"):
        with pytest.raises(StorageError, match="bucket no-such-bucket does not exist"):
            check(f"s3://no-such-bucket/{pattern}")


def test_bucket_that_may_not_be_asked_for_is_taken_as_there(
    bucket: Location, proxy: FaultProxy
) -> None:
    proxy.spared, proxy.refusals = 1, 1000  # The file is missing; of the bucket nothing is said.
    with pytest.raises(FileNotFoundError):
        (bucket / "none").read_bytes()
