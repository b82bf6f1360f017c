"""Ray's job server, through `ray.job_submission`: all that is asked of it, and its errors as ours.

Each request has an end: a server that is not there is told from one that refuses within seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import logging
import os
import re
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from typing import Any

from distsgd.errors import ClusterError, ConfigError, MissingExtraError, WaitTimeoutError
from distsgd.jobs.job import RUNS, Job, JobRequest, job_of
from distsgd.parallel.launch.calls.calls import named

CONNECT_S, ANSWER_S, STORE_S = 5.0, 10.0, 60.0  # What is sent is stored before the answer comes.
QUIET_S = 1.0  # So long without a word of a job, and it is asked whether it still runs.
POLL_S = 0.5
_NEEDED = ("ray", "aiohttp", "requests")  # What Ray's client imports.
# Each goes before the address that was asked for, in Ray's client.
_OTHER_ADDRESSES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")
_URL = re.compile(r"https?://[^\s/]+(?:/\S*)?")
# They say what they do, each in a line for programmers.
_CHATTY = (
    "ray.dashboard.modules.dashboard_sdk",
    "ray.dashboard.modules.job.sdk",
    "ray._private.runtime_env.packaging",
)
_PROXY = "kubectl port-forward reaches one in Kubernetes"


class Jobs:
    """The jobs of one cluster.

    Args:
        address: Of its dashboard: ``http://HEAD:8265``.

    Raises:
        ConfigError: It is no such address.
        MissingExtraError: ray[default] is not installed.
        ClusterError: No dashboard of Ray's answers there within some seconds, or it refuses.
    """

    def __init__(self, address: str) -> None:
        self.address = _checked(address)
        self._client = _connect(self.address)

    @property
    def ray_versions(self) -> tuple[str, str]:
        """Of Ray here and on the cluster."""
        return str(self._client._client_ray_version), str(self._client._server_ray_version)  # noqa: SLF001 -- told nowhere else without another request.

    def list(self) -> list[Job]:
        """All jobs of ours that the cluster remembers, the newest first. Raises ClusterError."""
        with self._errors("listing jobs"):
            found = [job_of(details) for details in self._client.list_jobs()]
        return sorted((job for job in found if job), key=lambda job: job.started_s, reverse=True)

    def find(self, name: str) -> Job:
        """The newest job of a name, or one by its id.

        Raises:
            ConfigError: There is none.
            ClusterError: The cluster does not say.
        """
        jobs = self.list()
        for job in jobs:
            if name in (job.name, job.id):
                return job
        known = ", ".join(dict.fromkeys(job.name for job in jobs)) or "none"
        raise ConfigError([f'no job at {self.address} is called "{name}"; there: {known}'])

    def submit(self, request: JobRequest) -> tuple[Job, bool]:
        """Submit a job, unless one of its name runs already.

        Returns:
            That job, and whether it is a new one.

        Raises:
            ConfigError: Its name belongs to another run, or to one that trains with other options;
                or what is to be sent is too large.
            ClusterError: The cluster does not take it.
        """
        last = self._last_of(request.name)
        run_dir = request.run_dir or (last.run_dir if last else f"{RUNS}/{request.name}")
        if last is not None and last.run_dir != run_dir:
            other_run = (
                f"--run-dir is {run_dir}, but job {request.name} has its run in {last.run_dir}; "
                "leave --run-dir out to continue that, or take another --name"
            )
            raise ConfigError([other_run])
        if last is not None and not last.has_ended:
            if other := request.differs(last):
                way_out = "stop it first, ask for the same, or take another --name"
                raise ConfigError(
                    [f"job {last.name} runs already, as {last.id}: {other}; {way_out}"]
                )
            return last, False
        number = 1 if last is None else last.number + 1
        if last is not None and last.run_id:
            request = replace(request, run_id=last.run_id)
        with self._errors(f"submitting {request.name}"):
            made = self._client.submit_job(
                entrypoint=request.entry_point(run_dir),
                submission_id=f"{request.name}.{number}",
                runtime_env=request.runtime_env(),
                metadata=request.metadata(run_dir),
            )
        return self.find(str(made)), True

    def _last_of(self, name: str) -> Job | None:
        found = [job for job in self.list() if job.name == name]
        return max(found, key=lambda job: job.number, default=None)

    def logs(self, job: Job) -> str:
        """All that a job has said so far. Raises ClusterError."""
        with self._errors(f"reading what {job.id} said"):
            return str(self._client.get_job_logs(job.id))

    def stop(self, job: Job, timeout_s: float) -> Job:
        """Have a job save its run and end; blocks until it has ended.

        Raises:
            WaitTimeoutError: It has not, within `timeout_s`.
            ClusterError: The cluster does not say.
        """
        with self._errors(f"stopping {job.id}"):
            self._client.stop_job(job.id)
        return self._wait_for_end(job, timeout_s)

    def _wait_for_end(self, job: Job, timeout_s: float) -> Job:
        deadline = time.monotonic() + timeout_s
        while not (job := self.find(job.id)).has_ended:
            if time.monotonic() > deadline:
                raise WaitTimeoutError(f"job {job.id} to end ({self.address})", timeout_s)
            time.sleep(POLL_S)
        return job

    def follow(self, job: Job, write: Callable[[str], None]) -> Job:
        """Write what a job says, from its beginning, until it has ended; blocks.

        Raises:
            ClusterError: The cluster does not answer any more.
        """
        return asyncio.run(self._follow(job, write))

    async def _follow(self, job: Job, write: Callable[[str], None]) -> Job:
        written = 0
        while True:
            told = 0  # What is followed anew begins anew.
            with self._errors(f"following {job.id}"):
                async for text in self._said_until_quiet(job):
                    write(text[max(0, written - told) :])
                    told += len(text)
                    written = max(written, told)
            job = await asyncio.to_thread(self.find, job.id)
            if job.has_ended:
                write((await asyncio.to_thread(self.logs, job))[written:])
                return job
            await asyncio.sleep(POLL_S)

    async def _said_until_quiet(self, job: Job) -> AsyncIterator[str]:
        """What a job says, until there is no more, or it has ended while the connection hangs."""
        async with contextlib.aclosing(self._client.tail_job_logs(job.id)) as texts:
            while True:
                text = asyncio.ensure_future(anext(texts, None))
                try:
                    while not (await asyncio.wait({text}, timeout=QUIET_S))[0]:
                        if (await asyncio.to_thread(self.find, job.id)).has_ended:
                            return
                finally:
                    text.cancel()  # Nothing happens where it is done.
                    await asyncio.wait({text}, timeout=QUIET_S)
                if text.result() is None:
                    return
                yield str(text.result())

    @contextlib.contextmanager
    def _errors(self, doing: str) -> Iterator[None]:
        with errors_of_jobs(self.address, doing):
            yield


@contextlib.contextmanager
def errors_of_jobs(address: str, doing: str) -> Iterator[None]:
    """Errors of Ray's client that leave this block are ours."""
    try:
        yield
    except (ClusterError, ConfigError):
        raise
    except Exception as error:
        raise _as_ours(error, address, doing) from error


def _as_ours(error: Exception, address: str, doing: str) -> ClusterError | ConfigError:
    names = {base.__name__ for base in type(error).__mro__}
    if "AuthenticationError" in names:
        return ClusterError(
            f"{address} refuses this process (its token is wrong or missing); set "
            "RAY_AUTH_MODE=token and RAY_AUTH_TOKEN (or RAY_AUTH_TOKEN_PATH) as the cluster has "
            "them"
        )
    if names & {"ConnectionError", "ClientConnectionError", "Timeout", "TimeoutError"}:
        if why := _why_no_connection(error, address):
            return ClusterError(why)
        return ClusterError(
            f"no Ray dashboard answers at {address} ({doing}); is it the head's, port 8265 unless "
            "set? The head needs ray[default], and takes connections from other hosts only with "
            f"ray start --head --dashboard-host=0.0.0.0; {_PROXY}"
        )
    if names & {"JSONDecodeError", "HTTPError", "KeyError"} or "returned 404" in str(error):
        return ClusterError(
            f"something answers at {address}, but not as Ray's dashboard does ({named(error)}); "
            "its port is 8265 unless set, and needs ray[default] on the head"
        )
    if isinstance(error, ValueError) and "size" in str(error):
        too_large = (
            f"the working directory cannot be sent: {named(error)}; leave files out by .gitignore "
            "or .rayignore, or keep data on object storage (100 MiB at most)"
        )
        return ConfigError([too_large])
    return ClusterError(f"{doing}: Ray says {named(error)}")


def _why_no_connection(error: BaseException | None, address: str) -> str:
    """Where that is known; Ray's own words hide it."""
    while error is not None:
        if "NameResolutionError" in str(error):
            return f"{address}: the name of its host is not known here (a spelling, or a DNS?)"
        if "SSLError" in str(error) or type(error).__name__ == "SSLError":
            return (
                f"{address} does not speak TLS as https:// asks for; a head's dashboard is http://"
            )
        error = error.__cause__ or error.__context__
    return ""


def _checked(address: str) -> str:
    given = address if "://" in address else f"http://{address}"
    if not _URL.fullmatch(given):
        raise ConfigError(
            [f'--address is "{address}"; must be that of the dashboard: http://HEAD:8265']
        )
    return given.rstrip("/")


def _connect(address: str) -> Any:
    for package in _NEEDED:
        if importlib.util.find_spec(package) is None:
            raise MissingExtraError("ray[default]", "cluster")
    from ray.job_submission import JobSubmissionClient  # noqa: PLC0415 -- takes a second.

    class Client(JobSubmissionClient):
        """Ray's own, whose requests have no end."""

        def _do_request(self, method: str, endpoint: str, **options: Any) -> Any:
            answer_s = ANSWER_S if method == "GET" else STORE_S
            timeout = (CONNECT_S, answer_s)
            return super()._do_request(method, endpoint, **{"timeout": timeout, **options})

        def _check_connection_and_version(self, *told: Any, **options: Any) -> None:
            if self._server_ray_version is None:  # Ray asks twice.
                super()._check_connection_and_version(*told, **options)

    for logger in _CHATTY:
        logging.getLogger(logger).setLevel(logging.WARNING)
    with errors_of_jobs(address, "connecting"), _addresses_hidden():
        return Client(address)


@contextlib.contextmanager
def _addresses_hidden() -> Iterator[None]:
    hidden = {name: os.environ.pop(name) for name in _OTHER_ADDRESSES if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(hidden)
