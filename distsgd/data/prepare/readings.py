"""Sources of the user's own are read more than once: each reading must give the same rows.

A split is made of row numbers, and statistics in another reading than the rows are written in. A
file that changes meanwhile is seen by its size and time; a source of one's own by what it gives.
Letters: N rows of a piece, I features.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from distsgd.data.options import ClassName
from distsgd.errors import DataError


class Readings:
    """The readings of one source; those of labels alone are held against those of all columns."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._seen: dict[str, str] = {}

    def end(self, reading: Reading) -> None:
        """Raises DataError where `reading` gave other rows than one before."""
        for what, digest in reading.digests().items():
            if self._seen.setdefault(what, digest) != digest:
                raise DataError(
                    self._name,
                    f"gave other {what} when it was read again, or the same in another order; "
                    "batches() must give the same rows in the same order each time (see "
                    "distsgd.TableSource)",
                )


class Reading:
    """What one reading gives, hashed, however it is cut into pieces."""

    def __init__(self) -> None:
        self._features, self._labels = blake3(), blake3()
        self._has_features = False

    def add(
        self,
        x_NI: NDArray[np.float64],
        target: NDArray[Any] | None,
        class_names: Sequence[ClassName] | None,
    ) -> None:
        """The next rows; a class may have another index in each reading, and has one name."""
        if x_NI.size:
            self._has_features = True
            self._features.update(np.ascontiguousarray(x_NI).tobytes())
        if target is not None:
            values = target if class_names is None else _by_name(target, class_names)
            self._labels.update(np.ascontiguousarray(values).tobytes())

    def digests(self) -> dict[str, str]:
        """By what they are of."""
        found = {"features": self._features} if self._has_features else {}
        return {what: it.hexdigest() for what, it in (found | {"labels": self._labels}).items()}


def _by_name(classes: NDArray[Any], names: Sequence[ClassName]) -> NDArray[np.uint64]:
    """A number for each class that its name alone decides."""
    codes, places = np.unique(classes, return_inverse=True)
    digests = b"".join(blake3(repr(names[code]).encode()).digest(8) for code in codes.tolist())
    return np.frombuffer(digests, np.uint64)[places]
