"""What a job is: a run that a Ray cluster trains, by a name. Plain data, no Ray here.

Each submission of a name is one of Ray's jobs, ``NAME.1``, ``NAME.2`` and so on; all of them train
one and the same run.
"""

from __future__ import annotations

import re
import secrets
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from distsgd import __version__
from distsgd.base.locations import place_of
from distsgd.errors import ConfigError

PENDING, RUNNING, STOPPED, SUCCEEDED, FAILED = (
    "PENDING",
    "RUNNING",
    "STOPPED",
    "SUCCEEDED",
    "FAILED",
)
STOP_WAIT_S = 60  # From asking a driver to end until it is killed; Ray's own 3 s save nothing.
RUNS = "~/distsgd-runs"  # Where no other place is named; enough where the head has the server.
NAME, RUN_DIR, RUN_ID = "distsgd_name", "distsgd_run_dir", "distsgd_run_id"  # Kept by Ray.
RUN_ID_VARIABLE = "DISTSGD_RUN_ID"  # In the environment of a job's driver.
MOST_CHARACTERS = 63  # Of a name.
_NAME = re.compile(rf"[A-Za-z0-9][A-Za-z0-9_-]{{0,{MOST_CHARACTERS - 1}}}")
_PATHS = ("data.path", "data.test_path", "model.initial_weights")
_INTERRUPTED, _CLUSTER = 6, 4  # Exit codes.


@dataclass(frozen=True, slots=True)
class Job:
    """One submission, as Ray knows it.

    Attributes:
        name: Of the job; the same for all submissions that train one run.
        id: Of this submission.
        status: "PENDING", "RUNNING", "STOPPED", "SUCCEEDED" or "FAILED": Ray's word.
        message: What Ray says besides; one line.
        run_dir: Where the run is kept, as the driver's node finds it.
        started_s: When it was submitted; seconds since 1970.
        ended_s: When it ended; None where it has not.
        driver_exit_code: What the driver ended with; None where it has not, or nobody knows.
        run_id: What `JOB_FILE` in the run directory says; "" where the job is older than that.
        entry_point: What Ray gave to a shell: see `JobRequest.entry_point`.
    """

    name: str
    id: str
    status: str
    message: str
    run_dir: str
    started_s: float
    ended_s: float | None
    driver_exit_code: int | None
    run_id: str = ""
    entry_point: str = ""

    @property
    def number(self) -> int:
        """Which submission of its name this is; counted from 1."""
        return int(self.id.rpartition(".")[2])

    @property
    def has_ended(self) -> bool:
        """Will nothing of it change any more?"""
        return self.status in (STOPPED, SUCCEEDED, FAILED)

    @property
    def exit_code(self) -> int | None:
        """The exit code of its run; 4 where it was lost with its driver, None before the end.

        >>> Job("a", "a.1", "STOPPED", "", "/runs/a", 0.0, 9.0, None).exit_code
        6
        """
        if not self.has_ended:
            return None
        if self.status == STOPPED:
            return _INTERRUPTED
        if self.driver_exit_code is None:
            return 0 if self.status == SUCCEEDED else _CLUSTER
        return self.driver_exit_code if self.driver_exit_code >= 0 else _CLUSTER


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRequest:
    """What is to be trained, and where.

    Attributes:
        name: Of the job: letters, digits, "-" and "_".
        config: The configuration, in `working_dir`; or its path in `image`.
        run_dir: An address, or a path from the root or the home directory; None: where the last
            submission of this name has it, or else below `RUNS`.
        cache_dir: The same for prepared data, which all nodes must see; None: on the driver's.
        overrides: Keys of the configuration, ``section.key=value``.
        arguments: What else ``train`` is told.
        retries: How often a driver that dies is started again.
        working_dir: The directory that is packed and sent.
        image: A container image that has distsgd and the configuration, instead of `working_dir`.
        run_id: Of the run, which is that of no other run on any machine.

    Raises:
        ConfigError: The name, the place of the run or that of the configuration cannot be used.
    """

    name: str
    config: Path
    run_dir: str | None = None
    cache_dir: str | None = None
    overrides: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ()
    retries: int = 0
    working_dir: Path = Path()
    image: str | None = None
    run_id: str = field(default_factory=lambda: secrets.token_hex(8))

    def __post_init__(self) -> None:
        problems = _problems_of_name(self.name)
        problems += _problems_of_place("--run-dir", self.run_dir)
        problems += _problems_of_place("--cache-dir", self.cache_dir)
        problems += [text for one in self.overrides for text in _problems_of_override(one)]
        if self.image is not None and not self.config.is_absolute():
            problems.append(
                f"the configuration is {self.config}; must be a path from the root, in the image "
                f"{self.image}: with --image no working directory is sent"
            )
        if self.image is None and not _is_below(self.config, self.working_dir):
            problems.append(
                f"the configuration {self.config} does not lie in {self.working_dir.resolve()}, "
                "which is what is sent to the cluster (say --working-dir)"
            )
        if problems:
            raise ConfigError(problems)

    def entry_point(self, run_dir: str) -> str:
        """What Ray gives to a shell."""
        config = self.config
        if self.image is None:
            config = config.resolve().relative_to(self.working_dir.resolve())
        name = str(config)
        words = ["python", "-m", "distsgd", "job", "drive"]
        words += [f"./{name}" if name.startswith("-") else name]
        words += ["--name", self.name, "--run-dir", run_dir, "--retries", str(self.retries)]
        words += ["--submitted-with", __version__, "--"]
        words += [word for one in self.overrides for word in ("--set", one)]
        words += [] if self.cache_dir is None else ["--cache-dir", self.cache_dir]
        words += self.arguments
        return shlex.join(words)

    def differs(self, job: Job) -> str:
        """What `job` is not asked for as this, in words; empty where it is the same."""
        asked, there = _options(self.entry_point(job.run_dir)), _options(job.entry_point)
        if not self.retries:  # Nobody asked.
            asked, there = ([it for it in some if it[0] != "--retries"] for some in (asked, there))
        mine = [shlex.join(it) for it in asked if it not in there]
        its = [shlex.join(it) for it in there if it not in asked]
        both = [f"asked for is {', '.join(mine)}"] * bool(mine)
        return "; ".join(both + [f"it has {', '.join(its)}"] * bool(its))

    def runtime_env(self) -> dict[str, Any]:
        """What the driver and all its actors have, as Ray takes it."""
        # Not an option: a node with another version is to say so, not that it knows none.
        env_vars = {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_WAIT_S), RUN_ID_VARIABLE: self.run_id}
        if self.image is not None:
            return {"image_uri": self.image, "env_vars": env_vars}
        directory = self.working_dir.resolve()
        # Runs of this machine are no part of a job; a configuration that lies in one is.
        is_in_runs = self.config.resolve().is_relative_to(directory / "runs")
        excludes = [] if is_in_runs else ["/runs/"]
        return {"working_dir": str(directory), "excludes": excludes, "env_vars": env_vars}

    def metadata(self, run_dir: str) -> dict[str, str]:
        """What Ray keeps with the submission, for `job_of`."""
        told = {NAME: self.name, RUN_DIR: run_dir, RUN_ID: self.run_id}
        return told | {"distsgd_version": __version__}


def job_of(details: Any) -> Job | None:
    """A job from Ray's `JobDetails`; None where it is none of ours."""
    metadata: Mapping[str, str] = details.metadata or {}
    if not details.submission_id or NAME not in metadata:
        return None
    return Job(
        metadata[NAME],
        details.submission_id,
        str(details.status),
        _said(details.message or ""),
        metadata.get(RUN_DIR, ""),
        (details.start_time or 0) / 1000,
        details.end_time / 1000 if details.end_time else None,
        details.driver_exit_code,
        metadata.get(RUN_ID, ""),
        details.entrypoint or "",
    )


def _options(entry_point: str) -> list[list[str]]:
    """The configuration and the options in an entry point, each with its value.

    >>> _options("python -m distsgd job drive a.toml --name a --submitted-with 1 -- --set b.c=1 -x")
    [['a.toml'], ['--name', 'a'], ['--set', 'b.c=1'], ['-x']]
    """
    found: list[list[str]] = []
    for word in shlex.split(entry_point)[5:]:
        if word.startswith("-") or not found or len(found[-1]) == 2 or found[-1][0][0] != "-":
            found.append([])
        found[-1].append(word)
    return [it for it in found if it[0] not in ("--", "--submitted-with")]


def _said(message: str) -> str:
    """Ray's message without the end of the log that it adds."""
    first, _, _ = message.strip().partition("\n")
    return first.partition(", last available logs")[0]


def default_name(config: Path, now: datetime) -> str:
    """A name for a job of this configuration, which may be called anything.

    >>> default_name(Path("my net.v2.toml"), datetime(2026, 11, 30, 16, 5, 0))
    'my-net-v2-20261130-160500'
    """
    when = f"-{now:%Y%m%d-%H%M%S}"
    stem = re.sub(r"[^A-Za-z0-9_-]+", "-", config.stem).lstrip("-_")
    return (stem[: MOST_CHARACTERS - len(when)].rstrip("-_") or "job") + when


def _problems_of_name(name: str) -> list[str]:
    if _NAME.fullmatch(name):
        return []
    return [f'--name is "{name}"; must be 1 to 63 letters, digits, - and _, no - or _ first']


def _problems_of_place(option: str, value: str | None) -> list[str]:
    if value is None or value.startswith("~/"):
        return []
    place = place_of(value)
    if isinstance(place, Path) and not place.is_absolute():
        rule = (
            "must be s3://BUCKET/KEY or another address, or a path from the root (/) or the home "
            "directory (~/) of the cluster's nodes: the job does not run in this directory"
        )
        return [f"{option} is {value}; {rule}"]
    return []


def _problems_of_override(override: str) -> list[str]:
    """What is typed is relative to a directory that is another for every submission."""
    key, _, value = override.partition("=")
    path = value.strip(" \"'[]")
    if key.strip() not in _PATHS or path.startswith("/") or "://" in path:
        return []
    rule = "must be an address or a path from the root, or stand in the configuration"
    return [f"--set {override}: {rule}, where it is relative to its directory"]


def _is_below(path: Path, directory: Path) -> bool:
    return path.resolve().is_relative_to(directory.resolve())
