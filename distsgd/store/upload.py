"""Files of a run's directory on their way to object storage, each once."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from blake3 import blake3

from distsgd.base.locations import PART_SIZE_BYTES, Location
from distsgd.store.pointer import GROWING, OBJECTS, Files, Piece, Pointer

_MOST_PIECES = 64
_NOT_PUBLISHED = frozenset({"lock", "workers.json", "metrics.prom"})


class Upload:
    """Brings files of a directory to storage, each once; `base` says what it has."""

    def __init__(self, location: Location, base: Pointer) -> None:
        self._location, self._base = location, base
        self._files = base.files
        # Size and time of change of what was uploaded, and the pieces that hold it: also where the
        # pointer to them could not be written.
        self._known: dict[str, tuple[tuple[int, int], tuple[Piece, ...]]] = {}
        self._count = 0

    def files(self, directory: Path) -> Files:
        """The pieces of the files as they are now, all of them uploaded; blocks.

        Raises:
            StorageError: The storage refuses, or does not answer.
            OSError: The disk does.
        """
        files = {}
        for path in sorted(directory.rglob("*")):
            name = path.relative_to(directory).as_posix()
            if path.is_file() and not _is_private(name):
                files[name] = self._uploaded(path, name)
        # Objects of a file that is gone are swept: should it come again, they are not named again.
        self._known = {name: it for name, it in self._known.items() if name in files}
        return files

    def published(self, files: Files) -> None:
        """The pointer to `files` is on storage: begin from them."""
        self._files = files

    def _uploaded(self, path: Path, name: str) -> tuple[Piece, ...]:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            size, stamp = status.st_size, (status.st_size, status.st_mtime_ns)
            known_stamp, before = self._known.get(name, (None, self._files.get(name, ())))
            if known_stamp == stamp:
                return before
            kept = sum(piece.size_bytes for piece in before)
            grows = name.endswith(GROWING) and len(before) < _MOST_PIECES and kept < size
            if before and (kept == size or grows) and _begins_with(file, before):
                pieces = before if kept == size else (*before, self._put(file, size - kept))
            else:
                file.seek(0)
                pieces = (self._put(file, size),)
        self._known[name] = stamp, pieces
        return pieces

    def _put(self, file: BinaryIO, num_bytes: int) -> Piece:
        """Upload what follows in an open file."""
        self._count += 1
        name = f"{OBJECTS}/{self._base.fence}-{self._count}-{self._base.token}"
        digest, start = blake3(), file.tell()

        def hashed() -> Iterator[bytes]:
            for part in _parts(file, num_bytes):
                digest.update(part)
                yield part

        (self._location / name).write_parts(hashed())
        return Piece(name, file.tell() - start, digest.hexdigest())


def _is_private(name: str) -> bool:
    return name in _NOT_PUBLISHED or any(part.startswith(".") for part in name.split("/"))


def _begins_with(file: BinaryIO, pieces: tuple[Piece, ...]) -> bool:
    """Does it hold what `pieces` hold? It is read as far."""
    for piece in pieces:
        digest = blake3()
        for part in _parts(file, piece.size_bytes):
            digest.update(part)
        if digest.hexdigest() != piece.blake3:
            return False
    return True


def _parts(file: BinaryIO, num_bytes: int) -> Iterator[bytes]:
    """The next bytes of an open file, part by part; fewer where it ends before."""
    while num_bytes > 0 and (part := file.read(min(num_bytes, PART_SIZE_BYTES))):
        yield part
        num_bytes -= len(part)
