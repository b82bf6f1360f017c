"""Learning: how many steps each batch size needs to the target, at the best of the rates tried.

Every decision is a function of what the runs' directories say, so that an experiment that was
killed comes to the same rates. Trials have a seed of their own: the runs that are reported did not
choose the rate.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from distsgd.experiments import learning_run
from distsgd.experiments.children import RunAll, Work, run_all
from distsgd.experiments.learning_run import Learned
from distsgd.experiments.plan import NUM_RATES, NUM_REFINED, Grid, LearningKey, Piece, said
from distsgd.parallel.server.target import Target
from distsgd.statistics.rates import halve, is_at_edge, log_grid, refine

LEARN = f"{learning_run.__name__}:{learning_run.train.__name__}"


@dataclass(frozen=True, slots=True)
class Chosen:
    """The learning rate of a batch size.

    Attributes:
        is_at_edge: Is it the lowest or highest of all that were tried?
    """

    batch: int
    rate: float
    is_at_edge: bool
    tried: tuple[float, ...]


@dataclass(slots=True)
class Learning:
    """Makes the learning runs of an experiment.

    Attributes:
        is_over: Asked now and then: has the time been spent? Then no run is begun.
        note: Told of each run that has come to a rung.
        run_all: Makes them: by processes of this machine, or on a cluster.
        failed: What a run said that could not be made, by its name.
    """

    grid: Grid
    directory: Path
    cache_dir: str | None
    is_over: Callable[[], bool]
    note: Callable[[Piece], None]
    run_all: RunAll = run_all
    failed: dict[str, str] = field(default_factory=dict)

    def run(self) -> tuple[Chosen, ...]:
        """All runs; the chosen rate of each batch size. Blocks."""
        chosen = self.choose_rates(make=True)
        self._make(
            (LearningKey(choice.batch, choice.rate, seed), None)
            for choice in chosen
            for seed in self.grid.seeds
        )
        return chosen

    def choose_rates(self, *, make: bool) -> tuple[Chosen, ...]:
        """The rates; trials that are missing are made, or count as hopeless. Blocks."""
        plan = self.grid.plan
        if plan.rates is None:
            rate = plan.config.optimizer.learning_rate
            return tuple(Chosen(batch, rate, False, (rate,)) for batch in self.grid.batches)
        rates = log_grid(*plan.rates, NUM_RATES, seed=self.grid.trial_seed)
        self._halve(dict.fromkeys(self.grid.batches, rates), make=make)
        more = {
            batch: refine(rates, self._best(batch, rates), count=NUM_REFINED)
            for batch in self.grid.batches
        }
        self._halve(more, make=make)
        return tuple(self._chosen(batch, sorted(rates + more[batch])) for batch in more)

    def _halve(self, tried: dict[int, list[float]], *, make: bool) -> None:
        """Train the rates of each batch size rung by rung, at each the better half of them."""
        left = dict(tried)
        for rung in range(len(self.grid.rungs(1))):
            untils = {batch: self.grid.rungs(batch)[rung] for batch in left}
            tasks = [
                (self._trial(batch, rate), untils[batch])
                for batch, rates in left.items()
                for rate in rates
            ]
            if make:
                self._make(tasks)
            left = {
                batch: halve({rate: self._cost(batch, rate, untils[batch]) for rate in rates})
                for batch, rates in left.items()
            }

    def _trial(self, batch: int, rate: float) -> LearningKey:
        return LearningKey(batch, rate, self.grid.trial_seed)

    def _cost(self, batch: int, rate: float, until: int | None) -> float:
        """The lower the better: first the trials that met the target, by how soon they did."""
        learned = Learned.read(self.directory, self._trial(batch, rate))
        learned = learned if until is None else learned.at(until)
        if learned.steps is not None:
            return -2.0 - 1.0 / learned.steps  # An accuracy of 1 costs -1.
        target = Target.parse(self.grid.plan.target)
        return math.inf if learned.ending == "diverged" else learned.least_cost(target)

    def _best(self, batch: int, rates: Sequence[float]) -> float:
        return min(rates, key=lambda rate: (self._cost(batch, rate, None), rate))

    def _chosen(self, batch: int, rates: Sequence[float]) -> Chosen:
        keys = [self._trial(batch, rate) for rate in rates]
        tried = [key.rate for key in keys if Learned.read(self.directory, key).evaluations]
        if not tried:
            return Chosen(batch, rates[len(rates) // 2], is_at_edge=False, tried=tuple(rates))
        best = self._best(batch, tried)
        return Chosen(batch, best, is_at_edge(rates, best), tuple(rates))

    def _make(self, wanted: Iterable[tuple[LearningKey, int | None]]) -> None:
        """Make what is missing of `wanted`, as many runs at once as there is room for."""
        works = [self._work(*it) for it in wanted if not self._is_made(*it)]
        for done in self.run_all(works, is_over=self.is_over):
            self.failed.pop(done.piece.name, None)
            if done.failure:
                self.failed[done.piece.name] = done.failure
            self.note(done.piece)

    def _is_made(self, key: LearningKey, until: int | None) -> bool:
        learned = Learned.read(self.directory, key)
        reached = bool(learned.evaluations) and learned.evaluations[-1].step
        return learned.is_final() or (until is not None and reached >= until)

    def _work(self, key: LearningKey, until: int | None) -> Work:
        task = {
            "config": said(self.grid.learning_config(key)),
            "run": str((self.directory / key.name).absolute()),
            "cache_dir": self.cache_dir,
            "until_step": until,
        }
        return Work(Piece("learning", key.batch, key.name), LEARN, task)
