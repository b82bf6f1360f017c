"""``job ...``: runs as jobs of a Ray cluster, from a machine that is no part of it."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from distsgd.cli.options import (
    AcceptNumericsOption,
    ConfigArgument,
    JsonOption,
    OverridesOption,
    WorkersOption,
    given_path,
    grouped,
)
from distsgd.cli.terminal.log_lines import written_lines
from distsgd.cli.terminal.messages import (
    command_line,
    failures_as_json,
    print_facts,
    print_json,
    print_table,
    say,
)
from distsgd.cli.terminal.stop import stoppable
from distsgd.errors import ClusterError, Interrupted

if TYPE_CHECKING:
    from distsgd.jobs.client import Jobs
    from distsgd.jobs.job import Job, JobRequest
    from distsgd.jobs.run_state import RunState

_STOP_MORE_S = 30.0  # Beyond what a driver has to save its run: for Ray to notice.
job_app = typer.Typer(
    help="Train on a Ray cluster as a job of it: submit, list, status, logs, stop.",
    no_args_is_help=True,
)
JobArgument = Annotated[
    str, typer.Argument(metavar="JOB", help="The name of a job, or the id of one submission.")
]
AddressOption = Annotated[
    str,
    typer.Option(
        "--address",
        metavar="URL",
        envvar="RAY_API_SERVER_ADDRESS",
        help="The dashboard of the cluster's head.",
    ),
]
FollowOption = Annotated[
    bool,
    typer.Option(
        "--follow", help="Show what the job says until it ends, and end with its exit code."
    ),
]
_ADDRESS = "http://127.0.0.1:8265"


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """What is typed after ``job submit CONFIG``."""

    address: AddressOption = _ADDRESS
    name: Annotated[
        str | None,
        typer.Option(
            help="Submitting a name again continues its run; a new name unless given.",
        ),
    ] = None
    run_dir: Annotated[
        str | None,
        typer.Option(
            metavar="DIR",
            help="Where the run is kept: an address (s3://BUCKET/KEY), or a path that the nodes "
            "share; ~/distsgd-runs/NAME unless given.",
        ),
    ] = None
    cache_dir: Annotated[
        str | None,
        typer.Option(
            metavar="DIR",
            help="Where prepared data are kept: an address, or a path that the nodes share; needed "
            "where workers are on other nodes, unless \\[data] path is a prepared data set there.",
        ),
    ] = None
    follow: FollowOption = False
    retries: Annotated[
        int,
        typer.Option(min=0, help="How often a driver that dies is started again, on the cluster."),
    ] = 0
    working_dir: Annotated[
        Path,
        typer.Option(
            metavar="DIR",
            parser=given_path,
            help="What is sent to the cluster, with the configuration in it, 100 MiB at most; "
            ".gitignore and .rayignore leave files out.",
        ),
    ] = Path()
    image: Annotated[
        str | None,
        typer.Option(
            help="A container image (podman on the nodes) that has distsgd, the configuration and "
            "the data; nothing is sent then."
        ),
    ] = None
    workers: WorkersOption = None
    overrides: OverridesOption = None
    accept_numerics: AcceptNumericsOption = False
    as_json: JsonOption = False

    def request(self, config: Path) -> JobRequest:
        """The job that is asked for. Raises ConfigError."""
        from distsgd.jobs.job import JobRequest, default_name

        arguments = ["--accept-numerics"] if self.accept_numerics else []
        arguments += [] if self.workers is None else ["--workers", self.workers]
        return JobRequest(
            name=default_name(config, datetime.now(UTC)) if self.name is None else self.name,
            config=config,
            run_dir=self.run_dir,
            cache_dir=self.cache_dir,
            overrides=tuple(self.overrides or ()),
            arguments=tuple(arguments),
            retries=self.retries,
            working_dir=self.working_dir,
            image=self.image,
        )


@job_app.command("submit")
@grouped
def job_submit(config: ConfigArgument, *, submission: Submission) -> None:
    """Have a Ray cluster train a configuration.

    A name that was submitted before continues its run; one that runs already is left to run.
    """
    with failures_as_json(submission.as_json), stoppable():
        request = submission.request(config)
        if request.image is None:
            _check_configuration(config, submission)
        jobs = _connect(submission.address)
        job, is_new = jobs.submit(request)
        said = f"submitted as {job.id}" if is_new else f"runs already, as {job.id}"
        say(f"job {job.name} {said}; its run is kept in {job.run_dir}")
        if submission.follow:
            _follow(jobs, job, as_json=submission.as_json)
            return
        for action in ("status", "logs", "stop"):
            say(f"  {_command(action, job, jobs.address)}")
        if submission.as_json:
            print_json(_described(job, None))


@job_app.command("list")
def job_list(*, address: AddressOption = _ADDRESS, as_json: JsonOption = False) -> None:
    """List the jobs that the cluster remembers, the newest first."""
    with failures_as_json(as_json), stoppable():
        found = _connect(address).list()
    if as_json:
        print_json({"jobs": [asdict(job) for job in found]})
    elif found:
        _print_jobs(found)
    else:
        say(f"no jobs at {address}")


@job_app.command("status")
def job_status(
    name: JobArgument, *, address: AddressOption = _ADDRESS, as_json: JsonOption = False
) -> None:
    """Say where a job is, and its run; the run directory is the truth."""
    with failures_as_json(as_json), stoppable():
        jobs = _connect(address)
        _show(jobs, jobs.find(name), as_json=as_json)


@job_app.command("logs")
def job_logs(
    name: JobArgument,
    *,
    follow: FollowOption = False,
    address: AddressOption = _ADDRESS,
    as_json: JsonOption = False,
) -> None:
    """Print what a job says; with --json on standard error, and where it is as the last line."""
    with failures_as_json(as_json), stoppable():
        jobs = _connect(address)
        job = jobs.find(name)
        if follow:
            _follow(jobs, job, as_json=as_json)
            return
        with written_lines(as_json=as_json) as write:
            write(jobs.logs(job))
        if as_json:
            _show(jobs, job, as_json=True)


@job_app.command("stop")
def job_stop(
    name: JobArgument, *, address: AddressOption = _ADDRESS, as_json: JsonOption = False
) -> None:
    """End a job after its present step, with a checkpoint; its name continues the run."""
    from distsgd.jobs.job import STOP_WAIT_S

    with failures_as_json(as_json), stoppable():
        jobs = _connect(address)
        job = jobs.find(name)
        if job.has_ended:
            say(f"job {job.id} has ended already")
        else:
            say(f"stopping job {job.id}; it has {STOP_WAIT_S} s to save its run")
            job = jobs.stop(job, STOP_WAIT_S + _STOP_MORE_S)
        _show(jobs, job, as_json=as_json)


@job_app.command("drive", hidden=True)
def job_drive(
    config: ConfigArgument,
    arguments: Annotated[list[str] | None, typer.Argument()] = None,
    *,
    name: Annotated[str, typer.Option()],
    run_dir: Annotated[str, typer.Option()],
    submitted_with: Annotated[str, typer.Option()],
    run_id: Annotated[str, typer.Option(envvar="DISTSGD_RUN_ID")] = "",
    retries: Annotated[int, typer.Option(min=0)] = 0,
) -> None:
    """Train on the cluster that this node belongs to; what ``job submit`` has a node run."""
    from distsgd.jobs.drive import Driver, check_version, mark_run, steady_path

    check_version(submitted_with)
    given, config = config, steady_path(name) / config
    run = str(Path(run_dir).expanduser()) if run_dir.startswith("~") else run_dir
    train = [sys.executable, "-m", "distsgd", "train", str(config), "--run-dir", run]
    train += ["--resume", "auto", "--set", "parallel.address=auto", "--json", *(arguments or ())]
    again = ["job", "submit", str(given), "--name", name, *(arguments or ())]
    again += ["--retries", str(retries)] if retries else []
    train += ["--way-on", command_line(*again)]
    driver = Driver(train, retries=retries, say=say, prepare=lambda: mark_run(run, run_id))
    raise typer.Exit(driver.run())


def _check_configuration(config: Path, submission: Submission) -> None:
    """What is wrong with it is told before it is sent. Raises ConfigError and RunError."""
    from distsgd.cli.train import Request, read_config

    request = Request(overrides=submission.overrides, workers=submission.workers)
    read_config(config, request, here=submission.working_dir)


def _connect(address: str) -> Jobs:
    from distsgd.jobs.client import Jobs

    jobs = Jobs(address)
    here, there = jobs.ray_versions
    if here != there:
        say(f"warning: the cluster has Ray {there}, this machine {here}")
    return jobs


def _command(action: str, job: Job, address: str) -> str:
    return command_line("job", action, job.name, "--address", address)


def _follow(jobs: Jobs, job: Job, *, as_json: bool) -> None:
    """Until it has ended; ends this process with its exit code."""
    try:
        with written_lines(as_json=as_json) as write:
            job = jobs.follow(job, write)
    except KeyboardInterrupt:
        again, end = (
            f"{_command('logs', job, jobs.address)} --follow",
            _command("stop", job, jobs.address),
        )
        raise Interrupted(
            f"job {job.name} is no longer followed, and continues; follow it with: {again}; end "
            f"it with: {end}"
        ) from None
    except ClusterError:
        say(f"job {job.name} is no longer followed; whether it continues is not known")
        raise
    _show(jobs, job, as_json=as_json)
    raise typer.Exit(job.exit_code or 0)


def _show(jobs: Jobs, job: Job, *, as_json: bool) -> None:
    """Where a job and its run are."""
    from distsgd.jobs.run_state import difference, state_of

    state = state_of(job, jobs.logs(job))
    differs = difference(job, state)
    if as_json:
        print_json({**_described(job, state), "differs": differs or None})
        return
    print_facts(list(_facts(job, state)))
    if differs:
        say(f"warning: {differs}; the run is right")
    if job.has_ended and job.status != "SUCCEEDED":
        say(f"what it said: {_command('logs', job, jobs.address)}")


def _described(job: Job, state: RunState | None) -> dict[str, Any]:
    run = None if state is None else asdict(state)
    return {**asdict(job), "exit_code": job.exit_code, "run": run}


def _facts(job: Job, state: RunState | None) -> list[tuple[str, str]]:
    said = f"{job.status}" + (f" ({job.message})" if job.message else "")
    facts = [("job", f"{job.name} ({job.id})"), ("Ray says", said)]
    if job.exit_code is not None:
        asked = " (stopped as was asked)" if job.exit_code == Interrupted.exit_code else ""
        facts.append(("exit code", f"{job.exit_code}{asked}"))
    facts.append(("run directory", job.run_dir))
    if state is None:
        return [*facts, ("run", "not begun, or not seen from here")]
    steps = "" if state.step is None else f", step {state.step:,}"
    facts.append(("run", f"{state.status}{steps} (from the {state.source})"))
    title = "what it said" if state.status in ("interrupted", "begun") else "error"
    return [*facts, (title, state.error)] if state.error else facts


def _print_jobs(jobs: list[Job]) -> None:
    from rich.table import Column, Table
    from rich.text import Text

    table = Table("job", "submission", "Ray says", "submitted", Column("run", overflow="fold"))
    table.box = None
    for job in jobs:
        submitted = datetime.fromtimestamp(job.started_s).astimezone().strftime("%Y-%m-%d %H:%M")
        cells = (job.name, job.id, job.status, submitted, job.run_dir)
        table.add_row(*(Text(cell) for cell in cells))
    print_table(table)
