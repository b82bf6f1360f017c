"""Errors of Ray become ours, whatever they are. The classes are Ray's; no Ray is started."""

from __future__ import annotations

import pickle
import subprocess
import sys
import types

import pytest

from distsgd.errors import ClusterError, DataError, WaitTimeoutError
from distsgd.parallel.launch.actors.processes import WorkerStartError
from distsgd.parallel.launch.calls.calls import (
    ActorDied,
    ActorInitError,
    ActorUnavailable,
    Calls,
    as_ours,
    errors_of_ray,
)


class GetTimeoutError(TimeoutError):
    pass


class RayActorError(Exception):
    actor_init_failed = False


class ActorUnavailableError(RayActorError):
    pass


class InitFailedError(RayActorError):
    actor_init_failed = True


class RayTaskError(Exception):
    """As Ray makes it: an error that was raised in an actor, with its cause."""

    def __init__(self, cause: Exception) -> None:
        text = "x (pid=77, ip=10.0.0.9, actor_id=1)\nTraceback, page after page\n"
        raised_in = '\x1b[0m File "/home/me/mine.py", line 7, in compute'
        Exception.__init__(self, f'{text}{raised_in}\n File "/x/site-packages/y.py", line 1, in z')
        self.cause = cause


class BothError(RayTaskError, DataError):
    """As Ray makes it too: of the class of its cause as well."""


class WorkerCrashedError(Exception):
    """Of a task whose process is gone, in Ray's words."""


class FakeRay:
    """Raises, or gives, what the test hands in as a reference."""

    exceptions = types.SimpleNamespace(
        GetTimeoutError=GetTimeoutError,
        ActorUnavailableError=ActorUnavailableError,
        RayActorError=RayActorError,
    )

    def get(self, ref: object, *, timeout: float) -> object:
        assert timeout == 3.0
        if isinstance(ref, BaseException):
            raise ref
        return ref

    def wait(self, *_: object, **__: object) -> object:
        raise RuntimeError("the raylet is gone")

    def kill(self, *_: object, **__: object) -> None:
        raise ValueError("no such actor")


CALLS = Calls(FakeRay())


def got(ref: object) -> object:
    return CALLS.get(ref, "an answer", 3.0)


def test_result_comes_through() -> None:
    assert got(5) == 5


@pytest.mark.parametrize(
    ("error", "ours", "text"),
    [
        (GetTimeoutError(), WaitTimeoutError, "waited 3 s for an answer"),
        (ActorUnavailableError("no way"), ActorUnavailable, "no way"),
        (RayActorError("exit code 9"), ActorDied, "exit code 9"),
        (WorkerCrashedError("died"), ActorDied, "killed for want of memory by the kernel"),
        (InitFailedError("died\n  File x\nImportError: no y"), ActorInitError, "ImportError: no y"),
        (
            InitFailedError("ray::W.__init__() (pid=77, ip=10.0.0.9, repr=w)\nImportError: no y"),
            ActorInitError,
            "cannot be started on node 10.0.0.9: ImportError: no y; is distsgd installed",
        ),
        (
            InitFailedError("x (pid=77, ip=10.0.0.9)\ndistsgd.errors.ConfigError: node a: no m"),
            ActorInitError,
            "cannot be started on node 10.0.0.9: node a: no m$",
        ),
        (
            InitFailedError("died\ndistsgd.models.own_errors.OwnCodeError: it:\n File x\nline"),
            ActorInitError,
            "cannot be started: it:\n File x\nline$",
        ),
        (RayTaskError(ValueError("no z")), ClusterError, "process 77 on node 10.0.0.9 .*no z"),
        (
            RayTaskError(ValueError()),
            ClusterError,
            r"Error \(/home/me/mine.py, line 7, in compute\);",
        ),
        (RayTaskError(DataError("f", "is bad")), DataError, "f: is bad"),
        (BothError(DataError("f", "is bad")), DataError, "^f: is bad$"),
        (Exception("current node timed out"), ClusterError, "for an answer: Ray says Exception:"),
        (RuntimeError(), ClusterError, "RuntimeError; `distsgd doctor`"),
        (ConnectionError("refused"), ClusterError, "refused; is the cluster up"),
        (ValueError("odd"), ClusterError, "ValueError: odd"),
    ],
)
def test_every_error_becomes_ours_and_names_what_was_waited_for(
    error: Exception, ours: type[Exception], text: str
) -> None:
    with pytest.raises(ours, match=text) as caught:
        got(error)
    assert type(caught.value) is ours
    assert caught.value.__cause__ is error


def test_interruption_is_no_error() -> None:
    with pytest.raises(KeyboardInterrupt):
        got(KeyboardInterrupt())


def test_waiting_fails_with_ours_and_killing_does_not_fail() -> None:
    with pytest.raises(ClusterError, match="the raylet is gone"):
        CALLS.ended([1], 0)
    assert CALLS.ended([], 0) == []
    CALLS.kill("nobody")


def test_text_of_ray_is_one_line_without_colours_and_not_pages() -> None:
    with pytest.raises(ClusterError) as caught, errors_of_ray("starting Ray"):
        raise RuntimeError("\x1b[36mred\x1b[39m\nand\n  more " + 9000 * "x")
    text = str(caught.value)
    assert text.startswith("starting Ray: Ray says RuntimeError: red and more xxx")
    assert len(text) < 700


@pytest.mark.parametrize(
    "error",
    [
        ActorDied("a"),
        ActorInitError("c"),
        ActorUnavailable("b"),
        WorkerStartError(3, "host", "ValueError: no"),
    ],
)
def test_errors_survive_pickling(error: Exception) -> None:
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 -- made in the line itself.
    assert (type(again), str(again)) == (type(error), str(error))


def test_worker_that_cannot_start_is_named_with_node_and_reason() -> None:
    found = str(WorkerStartError(3, "host", "ValueError: no"))
    assert found == "worker 3 cannot be started on node host: ValueError: no"
    assert str(WorkerStartError(3, "", "it died")) == "worker 3 cannot be started: it died"


RAYS_OWN = """
import inspect, ray, ray.exceptions as known
from distsgd.errors import ClusterError
from distsgd.parallel.launch.calls.calls import as_ours

ways = set()
for name, kind in inspect.getmembers(known, inspect.isclass):
    if issubclass(kind, known.RayError):
        error = kind.__new__(kind)
        kind.__str__ = lambda self: "said"
        ours = as_ours(error, "doing")
        assert type(ours) is ClusterError, name
        assert str(ours).startswith(f"doing: Ray says {name}: said; "), ours
        ways.add(str(ours).partition("; ")[2])
assert len(ways) > 5, ways
"""


def test_every_exception_that_ray_knows_becomes_ours_with_a_way_out() -> None:
    done = subprocess.run(
        [sys.executable, "-c", RAYS_OWN], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "distsgd doctor" in str(as_ours(Exception("odd"), "doing"))
