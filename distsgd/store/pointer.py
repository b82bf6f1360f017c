"""What ``RUN.json`` of a run on object storage says: who may write, and which objects hold a file.

No I/O here.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from distsgd.base.files import encode_json
from distsgd.base.leases import Owned
from distsgd.base.locations import Location
from distsgd.errors import CheckpointError

POINTER = "RUN.json"
DEATHS = "suspects.json"  # Beside it: is of a process that died, so no pointer names it.
GROWING = (".jsonl",)  # Files that are appended to, kept in pieces.
_FORMAT = 1
OBJECTS = "objects"  # The folder of what the files hold.
BEGUN_WITHIN_S = 86400.0  # What a run begins with is published much sooner, or never.
_OBJECT = re.compile(rf"{OBJECTS}/(\d+)-\d+-[0-9a-f]{{16}}")


class Piece(NamedTuple):
    """One object that holds a file, or the next part of one."""

    name: str
    size_bytes: int
    blake3: str


Files = dict[str, tuple[Piece, ...]]  # The pieces of each file, by its path in the run.


@dataclass(frozen=True, slots=True)
class Pointer(Owned):
    """What ``RUN.json`` says.

    Attributes:
        fence: How many owners there were.
        session: Of the training that it is part of, whose processes succeed each other; "" if none.
        files: What each file is made of.
    """

    fence: int = 0
    session: str = ""
    files: Files = field(default_factory=dict)

    def encoded(self) -> bytes:
        """As JSON."""
        files = {name: [list(it) for it in pieces] for name, pieces in self.files.items()}
        found = {"format": _FORMAT, "fence": self.fence, "owner": self.owner, "token": self.token}
        found |= {"session": self.session, "renewals": self.renewals, "files": files}
        return encode_json(Path(POINTER), found, indent=1)

    @classmethod
    def decoded(cls, data: bytes, location: Location) -> Pointer:
        """What `data` says. Raises CheckpointError where it is none."""
        try:
            found = json.loads(data)
            files = {
                name: tuple(Piece(str(a), int(b), str(c)) for a, b, c in pieces)
                for name, pieces in found["files"].items()
            }
            fence, renewals = int(found["fence"]), int(found["renewals"])
            owner, token, session = (str(found[key]) for key in ("owner", "token", "session"))
            pointer = cls(owner, token, renewals, fence, session, files)
            version = found["format"]
        except (
            ValueError,
            KeyError,
            TypeError,
            AttributeError,
            OverflowError,
            RecursionError,
        ) as error:
            raise CheckpointError(str(location), f"{POINTER} is no pointer: {error}") from None
        if version != _FORMAT:
            reason = f"{POINTER} has format {version!r}; must be {_FORMAT} (use a later distsgd)"
            raise CheckpointError(str(location), reason)
        # A name from a file is never a way out of the run: things are read and removed by it.
        for name in files:
            parts = name.split("/")
            if not name.isprintable() or any(part in ("", ".", "..") for part in parts):
                reason = f"{POINTER} names the file {name!r}, which is none of a run"
                raise CheckpointError(str(location), reason)
        for name in sorted(objects_of(pointer)):
            if not _OBJECT.fullmatch(name):
                reason = f"{POINTER} names the object {name!r}, which is none of a run"
                raise CheckpointError(str(location), reason)
        return pointer


def objects_of(pointer: Pointer) -> set[str]:
    """The objects that hold its files."""
    return {piece.name for pieces in pointer.files.values() for piece in pieces}


def is_leftover(name: str, fence: int, age_s: float) -> bool:
    """Was an object uploaded by an owner before the one of `fence`?

    What a run begins with, which another process may just be about to publish, is one when it is
    `BEGUN_WITHIN_S` old.

    >>> is_leftover("objects/3-17-0123456789abcdef", 4, 0.0)
    True
    >>> is_leftover("objects/0-17-0123456789abcdef", 4, 10.0)
    False
    """
    match = _OBJECT.fullmatch(name)
    if match is None or int(match[1]) >= fence:
        return False
    return int(match[1]) > 0 or age_s > BEGUN_WITHIN_S
