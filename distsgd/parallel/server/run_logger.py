"""What a run leaves on disk: history, evaluations, digests, checkpoints, result.

In the loop (`server.step_runner`), `run_logger.step_done` is this. No input to the bits.

Rows lie in memory until a checkpoint makes them durable together with the state they lead to, so
that what is on disk never runs ahead of what a resume continues from.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict
from time import monotonic

from distsgd.errors import CheckpointError, ModelError, RunError
from distsgd.models.protocol import Model
from distsgd.models.weights import weights_vector
from distsgd.optim.clip import squared_norm
from distsgd.parallel.observer import Observer
from distsgd.parallel.server.saved_state import check_state, does_not_fit
from distsgd.parallel.server.spec import KEYS, LogSpec, Outcome
from distsgd.parallel.server.training import Training
from distsgd.store.checkpoint import Checkpoint, CheckpointStore
from distsgd.store.logs import (
    DigestChain,
    DigestLog,
    EvaluationLog,
    EvaluationRow,
    HistoryRow,
    HistoryWriter,
)
from distsgd.store.publisher import Publisher
from distsgd.store.run_directory import RunDirectory

MOST_SAVING = 0.015  # Of the time, where checkpoints come by time.
MOST_PATIENCE = 10  # Times the interval.


class RunLogger:
    """Keeps the record of one run; one process at a time (the run's lock)."""

    def __init__(
        self,
        run: RunDirectory,
        spec: LogSpec,
        model: Model,
        *,
        say: Callable[[str], None],
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._run, self._spec = run, spec
        self._model = model
        self._clock = clock
        self._history = HistoryWriter(run.history)
        self._evaluations = EvaluationLog(run.evaluations_path)
        self._digests = DigestLog(run.digests_path)
        self._publisher = Publisher(run, say)
        self._chain = DigestChain()
        self._checkpoints = CheckpointStore(run.checkpoints, keep=spec.keep)
        self._saved_step = -1
        self._best: Checkpoint | None = None  # Not yet written.
        self._saved_at = clock()
        self._save_s = 0.0  # How long the last one took.
        self.evaluation: EvaluationRow | None = None  # The latest.
        self.best_test_loss: float | None = None

    def step_done(self, training: Training, row: HistoryRow | None) -> None:
        """After every step: the row, the digest if it is due.

        Raises RunError where another process has taken the run over; costs nothing.
        """
        self._run.check()
        if row is not None:
            self._history.append(row)
        if training.step % self._spec.digest_every == 0:
            self._digests.append(training.step, self._chain.extend(training.step, training.weights))

    def evaluated(self, row: EvaluationRow, training: Training, *, seconds: float) -> None:
        """Record an evaluation.

        The best so far is kept in memory until the next checkpoint writes it.
        """
        self._evaluations.append(row)
        self.evaluation = row
        loss, best = row.test_loss, self.best_test_loss
        if loss is not None and math.isfinite(loss) and (best is None or loss < best):
            self.best_test_loss = loss
            self._best = _copy(self._snapshot(training, seconds))

    def checkpoint_is_due(self, step: int) -> bool:
        """Is it time for a checkpoint after `step`?

        By time, one that takes long comes more rarely, so that saving stays a small share.
        """
        spec = self._spec
        if spec.checkpoint_every_steps and step % spec.checkpoint_every_steps == 0:
            return True
        if not spec.checkpoint_every_s:
            return False
        every_s = spec.checkpoint_every_s
        # Not without bound: a disk that stalls once would keep a run unsaved for long.
        pause_s = min(max(every_s, self._save_s / MOST_SAVING), MOST_PATIENCE * every_s)
        return self._clock() - self._saved_at >= pause_s

    def save(self, training: Training, *, seconds: float, is_end: bool = False) -> bool:
        """Make everything durable up to the present step.

        False where the weights are no longer finite, and nothing is saved; but for a run that
        trains on through that, at its end. Blocks. Object storage that does not answer gets it
        with the next checkpoint, or by `publish` or `write_result`.

        Raises:
            RunError: The disk refuses, or another process has taken the run over; nothing that
                was saved before is lost.
        """
        self._saved_at = self._clock()
        is_wanted = is_end and training.trains_on
        if not is_wanted and not math.isfinite(squared_norm(training.weights)):
            return False
        if self._best is None and training.step == self._saved_step:
            return True
        self._history.flush()
        self._evaluations.flush()
        self._digests.flush()
        if self._best is not None:
            self._write(self._best, best=True)
        if self._best is None or self._best.step != training.step:
            self._write(self._snapshot(training, seconds), best=False)
        self._publisher.at_checkpoint(training.step)
        self._best, self._saved_step = None, training.step
        self._save_s = self._clock() - self._saved_at
        return True

    def publish(self) -> None:
        """What was saved last; blocks. Raises PublishError, RunError; see `Publisher.at_end`."""
        self._publisher.at_end()

    def write_result(self, outcome: Outcome, observer: Observer | None) -> str:
        """Write down how the run ended; returns what its observer reports, or "". Blocks.

        Raises:
            RunError: As of `save`.
            PublishError: Object storage does not answer any more.
        """
        own = asdict(outcome)
        seen = {} if observer is None else dict(observer.summary())
        self._run.write_json(self._run.result_path, own | seen | own)  # Its own come first.
        self.publish()
        return "" if observer is None else observer.report()

    def _snapshot(self, training: Training, seconds: float) -> Checkpoint:
        return Checkpoint(
            training.step,
            {"weights": self._model.views(training.weights), **training.arrays()},
            {
                "training": training.state(),
                "digest": self._chain.value,
                "best_test_loss": self.best_test_loss,
                "seconds": seconds,
            },
        )

    def _write(self, snapshot: Checkpoint, *, best: bool) -> None:
        self._checkpoints.save(
            snapshot.step, arrays=snapshot.arrays, state=snapshot.state, best=best
        )

    def resume(self, training: Training, *, on_message: Callable[[str], None]) -> float | None:
        """Put `training` back to the newest whole checkpoint and drop what was recorded beyond it.

        Returns:
            The seconds spent until then; None where there is no checkpoint, and nothing was
            changed.

        Raises:
            CheckpointError: All checkpoints are damaged, or they do not fit.
        """
        found = self._checkpoints.latest(on_message)
        step = found.step if found else 0
        self._history.drop_after(step)
        self._evaluations.drop_after(step)
        self._digests.drop_after(step)
        if found is None:
            return None
        self._restore(training, found)
        self._saved_step = step
        return float(found.state["seconds"])

    def _restore(self, training: Training, found: Checkpoint) -> None:
        like = self._snapshot(training, 0.0).state
        check_state(found.state, like=like)
        if found.state["training"]["step"] != found.step:
            raise CheckpointError(
                "checkpoint",
                f"its state is that of step {found.state['training']['step']}; must be that of "
                f"step {found.step}, as it is named",
            )
        try:
            named = found.arrays.get("weights", {})
            weights = weights_vector(
                self._model,
                named,
                training.weights.dtype,
                must_be_finite=not training.trains_on,
            )
        except ModelError as error:
            raise does_not_fit(error) from None
        training.restore(found.state["training"], weights, found.arrays)
        self._chain = DigestChain(found.state["digest"])
        self.best_test_loss = found.state["best_test_loss"]
        rows = self._evaluations.read()
        self.evaluation = rows[-1] if rows else None


def _copy(snapshot: Checkpoint) -> Checkpoint:
    """The same with arrays of its own: training continues in the old ones."""
    arrays = {
        group: {name: array.copy() for name, array in named.items()}
        for group, named in snapshot.arrays.items()
    }
    return Checkpoint(snapshot.step, arrays, snapshot.state)


def ended_before(run: RunDirectory) -> Outcome | None:
    """How another process, or a server that died since, brought `run` to its end.

    Raises:
        RunError: Its result is damaged.
    """
    metrics = run.read_result()
    if metrics.get("status") != "done":
        return None
    try:
        return Outcome(**{key: metrics[key] for key in KEYS})
    except KeyError as missing:
        reason = f"has no {missing.args[0]}; restore it, or remove it to continue"
        raise RunError(run.result_path, reason) from None
