"""Files of a run on object storage on their way into a directory of this machine."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from blake3 import blake3

from distsgd.base.files import as_run_error, make_private_directory, staging_path
from distsgd.base.locations import Location
from distsgd.errors import CheckpointError, StorageError
from distsgd.store.pointer import POINTER, Files, Piece


def bring_up(into: Path, location: Location, files: Files, fetched: Files) -> None:
    """Have below `into` what `files` name, and nothing else of `fetched`, which says so; blocks.

    Raises:
        FileNotFoundError: An object is gone.
        CheckpointError: A file is damaged; names it.
        StorageError: The storage refuses, or does not answer.
        DiskError: The disk does.
    """
    for name, pieces in files.items():
        if fetched.get(name) != pieces:
            make_private_directory((into / name).parent)
            _fetch(into, location, name, pieces)
            fetched[name] = pieces
    for name in fetched.keys() - files.keys():
        (into / name).unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # Not empty, or the run itself.
            (into / name).parent.rmdir()
        del fetched[name]


def _fetch(into: Path, location: Location, name: str, pieces: tuple[Piece, ...]) -> None:
    """Put the pieces of a file together; it is whole, or as it was."""
    path = into / name
    staging = staging_path(path)
    try:
        with as_run_error(path):
            staging.touch(mode=0o600)
        for piece in pieces:
            _append(staging, location, name, piece)
        with as_run_error(path):
            staging.replace(path)
    finally:
        staging.unlink(missing_ok=True)


def _append(staging: Path, location: Location, name: str, piece: Piece) -> None:
    digest, size = blake3(), 0
    for part in _parts(location / piece.name):
        digest.update(part)
        size += len(part)
        with as_run_error(staging), staging.open("ab") as out:
            out.write(part)
    if size != piece.size_bytes or digest.hexdigest() != piece.blake3:
        reason = f"is damaged ({name}: another size or checksum than {POINTER} says)"
        raise CheckpointError(f"{location}/{piece.name}", reason)


def _parts(location: Location) -> Iterator[bytes]:
    """An object, part by part; FileNotFoundError also where it goes while it is read.

    Of that a client says anything.
    """
    try:
        yield from location.parts()
    except StorageError as error:
        with contextlib.suppress(StorageError):
            if location.stat() is None:
                raise FileNotFoundError(location.address) from error
        raise
