"""What a job says, for people: without the lines that are one object for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class LogLines:
    """Passes a text on that comes in pieces, but for its lines that are a JSON object.

    Args:
        write: Takes what is passed on.
    """

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write, self._begun = write, ""

    def __call__(self, text: str) -> None:
        """The next piece; a line that has not ended waits."""
        *lines, self._begun = (self._begun + text).split("\n")
        self._write("".join(f"{line}\n" for line in lines if not _is_object(line)))

    def end(self) -> None:
        """There is no more."""
        if not _is_object(self._begun):
            self._write(self._begun)
        self._begun = ""


@contextmanager
def written_lines(*, as_json: bool) -> Iterator[LogLines]:
    """What a job says goes to standard output, unless that is for one object."""
    stream = sys.stderr if as_json else sys.stdout

    def write(text: str) -> None:
        stream.write(text)
        stream.flush()

    lines = LogLines(write)
    try:
        yield lines
    finally:
        lines.end()


def _is_object(line: str) -> bool:
    """Is it an object of ours?

    >>> _is_object('{"status": "done"}'), _is_object("{"), _is_object("step 3")
    (True, False, False)
    """
    if not line.startswith("{"):
        return False
    try:
        return "status" in json.loads(line)
    except ValueError:
        return False
