"""Putting a prepared data set on object storage: its shards first, the manifest last.

With its manifest it is whole: what an interrupted upload has left is no data set, and is written
over by the next one.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from distsgd.base.locations import Location
from distsgd.data.fetch import CopyWatch
from distsgd.data.manifest import MANIFEST_FILE
from distsgd.errors import DataError, StorageError

_SHARD = re.compile(r"(train|test)-\d{5}\.arrow")


def check_free(out: Location) -> None:
    """Refuse an address at which there is something else than an unfinished upload; blocks.

    Raises:
        DataError: There is.
        StorageError: The storage refuses, or does not answer.
    """
    if out.stat() is not None:
        raise DataError(out.address, "is a file; name a new address")
    for there in out.files():
        name = there.location.address.removeprefix(f"{out.address}/")
        if name == MANIFEST_FILE:
            raise DataError(out.address, "holds a prepared data set already; name a new address")
        if not _SHARD.fullmatch(name):
            raise DataError(out.address, f"is not empty (it holds {name}); name a new address")


def upload(directory: Path, out: Location, say: Callable[[str], None]) -> None:
    """Copy the files of a prepared directory to `out`, the manifest last; blocks.

    Raises:
        StorageError: The storage refuses, or does not answer.
        OSError: The disk does.
    """
    shards = sorted(directory.glob("*.arrow"))
    watch = CopyWatch("uploading", sum(file.stat().st_size for file in shards), say)
    for file in shards:
        watch.begin(out / file.name)
        (out / file.name).copy_from(file, watch.add)
    sizes = {it.location.address: it.size_bytes for it in out.files()}
    for file in shards:
        there, size_bytes = sizes.get(f"{out}/{file.name}"), file.stat().st_size
        if there != size_bytes:
            reason = f"has {there} bytes where {size_bytes} were written; prepare again"
            raise StorageError(f"{out}/{file.name}", reason)
    (out / MANIFEST_FILE).write_bytes((directory / MANIFEST_FILE).read_bytes())
