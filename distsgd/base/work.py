"""Work of another process, by name: a plain function ``module:name`` that takes JSON values.

It is called with what it is told and with a `Stop`, and what it finds it writes to files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from distsgd.base.named import find_object
from distsgd.errors import DistSGDError


class Stop:
    """A request to end, which may come before the work has begun; from any thread.

    >>> stop = Stop()
    >>> stop.ask()
    >>> stop.taken_by(lambda: print("ends"))
    ends
    """

    def __init__(self) -> None:
        self.is_asked = False
        self._take: Callable[[], object] = lambda: None

    def ask(self) -> None:
        """What is under way shall end soon."""
        self.is_asked = True
        self._take()

    def taken_by(self, take: Callable[[], object]) -> None:
        """Call `take` when it is asked; now, if it was."""
        self._take = take
        if self.is_asked:
            take()


def do_work(function: str, task: Mapping[str, Any], stop: Stop) -> str:
    """Call `function` with `task`; the text of the error of ours that it raised, in a line, or "".

    Raises:
        Exception: Any other that it raised.
    """
    try:
        find_object(function)(task, stop)
    except DistSGDError as error:
        return " ".join(str(error).split())
    return ""
