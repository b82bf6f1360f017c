"""Does a cluster run at an address? Known within seconds, before Ray itself is asked to join it.

No Ray is imported here, and none is started.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from distsgd.errors import ClusterError
from distsgd.parallel.launch.session import ask_cluster

STAGE_S = 6.0  # To connect, to answer, to find a node on this machine: each.
LOAD_S = 120.0  # Python and Ray from a slow disk; Ctrl-C ends it at once.
_OF_A_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"  # Ray's job manager sets it for entry points.
_HOST_AND_PORT = re.compile(r"(?:\[[^\[\]]+\]|[^\[\]:/\s]+):([0-9]{1,5})")
_SUBMIT = "distsgd job submit CONFIG --address http://HEAD:8265"
_WAY_OUT = (
    'start one with "ray start --head", or set [parallel] address = "local" for a Ray of this '
    "run's own"
)


def chosen_address(given: str | None) -> str:
    """The address where a run goes that was `given` one, or none.

    Inside a Ray job that is its cluster, else a Ray of the run's own.
    """
    return given or ("auto" if _OF_A_JOB in os.environ else "local")


def check_address(address: str, *, stage_s: float = STAGE_S) -> None:
    """Make sure that a Ray cluster answers at `address`; blocks for some seconds at most.

    Args:
        address: "auto", or host:port.
        stage_s: How long each stage may take, seconds.

    Raises:
        ClusterError: It is no address, or nothing answers there, or something else than a cluster,
            or no node of the cluster is on this machine.
    """
    _refuse_bad(address)
    reached = _ask(address, stage_s)
    if reached.stage != "ready":
        why = _why(reached, stage_s)
        raise ClusterError(f'no Ray cluster at address "{address}": {why}')


@dataclass(frozen=True, slots=True)
class _Reached:
    """How far a process came that asked: its last stage, where, and what failed there."""

    stage: str
    place: str = ""
    error: str = ""


def _refuse_bad(address: str) -> None:
    name, given = "[parallel] address", address
    if address == "auto" and os.environ.get("RAY_ADDRESS"):
        name, given = "RAY_ADDRESS", os.environ["RAY_ADDRESS"]
        if given == "auto":
            return
    elif address == "auto":
        return
    if wrong := what_is_wrong(given):
        raise ClusterError(f'{name} is "{given}"; {wrong}')


def what_is_wrong(address: str) -> str:
    """Why a text names no Ray, and what does; "" where it may.

    >>> what_is_wrong("auto"), what_is_wrong("10.0.0.1:6379"), what_is_wrong("[::1]:6379")
    ('', '', '')
    """
    rule = 'must be "local", "auto" or host:port'
    if address.startswith("ray://"):
        return (
            f"{rule}: Ray's client protocol has no concurrency groups, which a run needs (submit "
            f"it as a job of Ray: {_SUBMIT})"
        )
    if "://" in address:
        return f"{rule}; the address of a dashboard takes jobs ({_SUBMIT})"
    match = _HOST_AND_PORT.fullmatch(address)
    is_known = address in ("local", "auto") or (match is not None and 0 < int(match[1]) < 2**16)
    return "" if is_known else f"{rule} of a cluster, port 1 to 65535 (ray status shows it)"


def _has_token() -> bool:
    """Does a token exist where Ray looks for one?"""
    if os.environ.get("RAY_AUTH_TOKEN"):
        return True
    named = os.environ.get("RAY_AUTH_TOKEN_PATH")
    return (Path(named) if named else Path("~/.ray/auth_token").expanduser()).is_file()


def _ask(address: str, stage_s: float) -> _Reached:
    """Start a process that asks the cluster; blocks until it has ended, and Ctrl-C ends it."""
    command = [sys.executable, "-P", str(Path(ask_cluster.__file__)), address, str(stage_s)]
    process = subprocess.Popen(  # noqa: S603 -- our own file, and an address that was checked.
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,  # Ctrl-C is this process's.
    )
    try:
        said = process.communicate(timeout=LOAD_S)[0]
    except subprocess.TimeoutExpired:
        return _Reached("load")
    finally:
        process.kill()
        process.wait()
    reached = _Reached("load")
    for line in said.splitlines():
        mark, _, rest = line.partition("\t")
        stage, _, text = rest.partition("\t")
        if mark == ask_cluster.MARK:
            has_failed = stage == "failed"
            reached = replace(reached, error=text) if has_failed else _Reached(stage, text)
    return reached


def _why(reached: _Reached, stage_s: float) -> str:
    """What stopped the process that asked, and what to do."""
    place, late = reached.place, f"no answer within {stage_s:g} s"
    error = reached.error or late
    if reached.stage == "find":
        return f"{error.rstrip('.')}; {_WAY_OUT}"
    if reached.stage == "connect":
        return f"cannot connect to {place} ({error}); if it was there, it has ended: {_WAY_OUT}"
    if reached.stage == "ask":
        return _why_no_answer(place, error)
    if reached.stage == "join":
        return (
            f"{place} answers, but none of its nodes is on this machine; run "
            '"ray start --address=HOST:PORT" here, or work on one of its nodes (a run as a job: '
            f"{_SUBMIT})"
        )
    return f"Ray cannot be loaded to ask ({reached.error or f'not within {LOAD_S:g} s'})"


def _why_no_answer(place: str, error: str) -> str:
    variables = "RAY_AUTH_TOKEN (or RAY_AUTH_TOKEN_PATH)"
    as_cluster = f"set RAY_AUTH_MODE and {variables} as the cluster has them"
    if error.startswith("AuthenticationError"):
        return f"{place} answers and refuses this process; {as_cluster}"
    if os.environ.get("RAY_AUTH_MODE") == "token" and not _has_token():
        return f"this process has no token for {place}, but RAY_AUTH_MODE is token; {as_cluster}"
    return (
        f"something accepts connections at {place}, but does not answer as Ray does ({error}); is "
        "it the port of the cluster's head (6379 unless set), and are the versions of Ray the same?"
    )
