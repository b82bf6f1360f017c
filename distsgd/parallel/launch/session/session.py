"""A connection to Ray, and the process as it was before, afterwards.

A Ray of one's own has other settings than the user's; Ray reads them into this process too, some
when it is imported, so they are read again at both ends.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from types import FrameType
from typing import Any

from distsgd.errors import ClusterError
from distsgd.parallel.launch.calls.calls import errors_of_ray
from distsgd.parallel.launch.calls.head_watch import HeadWatch
from distsgd.parallel.launch.session import private_ray
from distsgd.parallel.launch.session.address import check_address

# Held while a Ray that a run of this process has started or joined is up: a process has one.
_OUR_RAY = threading.Lock()


@dataclass(frozen=True, slots=True)
class Session:
    """A Ray that is up.

    Attributes:
        ray: The module.
        is_local: Is it the run's own, where nobody else asks for room?
        head: Watches whether it still answers.
    """

    ray: Any
    is_local: bool
    head: HeadWatch | None = None


@contextlib.contextmanager
def session(address: str, *, num_cpus: int) -> Iterator[Session]:
    """Start a Ray of our own ("local"), or join one, and leave both as they were.

    A Ray that this process has joined already is used for any other address, and left up.

    Args:
        address: "local", "auto", or host:port.
        num_cpus: What a Ray of our own has to offer.

    Raises:
        ClusterError: Ray cannot be started, or is not there; says what to do.
    """
    ray = _import_ray()
    with contextlib.ExitStack() as stack:
        stack.enter_context(_alone_in_this_process())
        if ray.is_initialized():
            stack.close()  # It is the user's, and may be shared.
            _check_joined(ray, address)
            with _watched(Session(ray, is_local=False)) as joined:
                yield joined
            return
        stack.enter_context(_process_as_it_was())
        options: dict[str, Any] = {"address": address}
        if address == "local":
            directory = stack.enter_context(private_ray.private_directory())
            private_ray.set_environment()
            options |= private_ray.options(directory, num_cpus)
        else:
            check_address(address)
        stack.enter_context(_settings_of_the_environment())
        stack.enter_context(_shut_down_at_the_end(ray))
        with errors_of_ray(f'starting Ray, address "{address}"'), _signals_kept():
            ray.init(configure_logging=False, log_to_driver=False, **options)
        with _watched(Session(ray, is_local=address == "local")) as joined:
            yield joined


@contextlib.contextmanager
def _watched(joined: Session) -> Iterator[Session]:
    with errors_of_ray("looking for the head of Ray"):
        address = joined.ray.get_runtime_context().gcs_address
    with HeadWatch(address) as head:
        yield replace(joined, head=head)


@contextlib.contextmanager
def _alone_in_this_process() -> Iterator[None]:
    """Refuse a second Ray besides that of another run, whose end would end it too."""
    if not _OUR_RAY.acquire(blocking=False):
        raise ClusterError(
            "another run of this process has its Ray, and a process has one at a time; train one "
            "after the other, in a process each, with workers = 0, or on a Ray that was there "
            'before them (ray.init(), then [parallel] address = "auto")'
        )
    try:
        yield
    finally:
        _OUR_RAY.release()


def _import_ray() -> Any:
    with errors_of_ray("importing Ray"):
        try:
            import ray  # noqa: PLC0415 -- takes a second, and runs in this process need none.
        except ModuleNotFoundError as error:
            if error.name != "ray":
                raise
            raise ClusterError(
                "workers need Ray, which is not installed; install it (pip install ray), or train "
                "in this process (set [parallel] workers = 0)"
            ) from None
        return ray


def _check_joined(ray: Any, address: str) -> None:
    """Refuse a Ray that this process has joined and that is not the one that is wanted."""
    with errors_of_ray("looking at the Ray that runs here"):
        if ray.util.client.ray.is_connected():
            raise ClusterError(
                "this process is connected to Ray by the client protocol (ray://), which has no "
                "concurrency groups; call ray.shutdown() first, or train as a job (distsgd job "
                "submit)"
            )
        there = ray.get_runtime_context().gcs_address
        wanted = address
        if address not in ("auto", "local"):  # Ray has another name for this machine.
            services = importlib.import_module("ray._private.services")
            wanted = services.canonicalize_bootstrap_address(address)
    if wanted not in ("auto", there):
        raise ClusterError(
            f'[parallel] address is "{address}", but this process is connected to the Ray at '
            f'"{there}" already; set address = "auto" to train on that one, or call '
            "ray.shutdown() first"
        )


@contextlib.contextmanager
def _shut_down_at_the_end(ray: Any) -> Iterator[None]:
    """Also where the start failed halfway; an error on the way out does not hide another."""
    try:
        yield
    except BaseException:
        with contextlib.suppress(Exception), _signals_kept():
            ray.shutdown()
        raise
    with errors_of_ray("shutting Ray down after the run"), _signals_kept():
        ray.shutdown()


@contextlib.contextmanager
def _process_as_it_was() -> Iterator[None]:
    """Put back what a start of Ray changes in this process: variables, caches, log handlers."""
    logger = logging.getLogger("ray")
    handlers = list(logger.handlers)
    try:
        with private_ray.environment_kept():
            yield
    finally:
        logger.handlers[:] = handlers
        _read_settings_again()


@contextlib.contextmanager
def _settings_of_the_environment() -> Iterator[None]:
    """Ray's settings as the environment now has them, whatever it read there when it was imported.

    A Ray that this process had before may have had others.
    """
    from ray._private import ray_constants  # noqa: PLC0415 -- as ray.

    constants: Any = ray_constants
    before = constants.ENABLE_RAY_CLUSTER
    with errors_of_ray("preparing Ray's settings"):
        # Off: all is on loopback, where a cluster's Ray would look for the host's own address.
        constants.ENABLE_RAY_CLUSTER = constants.env_bool(
            constants.ENABLE_RAY_CLUSTERS_ENV_VAR, not constants.IS_WINDOWS_OR_OSX
        )
        _read_settings_again()
    try:
        yield
    finally:
        constants.ENABLE_RAY_CLUSTER = before


def _read_settings_again() -> None:
    """Have Ray read the environment anew: its C++ side keeps settings and token for good."""
    from ray import _raylet  # noqa: PLC0415 -- as ray.

    raylet: Any = _raylet
    with errors_of_ray("having Ray read its settings again"):
        # The mode first: without a token, what still asks in token mode ends the process.
        raylet.Config.initialize("")
        raylet.AuthenticationTokenLoader.instance().reset_cache()


@contextlib.contextmanager
def _signals_kept() -> Iterator[None]:
    """Ctrl-C and SIGTERM wait for the end of the block, and what handled them before does so again.

    A start or an end of Ray that is interrupted halfway leaves processes behind, or ends this one
    with a segmentation fault; a second signal does not wait. Ray's processes are started deaf to
    SIGHUP, which a terminal that closes sends to them too: this process takes it, and has the run
    saved.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    with _signals_waiting() as asked:
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
        try:
            yield
        except SystemExit as ended:
            if ended.code != signal.SIGTERM:
                raise
            raise KeyboardInterrupt from None  # What Ray's own handler made of a SIGTERM.
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    for number in asked:
        signal.raise_signal(number)


@contextlib.contextmanager
def _signals_waiting() -> Iterator[list[int]]:
    """The list that Ctrl-C and SIGTERM get into; a second raises KeyboardInterrupt."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    asked: list[int] = []

    def wait(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 -- as for every handler.
        if asked:
            raise KeyboardInterrupt
        asked.append(number)

    for number, handler in before.items():
        if callable(handler):  # What nobody handles goes on as it is.
            signal.signal(number, wait)
    try:
        yield asked
    finally:
        for number, handler in before.items():
            if handler is not None:  # None: it is none of Python's, which cannot be set again.
                signal.signal(number, handler)
