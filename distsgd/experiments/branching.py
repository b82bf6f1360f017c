"""The critical batch size measured directly: a run branched into several batch sizes.

The trunk is a learning run trained to a share of its steps. Each branch continues from its very
state (weights and optimiser) over the same number of samples, with a batch k times as large
(Merrill et al., 2025, arXiv:2505.23971). A branch is a run directory that begins with the trunk's
checkpoint, and what follows is exact: the branch with k = 1 has the bits of the trunk trained on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from distsgd.config import TrainConfig
from distsgd.errors import DivergedError, TrainingInterrupted
from distsgd.experiments.children import Work, run_all, serve
from distsgd.experiments.learning import Chosen
from distsgd.experiments.learning_run import Learned
from distsgd.experiments.plan import Grid, LearningKey, Piece, said
from distsgd.parallel.server.loss_monitor import LossMonitor
from distsgd.parallel.server.saved_state import plain
from distsgd.run import run_files
from distsgd.run.run import Run
from distsgd.run.source import manifest_of
from distsgd.run.spec import make_run_spec
from distsgd.run.trainer import Trainer
from distsgd.statistics.branching import branch_rate
from distsgd.store.checkpoint import CheckpointStore
from distsgd.store.logs import EvaluationLog
from distsgd.store.run_directory import RunDirectory

SHARES = (1 / 4, 1 / 2)  # Of the trunk's steps to target: where it is branched.
EPOCHS = 2  # Of each branch.
LEAST_STEPS = 8  # Of the branch with the largest batch.
_ADAPTIVE = ("adamw",)


class BranchKey(NamedTuple):
    """One branch: of which run, at which step, into which batch size."""

    trunk: LearningKey
    step: int
    batch: int

    @property
    def trunk_name(self) -> str:
        """Of the trunk's directory, below the experiment's."""
        return f"branches/trunk-{self.step}"

    @property
    def name(self) -> str:
        """Of its directory, below the experiment's."""
        return f"branches/step-{self.step}-batch-{self.batch}"


@dataclass(frozen=True, slots=True)
class Branch:
    """What a branch came to: the loss of the held-out rows at its end; None where there is none."""

    key: BranchKey
    loss: float | None


@dataclass(frozen=True, slots=True)
class Branching:
    """Makes and reads the branches of an experiment."""

    grid: Grid
    directory: Path
    cache_dir: str | None

    def keys(self, chosen: tuple[Chosen, ...]) -> Iterator[BranchKey]:
        """Those of the smallest batch size whose first seed met the target; none without one."""
        for choice in chosen:
            trunk = LearningKey(choice.batch, choice.rate, self.grid.seeds[0])
            steps = Learned.read(self.directory, trunk).steps
            if steps is None:
                continue
            for share in SHARES:
                step = max(1, math.floor(share * steps))
                yield from (BranchKey(trunk, step, batch) for batch in self._batches(trunk.batch))
            return

    def _batches(self, smallest: int) -> Iterator[int]:
        most = EPOCHS * self.grid.num_rows // LEAST_STEPS
        batch = smallest
        while batch <= most:
            yield batch
            batch *= 2

    def make(
        self,
        data: Path,
        chosen: tuple[Chosen, ...],
        *,
        is_over: Callable[[], bool],
        note: Callable[[Piece], None],
    ) -> dict[str, str]:
        """Train what is missing; what failed, by name. Blocks."""
        keys = list(self.keys(chosen))
        failed = {}
        trunks = {key.trunk_name: key for key in keys}.values()
        for works in (
            [self._trunk_work(key) for key in trunks if not self._is_done(key.trunk_name)],
            [self._work(key, data) for key in keys if not self._is_done(key.name)],
        ):
            for done in run_all(works, is_over=is_over):
                note(done.piece)
                if done.failure:
                    failed[done.piece.name] = done.failure
        return failed

    def read(self, chosen: tuple[Chosen, ...]) -> tuple[Branch, ...]:
        """All branches, made or not."""
        return tuple(Branch(key, self._loss(key)) for key in self.keys(chosen))

    def rate(self, key: BranchKey) -> float:
        """Of a branch: see `branch_rate`."""
        is_adaptive = self.grid.plan.config.optimizer.type in _ADAPTIVE
        return branch_rate(key.trunk.rate, key.batch / key.trunk.batch, is_adaptive=is_adaptive)

    def _loss(self, key: BranchKey) -> float | None:
        if not self._is_done(key.name):
            return None
        run = RunDirectory.open(self.directory / key.name)
        rows = EvaluationLog(run.evaluations_path).read()
        return rows[-1].test_loss if rows else None

    def _is_done(self, name: str) -> bool:
        place = self.directory / name
        if not RunDirectory.is_run(place):
            return False
        result = RunDirectory.open(place).result_path
        return result.is_file()

    def _trunk_work(self, key: BranchKey) -> Work:
        config = self.grid.part_config(key.trunk, until_step=key.step)
        return self._as_work(key.trunk.batch, key.trunk_name, config)

    def _work(self, key: BranchKey, data: Path) -> Work:
        steps = max(1, EPOCHS * self.grid.num_rows // key.batch)
        wide = LearningKey(key.batch, self.rate(key), key.trunk.seed)
        config = self.grid.part_config(wide, until_step=key.step + steps)
        trunk = {"trunk": str(self.directory / key.trunk_name), "data": str(data)}
        return self._as_work(key.batch, key.name, config, **trunk)

    def _as_work(self, batch: int, name: str, config: TrainConfig, **more: str) -> Work:
        run = str(self.directory / name)
        task = {"config": said(config), "run": run, "cache_dir": self.cache_dir, **more}
        return Work(Piece("branches", batch, name), __name__, task)


def begin_branch(config: TrainConfig, data: Path, *, run: Path, trunk: Path) -> None:
    """A run at `run` whose first state is the newest checkpoint of `trunk`; nothing where one is.

    Raises RunError, CheckpointError.
    """
    if RunDirectory.is_run(run):
        return
    found = Run.open(trunk).checkpoint
    run_spec = make_run_spec(config, data, manifest_of(data))
    # Its windows are of so many steps of an epoch as this batch size has.
    monitor = {
        name: plain(value)
        for name, value in LossMonitor.of(run_spec.sampler.steps_per_epoch).state().items()
    }
    training = {**found.state["training"], "loss_monitor": monitor}
    with run_files.staging_beside(run) as staging:
        begun = run_files.begin(staging / "run", run_spec, None)
        store = CheckpointStore(begun.checkpoints)
        state = {**found.state, "training": training}
        store.save(found.step, arrays=found.arrays, state=state)
        begun.path.rename(run)


class _Training:
    """Makes trunks and branches in a process of its own: see `children.serve`."""

    def __init__(self) -> None:
        self._trainer: Trainer | None = None

    def stop(self) -> None:
        """End the run under way after its step."""
        if self._trainer is not None:
            self._trainer.request_stop()

    def make(self, task: dict[str, Any]) -> None:
        """Train ``task["run"]``; one with a trunk begins with the state of that."""
        config, run = TrainConfig.from_dict(task["config"]), Path(task["run"])
        if "trunk" in task:
            begin_branch(config, Path(task["data"]), run=run, trunk=Path(task["trunk"]))
        self._trainer = Trainer(config, run_dir=run, cache_dir=task["cache_dir"])
        with suppress(TrainingInterrupted, DivergedError):  # Its directory says so.
            self._trainer.fit(resume="auto")


if __name__ == "__main__":
    training = _Training()
    serve(training.make, training.stop)
