"""``experiment scale``: learning, then time, then the proof of their product, then the report.

All state is in the experiment's directory: what it holds is not made again::

    experiment.json     the plan
    learning/ timing/ full/ branches/ peers/
    cells.parquet report.html report.json
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from distsgd.base.files import make_private_directory, read_json, write_json_atomic
from distsgd.data.cache_directory import DirectoryLock
from distsgd.errors import ConfigError, RunError
from distsgd.experiments.branching import Branching
from distsgd.experiments.cells_file import write_cells
from distsgd.experiments.cluster_tasks import run_all_of
from distsgd.experiments.collect import Collected
from distsgd.experiments.conclude import conclude
from distsgd.experiments.environment import (
    check_bits,
    check_times,
    environment,
    held_alone,
)
from distsgd.experiments.estimate import Estimate, calibrate, within_budget
from distsgd.experiments.findings import Findings
from distsgd.experiments.learning import Learning
from distsgd.experiments.peer_runs import PeerRuns
from distsgd.experiments.plan import Grid, Piece, ScalePlan
from distsgd.experiments.products import FullKey, FullRuns
from distsgd.experiments.report import write_report
from distsgd.experiments.timing import Timing, timed_in, workers_at
from distsgd.experiments.whole import Totals, kept, outcome, totals
from distsgd.run.model import build_model
from distsgd.run.source import manifest_of, prepared_data

PLAN_FILE, CELLS_FILE = "experiment.json", "cells.parquet"


def read_plan(directory: Path) -> ScalePlan:
    """What the experiment in `directory` is to find out. Raises RunError where there is none."""
    path = directory / PLAN_FILE
    if not path.is_file():
        raise RunError(directory, f"holds no experiment (it has no {PLAN_FILE}); see --out")
    try:
        return ScalePlan.from_dict(read_json(path))
    except (ConfigError, KeyError, TypeError) as error:
        raise RunError(path, f"is damaged: {error}; begin another experiment") from error


@dataclass(slots=True)
class Scale:
    """One experiment under way.

    Attributes:
        say: Called with what a person should know.
        note: Told of each piece of work that is done, and its `outcome`.
        expect: Told how many pieces there are, before the first.
    """

    directory: Path
    plan: ScalePlan
    cache_dir: Path | None
    say: Callable[[str], None]
    note: Callable[[Piece, str], None] = lambda *_: None
    expect: Callable[[Totals], None] = lambda _: None
    _began_s: float = field(default_factory=time.monotonic)
    _held: list[DirectoryLock] = field(default_factory=list)

    def begin(self) -> None:
        """Write down what is to be found out, as far as the budget has room for it.

        Raises:
            RunError: The directory holds an experiment already.
            ConfigError, DataError: It cannot be made of these rows; nothing is written.
        """
        if (self.directory / PLAN_FILE).exists():
            way_out = "continue it by --resume, or choose another --out"
            raise RunError(self.directory, f"holds an experiment already; {way_out}")
        if self.directory.is_dir() and any(self.directory.iterdir()):
            raise RunError(self.directory, "holds other files; choose a new directory (--out)")
        if self.plan.budget_s is not None:
            self.dry_run()
        else:  # What is wrong with the rows is told before anything is written.
            Grid.of(self.plan, manifest_of(self._data()).train_rows)
        for said in self.plan.left_out:
            self.say(f"the budget leaves out: {said}")
        make_private_directory(self.directory)
        write_json_atomic(self.directory / PLAN_FILE, self.plan.to_dict())

    def run(self) -> Findings:
        """Make what is missing, or as much as the budget has room for. Blocks.

        Raises:
            ConfigError, DataError: Nothing was started.
            RunError: Another process makes it, or what there is was made elsewhere.
            ClusterError: Ray does not start, a worker is missing, or a node cannot do its part;
                what was made is kept.
        """
        with held_alone(self.directory):
            return self._made()

    def _made(self) -> Findings:
        data = self._data()
        manifest = manifest_of(data)
        grid = Grid.of(self.plan, manifest.train_rows)
        self._check_place(grid, data)
        model = build_model(self.plan.config, manifest)
        self.expect(totals(grid))
        for piece in kept(grid, self.directory):
            self._note(piece)
        failed = self._learn(grid, data)
        found = Collected(grid, self.directory, failed)
        chosen = found.chosen()
        over: Any = {"is_over": self._is_over, "note": self._note}
        self._time(found, data)
        branching = Branching(grid, self.directory, self._cache())
        with run_all_of(self.plan.config, self.directory, data) as run_all:
            failed |= branching.make(data, chosen, run_all=run_all, **over)
        failed |= PeerRuns(grid, self.directory).make(data, model, chosen, **over)
        for name, failure in sorted(failed.items()):
            self.say(f"{name}: {failure}")
        return conclude(found, manifest, model)

    def _note(self, piece: Piece) -> None:
        self.note(piece, outcome(self.directory, piece))

    def dry_run(self) -> tuple[Grid, Estimate]:
        """What would be made and how long it takes at most; times some steps of each batch size."""
        data = self._data()
        rows = manifest_of(data)
        speed = calibrate(Grid.of(self.plan, rows.train_rows), data, rows.test_rows)
        self.plan, found = within_budget(self.plan, rows.train_rows, speed)
        return Grid.of(self.plan, rows.train_rows), found

    def _data(self) -> Path:
        found = prepared_data(
            self.plan.config, cache_dir=self.cache_dir, on_message=self.say, held=self._held
        )
        if not isinstance(found, Path):
            way_out = "copy the rows to a disk of this machine (set [data] path)"
            raise ConfigError(
                [f"data.path is on object storage, which timings do not take; {way_out}"]
            )
        return found

    def _cache(self) -> str | None:
        return str(self.cache_dir.absolute()) if self.cache_dir else None

    def _check_place(self, grid: Grid, data: Path) -> None:
        """Raises RunError where it would continue with other bits, or with times of here."""
        here = environment(self.plan.config.train.dtype)
        check_bits(self.directory, here)
        if not self._is_timed(Collected(grid, self.directory, {}), data):
            check_times(self.directory, timed_in(grid, self.directory), here)

    def _is_timed(self, found: Collected, data: Path) -> bool:
        """Is no time missing, neither of the pairs, nor of runs in full, nor of peers?"""
        are_pairs_made = self._timing(found.grid, data).is_made
        is_made = self._full_runs(found.grid).is_made
        peers = PeerRuns(found.grid, self.directory)
        return (
            are_pairs_made
            and all(map(is_made, self._full_keys(found)))
            and peers.is_made(found.chosen())
        )

    def _timing(self, grid: Grid, data: Path) -> Timing:
        return Timing(grid, self.directory, data, self._is_over, self._note)

    def _full_runs(self, grid: Grid) -> FullRuns:
        return FullRuns(grid, self.directory, self._cache())

    def _learn(self, grid: Grid, data: Path) -> dict[str, str]:
        with run_all_of(self.plan.config, self.directory, data) as run_all:
            learning = Learning(
                grid, self.directory, self._cache(), self._is_over, self._note, run_all
            )
            learning.run()
        return learning.failed

    def _time(self, found: Collected, data: Path) -> None:
        """The pairs, then the runs in full; while they are timed nothing else runs."""
        grid = found.grid
        timing, full = self._timing(grid, data), self._full_runs(grid)
        if timing.is_made and all(map(full.is_made, self._full_keys(found))):
            return
        with workers_at(grid) as overrides:
            timing.run(overrides)
            for key in self._full_keys(found):
                if not self._is_over() and not full.is_made(key):
                    full.make(key, overrides)
                    self._note(Piece("full", key.learning.batch, key.name))

    def _full_keys(self, found: Collected) -> tuple[FullKey, ...]:
        return (*found.wanted_full_runs(), *found.wanted_checks())

    def _is_over(self) -> bool:
        budget_s = self.plan.budget_s
        return budget_s is not None and time.monotonic() - self._began_s > budget_s


def write(findings: Findings, directory: Path, *, png: bool = False) -> list[Path]:
    """The cells and the report, each file whole; blocks.

    Raises:
        MissingExtraError: `png` needs what is not installed; nothing is written then.
        RunError: The operating system refuses.
    """
    files = write_report(findings, directory, png=png)
    write_cells(findings, directory / CELLS_FILE)
    return [*files, directory / CELLS_FILE]
