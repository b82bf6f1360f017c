"""Every error this package raises on purpose.

The tree is drawn here, and nothing below imports anything of ours.

    DistSGDError                    exit code
     ├── ConfigError                2   the configuration cannot be run; lists every problem at once
     ├── RunError                   2   the run directory cannot be used for this
     │    └── DiskError             4   the disk refuses to write; resumable when it does not
     ├── ModelError                 2   a network or loss that cannot be built or differentiated
     ├── MissingExtraError          2   an optional package is not installed
     ├── DataError                  3   a source, a row or a label cannot be used
     │    └── ShardError            3   a prepared data set is damaged
     ├── StorageError               4   object storage refuses, or does not answer
     │    └── PublishError          4   it has not taken the end of a run; resumable
     ├── CheckpointError            3   a saved artefact is damaged
     │    └── VerificationError     3   computing a run again gave another result
     ├── ClusterError               4   Ray, a worker or a resource is missing
     │    ├── WaitTimeoutError  4   an answer did not come in time
     │    ├── HeadLostError     4   the cluster went away in the middle of a run; resumable
     │    ├── WorkerError           4   a worker gave something that cannot be a partial
     │    └── NumericsError         4   two processes compute different bits
     ├── DivergedError              5   the loss is no longer a finite number
     └── Interrupted                6   stopped on request before its end; nothing is half-written
          ├── TrainingInterrupted   6   after a whole step, with a checkpoint; resumable
          ├── StoppedAtOnce         6   training, without waiting for a step to end; resumable
          └── ReplayInterrupted     6   a run that was being computed again; nothing is found out

Every field is positional to ``super().__init__``, so that an error survives pickling between
processes.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import ClassVar


def _place(place: object) -> Path | str:
    """A path; an address of object storage stays a text, since a path would lose a slash."""
    text = str(place)
    return text if "://" in text else Path(text)


class DistSGDError(Exception):
    """Root of the tree; `exit_code` is what the command line ends with."""

    exit_code: ClassVar[int] = 1


class ConfigError(DistSGDError):
    """A configuration cannot be run.

    `problems` holds every one, each with value, rule and way out.
    """

    exit_code = 2

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__(tuple(problems))
        self.problems = tuple(problems)

    def __str__(self) -> str:
        return "\n".join(self.problems)


class RunError(DistSGDError):
    """The run directory `path` cannot be used; `reason` is the rule and the way out."""

    exit_code = 2

    def __init__(self, path: object, reason: str) -> None:
        super().__init__(str(path), reason)
        self.path, self.reason = _place(path), reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


class DiskError(RunError):
    """The disk refuses to write at `path`: full, read-only or broken.

    What was written before is as it was; `reason` says what to do before resuming.
    """

    exit_code = 4


class ModelError(DistSGDError):
    """A network, loss or gate cannot be built or differentiated."""

    exit_code = 2


class MissingExtraError(DistSGDError):
    """What was asked for needs `package`, which comes with the optional dependencies `extra`."""

    exit_code = 2

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(package, extra)
        self.package, self.extra = package, extra

    def __str__(self) -> str:
        return (
            f"{self.package} is not installed; install it in your clone of distsgd with: "
            f"scripts/env --with {self.extra}, or: pip install -e '.[{self.extra}]'"
        )


class DataError(DistSGDError):
    """A source cannot be used.

    `path` is the file or column set, `reason` what is wrong and what to do.
    """

    exit_code = 3

    def __init__(self, path: PathLike[str] | str, reason: str) -> None:
        super().__init__(str(path), reason)
        self.path, self.reason = str(path), reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


class ShardError(DataError):
    """A prepared data set is damaged or not one of ours."""


class StorageError(DistSGDError):
    """The storage at `address` refuses, or does not answer; `reason` is what it says."""

    exit_code = 4

    def __init__(self, address: str, reason: str) -> None:
        super().__init__(address, reason)
        self.address, self.reason = address, reason

    def __str__(self) -> str:
        return f"{self.address}: {self.reason}"


class PublishError(StorageError):
    """Storage has not taken the end of the run at `address`; `command` resumes it, if not ""."""

    def __init__(self, address: str, reason: str, command: str = "") -> None:
        super(StorageError, self).__init__(address, reason, command)
        self.address, self.reason, self.command = address, reason, command

    def __str__(self) -> str:
        command = self.command or f'Trainer(config, run_dir="{self.address}").fit(resume="auto")'
        kept = "what was published before is kept; when the storage answers, resume with"
        return f"{self.address}: {self.reason}; {kept}: {command}"


class CheckpointError(DistSGDError):
    """A saved artefact at `path` cannot be used."""

    exit_code = 3

    def __init__(self, path: object, reason: str) -> None:
        super().__init__(str(path), reason)
        self.path, self.reason = _place(path), reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


class VerificationError(CheckpointError):
    """Computing the run at `path` again gave another result, first at `step`."""

    def __init__(self, path: object, step: int, reason: str) -> None:
        super(CheckpointError, self).__init__(str(path), step, reason)
        self.path, self.step, self.reason = _place(path), step, reason

    def __str__(self) -> str:
        return f"{self.path}: step {self.step} is the first that is wrong: {self.reason}"


class ClusterError(DistSGDError):
    """Ray, a worker or a resource is missing."""

    exit_code = 4


class WaitTimeoutError(ClusterError):
    """`waited_for` did not answer within `timeout_s` seconds."""

    def __init__(self, waited_for: str, timeout_s: float) -> None:
        super().__init__(waited_for, timeout_s)
        self.waited_for, self.timeout_s = waited_for, timeout_s

    def __str__(self) -> str:
        return f"waited {self.timeout_s:g} s for {self.waited_for}, without an answer"


class HeadLostError(ClusterError):
    """The head of the cluster at `place` has been silent for `silent_s` seconds.

    `path` is the run, seen last at `step`; `is_saved` says whether there is a checkpoint of that
    very step. `command` is the command line that resumes it, "" where there was none.
    """

    def __init__(
        self,
        place: str,
        silent_s: float,
        path: object = None,
        step: int = 0,
        is_saved: bool = False,  # noqa: FBT001, FBT002 -- fields are positional.
        command: str = "",
    ) -> None:
        where = None if path is None else _place(path)
        super().__init__(place, silent_s, where, step, is_saved, command)
        self.place, self.silent_s, self.path = place, silent_s, where
        self.step, self.is_saved, self.command = step, is_saved, command

    def __str__(self) -> str:
        lost = f"the head of the Ray cluster at {self.place} has not answered for "
        lost += f"{self.silent_s:g} s"
        if self.path is None:
            return lost
        seen = (
            f"the run was stopped after step {self.step}, with a checkpoint"
            if self.is_saved
            else f"the run was seen last at step {self.step}; what it has saved is kept"
        )
        command = self.command or f'Trainer(config, run_dir="{self.path}").fit(resume="auto")'
        return f"{lost}; {seen} in {self.path}; on a cluster that runs, resume with: {command}"


class WorkerError(ClusterError):
    """Worker `worker` failed at `step` for `reason`; the step was not applied."""

    def __init__(self, worker: int, step: int, reason: str) -> None:
        super().__init__(worker, step, reason)
        self.worker, self.step, self.reason = worker, step, reason

    def __str__(self) -> str:
        return f"worker {self.worker}, step {self.step}: {self.reason}"


class NumericsError(ClusterError):
    """Two processes of a run, or a run and its resume, would compute different bits."""


class DivergedError(DistSGDError):
    """The loss or the weights stopped being finite at `step`; `advice` says what to change."""

    exit_code = 5

    def __init__(self, step: int, advice: str) -> None:
        super().__init__(step, advice)
        self.step, self.advice = step, advice

    def __str__(self) -> str:
        return f"step {self.step}: {self.advice}"


class Interrupted(DistSGDError):  # noqa: N818 -- not a fault: it stopped because it was asked to.
    """A command was stopped before its end; `reason` says what that leaves."""

    exit_code = 6

    def __init__(self, reason: str = "interrupted: stopped before its end") -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return self.reason


class TrainingInterrupted(Interrupted):
    """Training stopped on request at `step`; `path` is the run to resume.

    `command` is the command line that resumes it, "" where there was none.
    """

    def __init__(self, path: object, step: int, command: str = "") -> None:
        super(Interrupted, self).__init__(str(path), step, command)
        self.path, self.step, self.command = _place(path), step, command

    def __str__(self) -> str:
        command = self.command or f'Trainer(config, run_dir="{self.path}").fit(resume="auto")'
        return f"interrupted after step {self.step}, with a checkpoint; resume with: {command}"


class StoppedAtOnce(Interrupted):
    """Training stopped without waiting for a step; `has_begun` says whether it had begun.

    `command` is the command line that resumes or starts it, "" where there was none.
    """

    def __init__(self, has_begun: bool, command: str = "") -> None:  # noqa: FBT001 -- fields are positional.
        super(Interrupted, self).__init__(has_begun, command)
        self.has_begun, self.command = has_begun, command

    def __str__(self) -> str:
        if self.has_begun:
            what, way_out = "stopped at once", "resume from the last checkpoint with"
        else:
            what, way_out = "stopped before training began: no step was made", "start it with"
        return f"{what}; {way_out}: {self.command}" if self.command else what


class ReplayInterrupted(Interrupted):
    """Computing the run `path` again was stopped after `step` of `num_steps` steps."""

    def __init__(self, path: object, step: int, num_steps: int) -> None:
        super(Interrupted, self).__init__(str(path), step, num_steps)
        self.path, self.step, self.num_steps = _place(path), step, num_steps

    def __str__(self) -> str:
        return (
            f"{self.path}: interrupted after {self.step} of {self.num_steps} steps were computed "
            "again; nothing was found out about the run, start it again to find out"
        )


def shortened(text: str, longest: int = 80) -> str:
    """The beginning of a text that is too long for a message.

    >>> shortened("abcdef", 6), shortened("abcdefg", 6)
    ('abcdef', 'abc...')
    """
    return text if len(text) <= longest else f"{text[: longest - 3]}..."


def first_line(error: BaseException) -> str:
    r"""What an error of another library says, for a message of ours; its type if it says nothing.

    >>> first_line(ValueError("no\nmore")), first_line(MemoryError())
    ('no', 'MemoryError')
    """
    return (str(error).splitlines() or [type(error).__name__])[0]


def did_you_mean(name: str, names: Sequence[str]) -> str:
    """The near names in parentheses; nothing where there are none.

    >>> did_you_mean("Digit", ["digit", "pixels"])
    " (did you mean 'digit'?)"
    """
    folded = {known.casefold(): known for known in reversed(names)}
    near = difflib.get_close_matches(name.casefold(), folded, n=3)
    return f" (did you mean {' or '.join(repr(folded[key]) for key in near)}?)" if near else ""
