"""Where an error was raised, as far as it is of use: in code that is neither ours nor a library's.

Of an error of this process, or of the text of a traceback from another one. No I/O here.
"""

from __future__ import annotations

import re
import sysconfig
import traceback
from collections.abc import Iterable
from pathlib import Path

_FRAME = re.compile(r'File "([^"\n]+)", line ([0-9]+), in (\S+)')
_OURS = str(Path(__file__).parents[1])
_LIBRARY = str(Path(sysconfig.get_path("stdlib")))
_OUR_WORKERS = "/distsgd_workers/"
_ELSEWHERE = ("/site-packages/", "/dist-packages/", _OUR_WORKERS, "<frozen ")
_MOST_OF_LIBRARIES = 3


def raised_at(error: BaseException) -> str:
    """Where `error` was raised, in brackets for a message; "" where no code of the user's did."""
    frames = traceback.extract_tb(error.__traceback__)
    return _place((frame.filename, str(frame.lineno), frame.name) for frame in frames)


def frames_of_user(error: BaseException) -> list[traceback.FrameSummary]:
    """The traceback of `error` from the first frame of the user's code on, without ours.

    Where no code of the user's was called, the last frames of the libraries that were.
    """
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not (frame.filename.startswith(_OURS) or _OUR_WORKERS in frame.filename)
    ]
    first = (at for at, frame in enumerate(frames) if not _is_a_library(frame.filename))
    return frames[next(first, -_MOST_OF_LIBRARIES) :]


def place_in(text: str) -> str:
    r"""The same for the text of a traceback.

    >>> place_in(
    ...     'File "/a/mine.py", line 7, in compute\n File "/b/site-packages/c.py", line 1, in d'
    ... )
    ' (/a/mine.py, line 7, in compute)'
    """
    return _place(_FRAME.findall(text))


def _place(frames: Iterable[tuple[str, str, str]]) -> str:
    found = [frame for frame in frames if not _is_a_library(frame[0])]
    return " ({}, line {}, in {})".format(*found[-1]) if found else ""


def _is_a_library(file: str) -> bool:
    return file.startswith((_OURS, _LIBRARY)) or any(part in file for part in _ELSEWHERE)
