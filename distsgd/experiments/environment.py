"""Where an experiment is made, and that it is made in one place by one process at a time.

Times of two machines cannot be compared, and another numerics profile gives other bits: what was
begun under one is not continued under another. Learning that was done elsewhere with the same bits
is taken, and said in the report.
"""

from __future__ import annotations

import os
import platform
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from distsgd import __version__
from distsgd.base.files import as_run_error, read_json, try_lock
from distsgd.errors import RunError
from distsgd.parallel.numerics import num_cores, profile

LOCK, RECORD = "lock", "environment.json"
_BITS = "numerics"
# What decides how long a step takes, or its bits. Not the platform: a new kernel of the operating
# system is another one.
_COMPARED = ("processor", "cores", "distsgd", "python", "numpy", "blas", _BITS)


def environment(dtype: str) -> dict[str, str]:
    """Machine, versions and numerics of this process, by name."""
    numerics = profile(dtype)
    return {
        "distsgd": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": str(num_cores()),
        "numpy": numerics.numpy,
        "blas": f"{numerics.blas}, kernel {numerics.kernel}",
        _BITS: numerics.probe,
    }


def _processor() -> str:
    """What the operating system calls it; of Linux only."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.is_file() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.machine())


def changed(there: Mapping[str, str], here: Mapping[str, str]) -> str:
    """What is another there than here, of what both say; "" where nothing is."""
    return ", ".join(
        f"{name} {there[name]} (here {here[name]})"
        for name in _COMPARED
        if name in there and name in here and there[name] != here[name]
    )


def of_run(run: Path) -> dict[str, str]:
    """What the run in `run` has recorded, by the same names; empty where it has nothing.

    Raises RunError where that is damaged.
    """
    path = run / RECORD
    if not path.is_file():
        return {}
    recorded = read_json(path)
    try:
        numerics: dict[str, Any] = recorded["numerics"]
        return {
            **{name: str(recorded[name]) for name in ("distsgd", "python", "platform")},
            "numpy": numerics["numpy"],
            "blas": f"{numerics['blas']}, kernel {numerics['kernel']}",
            _BITS: numerics["probe"],
        }
    except (KeyError, TypeError) as error:
        raise RunError(path, f"is damaged: {error}; restore the file") from error


def recorded_in(directory: Path) -> dict[str, dict[str, str]]:
    """What each learning run and branch of the experiment in `directory` recorded, by its name."""
    files = (
        file for stage in ("learning", "branches") for file in (directory / stage).rglob(RECORD)
    )
    runs = sorted(file.parent for file in files)
    return {str(run.relative_to(directory)): of_run(run) for run in runs}


def check_bits(directory: Path, here: Mapping[str, str]) -> None:
    """Raises RunError where a run in `directory` had other bits than this process has."""
    for name, there in recorded_in(directory).items():
        if there[_BITS] != here[_BITS]:
            raise RunError(
                directory / name,
                "was made under another numerics profile, other bits would come out: "
                f"{changed(there, here)}; continue the experiment there, or begin another (--out)",
            )


def check_times(directory: Path, there: Mapping[str, str] | None, here: Mapping[str, str]) -> None:
    """Raises RunError where what was timed in `directory` was timed elsewhere."""
    if there and (how := changed(there, here)):
        raise RunError(
            directory,
            f"was timed elsewhere, which times from here cannot be compared with: {how}; continue "
            "the experiment there, or begin another (--out)",
        )


@contextmanager
def held_alone(directory: Path) -> Iterator[None]:
    """Be the one process that makes the experiment in `directory`; the kernel lets go of it.

    Raises RunError where another process makes it; names that.
    """
    path = directory / LOCK
    with as_run_error(path):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        with as_run_error(path):
            if not try_lock(descriptor):
                who = os.pread(descriptor, 200, 0).decode(errors="replace").strip()
                way_out = "wait for it, end it, or begin another (--out)"
                raise RunError(directory, f"is being made by process {who}; {way_out}")
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()} on {socket.gethostname()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)
