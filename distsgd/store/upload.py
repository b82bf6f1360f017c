"""Files of a run's directory on their way to object storage, each once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from blake3 import blake3

from distsgd.base.locations import Location
from distsgd.store.pointer import GROWING, OBJECTS, Piece, Pointer

_MOST_PIECES = 64
_NOT_PUBLISHED = frozenset({"lock", "workers.json", "metrics.prom"})


class Upload:
    """Brings files of a directory to storage, each once; `base` says what it has."""

    def __init__(self, location: Location, base: Pointer) -> None:
        self._location, self._base = location, base
        # Size and time of change of what was uploaded, and the pieces that hold it: also where the
        # pointer to them could not be written.
        self._known: dict[str, tuple[tuple[int, int], tuple[Piece, ...]]] = {}
        self._count = 0

    def pointer(self, directory: Path) -> Pointer:
        """The pointer to the files as they are now, all of them uploaded; blocks."""
        files = {}
        for path in sorted(directory.rglob("*")):
            name = path.relative_to(directory).as_posix()
            if path.is_file() and not _is_private(name):
                files[name] = self._uploaded(path, name)
        # Objects of a file that is gone are swept: should it come again, they are not named again.
        self._known = {name: it for name, it in self._known.items() if name in files}
        return replace(self._base, files=files)

    def published(self, pointer: Pointer) -> None:
        """`pointer` is on storage: begin from it."""
        self._base = pointer

    def _uploaded(self, path: Path, name: str) -> tuple[Piece, ...]:
        status = path.stat()
        stamp = (status.st_size, status.st_mtime_ns)
        known_stamp, before = self._known.get(name, (None, self._base.files.get(name, ())))
        if known_stamp == stamp:
            return before
        data = path.read_bytes()
        kept = sum(piece.size_bytes for piece in before)
        grows = name.endswith(GROWING) and 0 < len(before) < _MOST_PIECES and kept <= len(data)
        if before and kept == len(data) and _is_same(before, data):
            pieces = before
        elif grows and _is_same(before, data[:kept]):
            pieces = (*before, self._put(data[kept:]))
        else:
            pieces = (self._put(data),)
        self._known[name] = stamp, pieces
        return pieces

    def _put(self, data: bytes) -> Piece:
        self._count += 1
        digest = blake3(data).hexdigest()
        name = f"{OBJECTS}/{self._base.fence}-{self._count}-{self._base.token}"
        (self._location / name).write_bytes(data)
        return Piece(name, len(data), digest)


def _is_private(name: str) -> bool:
    return name in _NOT_PUBLISHED or any(part.startswith(".") for part in name.split("/"))


def _is_same(pieces: tuple[Piece, ...], data: bytes) -> bool:
    """Does `data`, of their size, hold what `pieces` hold?"""
    start = 0
    for piece in pieces:
        if blake3(data[start : start + piece.size_bytes]).hexdigest() != piece.blake3:
            return False
        start += piece.size_bytes
    return True
