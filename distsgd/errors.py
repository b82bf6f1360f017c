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
     ├── CheckpointError            3   a saved artefact is damaged
     ├── ClusterError               4   Ray, a worker or a resource is not there
     │    ├── ExchangeTimeoutError  4   somebody did not answer in time
     │    ├── WorkerError           4   a worker gave something that cannot be a partial
     │    └── NumericsError         4   two processes compute different bits
     ├── DivergedError              5   the loss is no longer a finite number
     ├── TrainingInterrupted        6   stopped on request; resumable
     └── StoppedAtOnce              6   stopped without waiting for a step to end; resumable

Every field is positional to ``super().__init__``, so that an error survives pickling between
processes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar


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

    def __init__(self, path: Path | str, reason: str) -> None:
        super().__init__(str(path), reason)
        self.path, self.reason = Path(path), reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


class DiskError(RunError):
    """The disk refuses to write at `path`: full, read-only or broken.

    What was written before is as it was; `reason` says what to do before going on.
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
            f"{self.package} is not installed; install it with: pip install "
            f"'distsgd[{self.extra}]', or in a clone: scripts/env --with {self.extra}"
        )


class DataError(DistSGDError):
    """A source cannot be used.

    `path` is the file or column set, `reason` what is wrong and what to do.
    """

    exit_code = 3

    def __init__(self, path: Path | str, reason: str) -> None:
        super().__init__(str(path), reason)
        self.path, self.reason = str(path), reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


class ShardError(DataError):
    """A prepared data set is damaged or not one of ours."""


class CheckpointError(DistSGDError):
    """A saved artefact at `path` cannot be used."""

    exit_code = 3

    def __init__(self, path: Path | str, reason: str) -> None:
        super().__init__(str(path), reason)
        self.path, self.reason = Path(path), reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


class ClusterError(DistSGDError):
    """Ray, a worker or a resource is not there."""

    exit_code = 4


class ExchangeTimeoutError(ClusterError):
    """`waited_for` did not answer within `timeout_s` seconds."""

    def __init__(self, waited_for: str, timeout_s: float) -> None:
        super().__init__(waited_for, timeout_s)
        self.waited_for, self.timeout_s = waited_for, timeout_s

    def __str__(self) -> str:
        return f"waited {self.timeout_s:g} s for {self.waited_for}, without an answer"


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


class TrainingInterrupted(DistSGDError):  # noqa: N818 -- not a fault: the run stopped because it was asked to.
    """Training stopped on request at `step`; `path` is the run to resume."""

    exit_code = 6

    def __init__(self, path: Path | str, step: int) -> None:
        super().__init__(str(path), step)
        self.path, self.step = Path(path), step

    def __str__(self) -> str:
        return (
            f"interrupted after step {self.step}; go on with: distsgd train ... --run-dir "
            f"{self.path} --resume auto"
        )


class StoppedAtOnce(DistSGDError):  # noqa: N818 -- the same.
    """Stopped without waiting for a step; `has_begun` says whether training had begun."""

    exit_code = 6

    def __init__(self, has_begun: bool) -> None:  # noqa: FBT001 -- fields are positional.
        super().__init__(has_begun)
        self.has_begun = has_begun

    def __str__(self) -> str:
        if self.has_begun:
            return "stopped at once; --resume auto goes on from the last checkpoint"
        return "stopped before training began: no step was made; --resume auto starts it"
