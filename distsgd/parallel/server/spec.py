"""What a server is told before a run, and what it says during it. Plain data."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Literal, Protocol

from distsgd.base.arrays import Array
from distsgd.base.locations import Location
from distsgd.base.named import Named
from distsgd.optim.frozen import Frozen
from distsgd.optim.rules import UpdateRule
from distsgd.optim.schedules import Schedule
from distsgd.optim.search import SearchRule
from distsgd.parallel.pool.autotuner import AssignmentKind, Phases
from distsgd.parallel.server.evaluation_grid import EvaluationGrid
from distsgd.parallel.server.rollback import OnDivergence
from distsgd.parallel.server.target import Target
from distsgd.parallel.transport import TransportKind
from distsgd.parallel.worker import WorkerSpec

LOOK_S = 0.1  # How often a run is looked at from outside.

Phase = Literal["starting", "training", "evaluating", "saving", "ended"]
Ending = Literal["done", "interrupted", "diverged"]
Length = Literal["steps", "epochs"]  # What a run is as long as.
StoppedBy = Length | Literal["target", "gradient", "request", "divergence"]


@dataclass(frozen=True, slots=True)
class UpdateSpec:
    """How a mean gradient becomes an update.

    Attributes:
        squared_error_factor: What makes the loss the squared error; None where it is another one.
        frozen: Weights that never move.
        stop_gradient_norm: Training ends when the norm of the mean gradient is below it.
        on_divergence: What becomes of a run whose loss grows without bound.
        output_advice: See `distsgd.nn.Network.output_advice`.
    """

    rule: UpdateRule | SearchRule
    schedule: Schedule
    clip_norm: float | None
    per_sample: bool
    history_every: int
    steps_per_epoch: int
    squared_error_factor: float | None = None
    frozen: Frozen | None = None
    stop_gradient_norm: float | None = None
    on_divergence: OnDivergence = "stop"
    output_advice: str = ""


@dataclass(frozen=True, slots=True)
class LogSpec:
    """Where and how often a run is recorded; steps and seconds.

    Attributes:
        take_over: Whether another process that has the run on object storage is superseded.
        session: Of one `fit`: a server that is started anew succeeds the one that died, and nobody
            else's.
    """

    run: Path | Location
    digest_every: int
    checkpoint_every_s: float  # 0: not by time.
    checkpoint_every_steps: int | None
    keep: int
    take_over: bool = False
    session: str = field(default_factory=lambda: secrets.token_hex(8), compare=False)

    @property
    def directory(self) -> Path:
        """The run, where it is a directory: observers write into it."""
        assert isinstance(self.run, Path), "a run on object storage has no observer"
        return self.run


@dataclass(frozen=True, slots=True)
class PoolSpec:
    """Who computes and how they are reached. No input to the bits.

    Attributes:
        num_workers: How many are asked for; 0 in process; None: as there is room on the cluster.
        spin: Whether processes that have a core each may look for messages without falling asleep.
        least_workers: How many the start waits for; None: all.
    """

    num_workers: int | None
    assignment: AssignmentKind
    transport: TransportKind
    step_timeout_s: float
    spin: bool
    secret: bytes = b""
    host: str = "127.0.0.1"  # Of the server; "": the address of the node where it is started.
    least_workers: int | None = None


@dataclass(frozen=True, slots=True)
class ServerSpec:
    """All that a server needs to know to make a run, from the start or from its last checkpoint."""

    worker: WorkerSpec
    update: UpdateSpec
    record: LogSpec
    pool: PoolSpec
    total_steps: int
    evaluate_every: EvaluationGrid
    num_test_rows: int
    init: str  # See `Model.initialise`; "" of a model with first weights of its own.
    initial_weights: Array | None = None  # [P]; instead of `init`.
    observed_events: tuple[str, ...] = ()  # That a driver wants to see: see `EventHooks`.
    observer: Named | None = None  # Of an `Observer`; no input to the bits.
    length: Length = "steps"  # What `total_steps` came from.
    target: Target | None = None  # Ends it at the first evaluation that meets it.


@dataclass(frozen=True, slots=True)
class Status:
    """Where a run is."""

    phase: Phase
    step: int
    epoch: float
    train_loss: float | None
    test_loss: float | None
    test_accuracy: float | None
    num_samples: int  # Since this server started to train.
    seconds: float  # The same.
    num_workers: int
    incarnation: int
    phases: Phases  # Of the steps made by this incarnation.
    plan: tuple[int, ...]  # Who computes a full step; -1 is the server itself.
    is_settled: bool  # Is that the plan for some time, or one that is being tried?
    num_messages: int  # Of this incarnation so far.
    messages: tuple[str, ...]  # Those that the asker did not know.
    members: tuple[int, ...] = ()  # The workers that are connected.
    nodes: tuple[str, ...] = ()  # The names of their nodes.
    num_rejoined: int = 0  # How often one of them came again.
    wanted: tuple[int, ...] = ()  # Numbers of workers that this server was asked for, in order.
    num_expected: int = 0  # Workers that there are to be by now.
    lack: str = ""  # Why there is no room for all of them.
    is_to_stop: bool = False  # Was this server asked to stop the run, by another than its driver?


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How training ended, as ``--json`` and ``result.json`` say it; losses are means, or None.

    A loss is None where it is no finite number.

    Attributes:
        run: The run directory.
        status: "done", "interrupted" or "diverged".
        stopped_by: "steps" or "epochs" at the end of its length, whichever of them ended it;
            "target" where its last evaluation meets that; "gradient" below `stop_gradient_norm`;
            "request" or "divergence".
        advice: What a person should know and change, if there is anything.
        steps: Updates made.
        epochs: Passes over the rows.
        train_loss: Over the last epoch.
        test_loss: Of the last evaluation.
        test_accuracy: Of the last evaluation; None where the labels are no classes.
        weights_digest: Of the weights at the end, in hexadecimal.
        samples_per_s: In the last session of the run.
        num_workers: Worker processes that were asked for.
        seconds: Time spent training, in all sessions of the run.
    """

    run: str
    status: str
    stopped_by: str
    advice: str | None
    steps: int
    epochs: float
    train_loss: float | None
    test_loss: float | None
    test_accuracy: float | None
    weights_digest: str
    samples_per_s: float
    num_workers: int
    seconds: float


KEYS = tuple(field.name for field in fields(Outcome))


class Watch(Protocol):
    """Watches a run; each message of the server is shown to it once."""

    def __call__(self, status: Status) -> bool:
        """Show `status`; should the run stop now?"""
