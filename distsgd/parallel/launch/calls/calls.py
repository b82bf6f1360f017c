"""Calls to Ray whose errors are ours: nothing that Ray raises comes out of here as it is.

Ray is handed in, never imported.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterator, Sequence
from typing import Any

from distsgd.base.places import place_in
from distsgd.errors import ClusterError, DistSGDError, WaitTimeoutError
from distsgd.parallel.launch.calls.deaths import death, last_death, out_of_memory
from distsgd.parallel.launch.calls.head_watch import HeadWatch

_LOOK_S = 1.0  # How often a call that waits looks whether there still is a cluster.
_MOST_SHOWN = 400  # Characters of an error of Ray's; some of them are pages.
_WHERE = re.compile(r"\(pid=([0-9]+), ip=([^,)]+)")
_OURS = re.compile(r"^distsgd(?:_workers)?[.\w]*Error: ", re.MULTILINE)  # As a traceback ends.
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")

# By the name of Ray's class or of one that it is made from; the first that fits.
_WAYS_OUT = {
    "AuthenticationError": (
        "this process and the cluster have different tokens or authentication modes; set "
        "RAY_AUTH_MODE and RAY_AUTH_TOKEN as the cluster has them"
    ),
    "RuntimeEnvSetupError": "Ray could not set up the environment of its processes; inside a Ray "
    'job, set [parallel] address = "auto"',
    "ActorUnschedulableError": "no node has room; give the nodes CPUs (ray start --num-cpus)",
    "OutOfMemoryError": "use fewer workers, or a smaller batch",
    "OutOfDiskError": "free room on the disk of the temporary directory, or set TMPDIR",
    "ObjectStoreFullError": "end what else fills this Ray, or use another",
    "TimeoutError": "is the machine or the cluster overloaded? Start again with --resume auto",
    "ConnectionError": "is the cluster up? Look with: ray status --address ADDRESS",
}
_TASK_DIED = (
    "killed for want of memory by the kernel (dmesg there says so) or by hand, crashed in a "
    "library, or gone with its node; Ray's logs know more"
)
_KEPT = "what the run has saved is kept (--resume auto)"
_ELSE = f"`distsgd doctor` tries Ray alone; {_KEPT}"


class ActorDied(ClusterError):  # noqa: N818 -- how an incarnation ends; it ends no run by itself.
    """The process of an actor or a task is gone; the message has Ray's reason."""


class ServerLeft(ActorDied):
    """The server stopped after `step`, with a checkpoint: its node does not reach the head."""

    def __init__(self, step: int) -> None:
        super().__init__(step)
        self.step = step

    def __str__(self) -> str:
        return (
            "its node did not reach the head of the cluster any more; it stopped after step "
            f"{self.step}, with a checkpoint"
        )


class ActorInitError(ClusterError):
    """An actor cannot be made at all, on the node where Ray tried; the message has the reason."""


class ActorUnavailable(ActorDied):
    """Ray did not get through to an actor, or the answer not back; it may be gone, or not."""


class Calls:
    """What a run asks of Ray.

    Args:
        ray: The module.
        head: Asked while a call waits, for Ray's calls say nothing of a cluster that is gone.
    """

    def __init__(self, ray: Any, head: HeadWatch | None = None) -> None:
        self._ray, self._head = ray, head

    def get(self, ref: Any, waited_for: str, timeout_s: float) -> Any:
        """The result of a call; blocks up to `timeout_s` seconds.

        Raises:
            WaitTimeoutError: It did not come; says for what it was waited.
            ActorDied: The process of the actor or task is gone, or cannot be reached.
            ActorInitError: There never was one.
            HeadLostError: There is no cluster any more.
            DistSGDError: What the call raised, if it is of ours.
            ClusterError: Whatever else went wrong.
        """
        exceptions = self._ray.exceptions
        with errors_of_ray(f"waiting for {waited_for}"):
            try:
                return self._get(ref, timeout_s)
            except exceptions.GetTimeoutError as error:
                raise WaitTimeoutError(waited_for, timeout_s) from error
            except exceptions.ActorUnavailableError as error:
                raise ActorUnavailable(shortened(error)) from error
            except exceptions.RayActorError as error:
                if error.actor_init_failed:
                    raise ActorInitError(_init_failed(error)) from error
                raise ActorDied(death(str(error)) or shortened(error)) from error
            except Exception as error:
                if type(error).__name__ == "OutOfMemoryError":  # Of Ray's memory monitor.
                    raise ActorDied(out_of_memory(str(error)) or shortened(error)) from error
                if type(error).__name__ in ("WorkerCrashedError", "NodeDiedError"):
                    raise ActorDied(_TASK_DIED) from error
                raise

    def _get(self, ref: Any, timeout_s: float) -> Any:
        deadline = time.monotonic() + timeout_s
        while self._head is not None and (left_s := deadline - time.monotonic()) > _LOOK_S:
            with contextlib.suppress(self._ray.exceptions.GetTimeoutError):
                return self._ray.get(ref, timeout=_LOOK_S)
            self._head.check()
            timeout_s = left_s - _LOOK_S
        return self._ray.get(ref, timeout=max(0.0, timeout_s))

    def check_head(self) -> None:
        """Raises HeadLostError where there is no cluster any more; answers at once."""
        if self._head is not None:
            self._head.check()

    def confirm_head(self) -> None:
        """Raises HeadLostError unless the head answers; blocks for as long as `HeadWatch` says."""
        if self._head is not None:
            self._head.confirm()

    def ended(
        self, refs: Sequence[Any], timeout_s: float, *, at_most: int | None = None
    ) -> list[Any]:
        """Those of `refs` whose calls have ended, well or not; waits for all, or `timeout_s`.

        With `at_most`, for the first so many of them.
        """
        if not refs:
            return []
        with errors_of_ray("looking whether calls have ended"):
            count = len(refs) if at_most is None else at_most
            done: list[Any] = self._ray.wait(list(refs), num_returns=count, timeout=timeout_s)[0]
            return done

    def last_death(self, actor: Any) -> str:
        """Why the last process of an actor that was started again ended; "" if not known."""
        if self._head is not None and not self._head.answers():
            return ""  # It would be waited for without an end.
        return last_death(self._ray, actor)

    def cancel(self, task: Any) -> None:
        """Take a task from the queue, or end its process; of one that is about to end, do not."""
        with contextlib.suppress(Exception):  # Already ended is as good.
            self._ray.cancel(task, force=True)

    def kill(self, actor: Any, *, no_restart: bool = True) -> None:
        """End an actor, also one that does not answer."""
        with contextlib.suppress(Exception):  # Already dead, or never there, is as good.
            self._ray.kill(actor, no_restart=no_restart)


@contextlib.contextmanager
def errors_of_ray(doing: str) -> Iterator[None]:
    """Errors that leave this block are ours: Ray raises bare Exceptions, too.

    Only calls to Ray may stand in it, nothing of the user's.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, DistSGDError) and not _is_raised_in_a_process(error):
            raise
        raise as_ours(error, doing) from error


def as_ours(error: Exception, doing: str) -> DistSGDError:
    """The error of ours that `error` carries, or a ClusterError that says what it was.

    Args:
        error: One of Ray's.
        doing: What Ray was asked to do.
    """
    cause = getattr(error, "cause", None)
    if isinstance(cause, DistSGDError):
        return cause
    names = [base.__name__ for base in type(error).__mro__]
    if isinstance(cause, Exception) and _is_raised_in_a_process(error):
        found = _WHERE.search(str(error))  # Its own fields get lost where Ray mixes two classes.
        where = f"process {found[1]} on node {found[2]}" if found else "a process of the run"
        raised = f"{named(cause)}{place_in(_COLOURS.sub('', str(error)))}"
        return ClusterError(f"{doing}: {where} raised {raised}; {_KEPT}")
    way_out = next((_WAYS_OUT[name] for name in names if name in _WAYS_OUT), _ELSE)
    return ClusterError(f"{doing}: Ray says {named(error)}; {way_out}")


def _is_raised_in_a_process(error: Exception) -> bool:
    """Did an actor's own code raise it? Ray makes a class of its own for it, and of the cause's."""
    return any(base.__name__ == "RayTaskError" for base in type(error).__mro__)


def named(error: BaseException) -> str:
    """An error by its class and its text, in one line."""
    text = shortened(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def shortened(error: BaseException) -> str:
    """The text of an error in one line, without colours, not longer than a few lines."""
    text = " ".join(_COLOURS.sub("", str(error)).split()).rstrip(".;")
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}..."


def _init_failed(error: Exception) -> str:
    """Ray gives an error in an actor's constructor as the text of a traceback."""
    text = _COLOURS.sub("", str(error)).strip()
    found = _WHERE.search(text)
    where = f" on node {found[2]}" if found else ""
    failed = f"a process of the run cannot be started{where}: "
    if ours := list(_OURS.finditer(text)):
        return failed + text[ours[-1].end() :]
    return f"{failed}{text.splitlines()[-1]}; is distsgd installed on every node?"
