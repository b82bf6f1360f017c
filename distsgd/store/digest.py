"""Digests: the proof that two runs went the same way, or the first step where they did not."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
from blake3 import blake3

from distsgd.base.arrays import Array
from distsgd.base.files import JsonLines
from distsgd.errors import CheckpointError

_HEX = re.compile(r"[0-9a-f]{64}\Z")
_START = "0" * 64


class DigestChain:
    """A hash of every (step, weights) so far.

    ``value = blake3(previous value || step as 8 bytes, little-endian || bytes of the weights)``. It
    starts at 32 zero bytes. Its value is also its state.

    Examples:
        >>> chain = DigestChain()
        >>> chain.extend(1, np.zeros(3, np.float32))[:16]
        '33eec26a0eb99807'
        >>> chain.value == DigestChain(chain.value).value
        True
    """

    __slots__ = ("_value",)

    def __init__(self, value: str = _START) -> None:
        if not isinstance(value, str) or not _HEX.match(value):
            raise CheckpointError("digest", f"is {value!r}; must be 64 hexadecimal digits")
        self._value = bytes.fromhex(value)

    @property
    def value(self) -> str:
        """32 bytes in hexadecimal digits; `DigestChain(value)` continues from here."""
        return self._value.hex()

    def extend(self, step: int, weights: Array) -> str:
        """Take in the `weights` after `step` updates; contiguous ones are not copied.

        Returns:
            The new value.
        """
        hasher = blake3(self._value)
        hasher.update(step.to_bytes(8, "little"))
        hasher.update(_bytes_of(weights))
        self._value = hasher.digest()
        return self._value.hex()


class DigestRow(NamedTuple):
    """The chain's value after `step` updates."""

    step: int
    digest: str


class DigestLog:
    """The values of a chain, one JSON object a line, in memory until `flush`."""

    def __init__(self, path: Path) -> None:
        self._lines = JsonLines(path)

    def append(self, step: int, digest: str) -> None:
        """Remember a value."""
        self._lines.append({"step": step, "digest": digest})

    def flush(self) -> None:
        """Make all appended values durable.

        Raises:
            RunError: The operating system refuses; the values stay in memory.
        """
        self._lines.flush()

    def drop_after(self, step: int) -> None:
        """Forget the values beyond `step`, in memory and on disk, as a resume makes them anew."""
        self._lines.drop_after(step)

    def read(self) -> tuple[DigestRow, ...]:
        """The values on disk.

        Raises:
            CheckpointError: A line is damaged; names it.
        """
        rows = []
        for number, line in self._lines.read():
            digest = line.get("digest")
            if not isinstance(digest, str) or not _HEX.match(digest):
                raise self._lines.damaged(
                    number, f"digest is {digest!r}; must be 64 hexadecimal digits"
                )
            rows.append(DigestRow(line["step"], digest))
        return tuple(rows)


def weights_digest(weights: Array) -> str:
    """blake3 of the bytes of `weights`, 64 hexadecimal digits; equal for equal bits only.

    Examples:
        >>> weights_digest(np.zeros(3, np.float32)) == weights_digest(np.zeros(3, np.float32))
        True
    """
    return blake3(_bytes_of(weights)).hexdigest()


def _bytes_of(weights: Array) -> memoryview:
    return np.ascontiguousarray(weights).reshape(-1).view(np.uint8).data
