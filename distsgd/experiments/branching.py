"""The critical batch size measured directly: a run branched into several batch sizes.

The trunk is a learning run trained to a share of its steps. Each branch continues from its very
state (weights and optimiser) over the same number of samples, with a batch k times as large
(Merrill et al., 2025, arXiv:2505.23971). A branch is a run directory that begins with the trunk's
checkpoint, and what follows is exact: the branch with k = 1 has the bits of the trunk trained on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from distsgd.base.work import Stop
from distsgd.config import TrainConfig
from distsgd.errors import DivergedError, RunError, TrainingInterrupted
from distsgd.experiments.children import RunAll, Work
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
from distsgd.statistics.branching import branch_rate, smoothed_loss
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
        return f"branches/{self.trunk.path}/step-{self.step}/trunk"

    @property
    def name(self) -> str:
        """Of its directory, below the experiment's."""
        return f"branches/{self.trunk.path}/step-{self.step}/into-batch-{self.batch}"


@dataclass(frozen=True, slots=True)
class Branch:
    """What a branch came to: its smoothed loss of the held-out rows; None where there is none."""

    key: BranchKey
    loss: float | None


@dataclass(frozen=True, slots=True)
class Branching:
    """Makes and reads the branches of an experiment."""

    grid: Grid
    directory: Path
    cache_dir: str | None

    def why_not(self, chosen: tuple[Chosen, ...]) -> str:
        """Why there are no branches; "" where there are."""
        schedule = self.grid.plan.config.schedule.type
        if schedule != "constant":
            return f"the schedule is {schedule}, which a branch would end before its time"
        trunk = self._trunk(chosen)
        if trunk is None:
            return "no batch size met the target"
        if len(list(self._batches(trunk.batch))) < 2:
            return f"no batch above {trunk.batch:,} has {LEAST_STEPS} steps in {EPOCHS} epochs"
        return ""

    def keys(self, chosen: tuple[Chosen, ...]) -> tuple[BranchKey, ...]:
        """Those of the smallest batch size whose first seed met the target."""
        trunk = self._trunk(chosen)
        if trunk is None or self.why_not(chosen):
            return ()
        steps = Learned.read(self.directory, trunk).steps or 0
        at = sorted({max(1, math.floor(share * steps)) for share in SHARES})
        batches = list(self._batches(trunk.batch))
        return tuple(BranchKey(trunk, step, batch) for step in at for batch in batches)

    def _trunk(self, chosen: tuple[Chosen, ...]) -> LearningKey | None:
        keys = (LearningKey(one.batch, one.rate, self.grid.seeds[0]) for one in chosen)
        return next((key for key in keys if Learned.read(self.directory, key).steps), None)

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
        run_all: RunAll,
        is_over: Callable[[], bool],
        note: Callable[[Piece], None],
    ) -> dict[str, str]:
        """Train what is missing; what failed, by name. Blocks."""
        keys = self.keys(chosen)
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
        losses = [row.test_loss for row in EvaluationLog(run.evaluations_path).read()]
        known = [loss for loss in losses if loss is not None]
        is_whole = known and len(known) == len(losses)
        return smoothed_loss(known) if is_whole else math.inf  # It diverged.

    def _is_done(self, name: str) -> bool:
        place = self.directory / name
        if not RunDirectory.is_run(place):
            return False
        run = RunDirectory.open(place)
        result = run.read_result()
        return result.get("status") in ("done", "diverged")

    def _trunk_work(self, key: BranchKey) -> Work:
        config = self.grid.part_config(key.trunk, until_step=key.step)
        return self._as_work(key.trunk.batch, key.trunk_name, config)

    def _work(self, key: BranchKey, data: Path) -> Work:
        grid, wide = self.grid, LearningKey(key.batch, self.rate(key), key.trunk.seed)
        # Its steps are numbered from the trunk's: all branches use as many samples beyond that.
        samples = grid.samples_at(key.step, key.batch) + EPOCHS * grid.num_rows
        config = grid.part_config(wide, until_step=grid.step_at(samples, key.batch))
        trunk = {
            "trunk": str((self.directory / key.trunk_name).absolute()),
            "data": str(data.absolute()),
        }
        return self._as_work(key.batch, key.name, config, **trunk, trunk_step=key.step)

    def _as_work(self, batch: int, name: str, config: TrainConfig, **more: object) -> Work:
        run = str((self.directory / name).absolute())
        task = {"config": said(config), "run": run, "cache_dir": self.cache_dir, **more}
        return Work(Piece("branches", batch, name), f"{__name__}:{train.__name__}", task)


def begin_branch(
    config: TrainConfig, data: Path, *, run: Path, trunk: Path, trunk_step: int
) -> None:
    """A run at `run` whose first state is that of `trunk` at its end; nothing where one is.

    Raises RunError, CheckpointError.
    """
    if RunDirectory.is_run(run):
        return
    found = Run.open(trunk).checkpoint
    if found.step != trunk_step:
        raise RunError(trunk, f"is at step {found.step}, not at {trunk_step}; remove it")
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


def train(task: Mapping[str, Any], stop: Stop) -> None:
    """Train ``task["run"]``, a trunk or a branch; one with a trunk begins with the state of that.

    In a process of its own: see `do_work`.
    """
    config, run = TrainConfig.from_dict(task["config"]), Path(task["run"])
    if "trunk" in task:
        trunk, step = Path(task["trunk"]), task["trunk_step"]
        begin_branch(config, Path(task["data"]), run=run, trunk=trunk, trunk_step=step)
    trainer = Trainer(config, run_dir=run, cache_dir=task["cache_dir"])
    stop.taken_by(trainer.request_stop)
    with suppress(TrainingInterrupted, DivergedError):  # Its directory says so.
        trainer.fit(resume="auto")
