"""Errors in code of the user's own: one of ours, with his traceback, from whichever process.

No I/O here.
"""

from __future__ import annotations

import traceback
from types import TracebackType

from distsgd.base.places import frames_of_user
from distsgd.errors import DistSGDError, ModelError


class OwnCodeError(ModelError):
    """The code of `name` raised an error.

    `reason` is that error in a line, `frames` its traceback from the user's first frame on; `step`
    is where, None outside of training.
    """

    def __init__(self, name: str, reason: str, frames: str, step: int | None = None) -> None:
        super().__init__(name, reason, frames, step)
        self.name, self.reason, self.frames, self.step = name, reason, frames, step

    def __str__(self) -> str:
        when = "" if self.step is None else f" at step {self.step}"
        return f"{self.name} raises {self.reason}{when} (mend it):\n{self.frames}".rstrip()

    def at(self, step: int) -> OwnCodeError:
        """The same, raised at `step`."""
        return OwnCodeError(self.name, self.reason, self.frames, step)


class own_code:  # noqa: N801 -- used as a function is; a generator would take twice as long.
    """What the code of `name`, called inside the block, raises leaves it as an `OwnCodeError`.

    Errors of ours pass as they are, and so do MemoryError and what is no `Exception`.
    """

    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> None:
        """Nothing."""

    def __exit__(
        self, kind: object, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, Exception) and not isinstance(error, DistSGDError | MemoryError):
            raise OwnCodeError(self._name, _reason(error), _frames(error)) from error


def _reason(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return ": ".join([type(error).__name__, *lines[:1]])


def _frames(error: Exception) -> str:
    frames = traceback.format_list(frames_of_user(error))
    return "".join([*frames, *traceback.format_exception_only(error)])
