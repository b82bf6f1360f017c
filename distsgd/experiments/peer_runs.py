"""The peers of an experiment: which can train its network, and what they took."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np

from distsgd.base.files import read_json
from distsgd.config import TrainConfig
from distsgd.experiments.children import Work, run_all
from distsgd.experiments.findings import PeerCell
from distsgd.experiments.learning import Chosen
from distsgd.experiments.peers.training import PeerTask
from distsgd.experiments.plan import Grid, LearningKey, Piece
from distsgd.models.protocol import Model
from distsgd.parallel.numerics import num_cores
from distsgd.parallel.server.target import Target
from distsgd.statistics.intervals import Interval, geometric_interval, product_interval

TRAIN = "distsgd.experiments.peers.train:train"  # Loads what the peers need.
_HIDDEN = ("relu", "tanh", "sigmoid")
_RULES = {"sgd": False, "momentum": False, "nesterov": True}  # Is it Nesterov's?


def why_not(config: TrainConfig) -> str:
    """Why no peer can train as `config` says; "" where they can."""
    return next(_reasons(config), "")


def _reasons(config: TrainConfig) -> Iterator[str]:
    """What peers, or all of them, do otherwise."""
    if config.model.layers is None:
        yield f"peers train networks of layers, and the model is made by {config.model.factory}"
        return
    layers = [layer.model_dump() for layer in config.model.layers]
    hidden = {layer.get("activation") for layer in layers[:-1]}
    if any(layer["type"] != "dense" for layer in layers):
        yield "has layers that are not dense"
    elif not all(layer["bias"] for layer in layers):
        yield "has layers without a bias"
    elif layers[-1]["activation"]:
        yield f"the last layer has the activation {layers[-1]['activation']}"
    if len(hidden) > 1 or not hidden <= set(_HIDDEN):
        yield f"hidden layers are not all of one activation of {', '.join(_HIDDEN)}"
    if config.optimizer.type not in _RULES:
        yield f"the rule is {config.optimizer.type}, not one of {', '.join(_RULES)}"
    for key, (has, must_be) in _same(config).items():
        if has != must_be:
            yield f"{key} is {has}, not {must_be}"


def _same(config: TrainConfig) -> dict[str, tuple[Any, Any]]:
    """Settings that peers know one value of: what each is, and that value."""
    model, optimizer, train = config.model, config.optimizer.model_dump(), config.train
    return {
        "model.loss": (model.loss, "softmax_cross_entropy"),
        "model.loss_options": (model.loss_options or "none", "none"),
        "model.init": (model.init, "glorot"),
        "model.initial_weights": (model.initial_weights or "none", "none"),
        "schedule.type": (config.schedule.type, "constant"),
        "optimizer.clip_norm": (optimizer["clip_norm"] or "none", "none"),
        "optimizer.frozen": (", ".join(optimizer["frozen"]) or "none", "none"),
        "optimizer.weight_decay": (optimizer.get("weight_decay") or 0, 0),
        "optimizer.decoupled_weight_decay": (optimizer.get("decoupled_weight_decay") or 0, 0),
        "batch.sampler": (config.batch.sampler, "permutation"),
        "train.dtype": (train.dtype, "float32"),
        "train.stop_gradient_norm": (train.stop_gradient_norm or "none", "none"),
        "train.on_divergence": (train.on_divergence, "stop"),
    }


class PeerKey(NamedTuple):
    """One training of a peer: its name, rows of a batch, the learning rate, the seed."""

    peer: str
    batch: int
    rate: float
    seed: int

    @property
    def name(self) -> str:
        """Of its file, below the experiment's directory, without the ending."""
        return f"peers/{self.peer}/{LearningKey(self.batch, self.rate, self.seed).path}"


@dataclass(frozen=True, slots=True)
class PeerRun:
    """What one came to; None where it met no target; `reason` says why."""

    key: PeerKey
    version: str
    step_s: float | None
    steps: int | None
    curve: tuple[tuple[int, float], ...]
    reason: str


@dataclass(frozen=True, slots=True)
class PeerRuns:
    """Makes and reads the peers' runs of an experiment, one at a time: each has all cores."""

    grid: Grid
    directory: Path

    def keys(self, chosen: Sequence[Chosen]) -> Iterator[PeerKey]:
        """As many seeds of each as the runs of this project have, at the rate chosen for those."""
        for name in self.grid.plan.peers:
            for choice in chosen:
                for seed in self.grid.seeds:
                    yield PeerKey(name, choice.batch, choice.rate, seed)

    def is_made(self, chosen: Sequence[Chosen]) -> bool:
        """Is none missing, of those that can be made?"""
        cannot = why_not(self.grid.plan.config)
        return bool(cannot) or all(self._file(key).is_file() for key in self.keys(chosen))

    def make(
        self,
        data: Path,
        model: Model,
        chosen: Sequence[Chosen],
        *,
        is_over: Callable[[], bool],
        note: Callable[[Piece], None],
    ) -> dict[str, str]:
        """Train what is missing; what failed, by name. Blocks."""
        if why_not(self.grid.plan.config):
            return {}
        works = [
            Work(Piece("peers", key.batch, key.name), TRAIN, self._task(key, data, model))
            for key in self.keys(chosen)
            if not self._file(key).is_file()
        ]
        failed = {}
        for done in run_all(works, is_over=is_over, most=1):
            note(done.piece)
            if done.failure:
                failed[done.piece.name] = done.failure
        return failed

    def runs(self, chosen: Sequence[Chosen], failed: dict[str, str]) -> tuple[PeerRun, ...]:
        """Each of them; what is missing with its reason."""
        return tuple(self._run(key, failed) for key in self.keys(chosen))

    def read(self, chosen: Sequence[Chosen], failed: dict[str, str]) -> tuple[PeerCell, ...]:
        """What they took, the seeds of a batch size together."""
        runs = self.runs(chosen, failed)
        count = len(self.grid.seeds)
        return tuple(
            self._cell(runs[first : first + count]) for first in range(0, len(runs), count)
        )

    def _run(self, key: PeerKey, failed: dict[str, str]) -> PeerRun:
        file = self._file(key)
        found: dict[str, Any] = read_json(file) if file.is_file() else {}
        reason = why_not(self.grid.plan.config) or found.get("reason", "")
        if not found and not reason:
            reason = failed.get(key.name, "out of budget")
        if not reason and found["steps"] is None:
            reason = "diverged" if found["is_diverged"] else "target not reached"
        return PeerRun(
            key=key,
            version=found.get("version", ""),
            step_s=found.get("step_s"),
            steps=found.get("steps"),
            curve=tuple((samples, value) for samples, value in found.get("curve", ())),
            reason=reason,
        )

    def _cell(self, runs: Sequence[PeerRun]) -> PeerCell:
        """Medians over the seeds; steps and time where all of them met the target."""
        key = runs[0].key
        reached = [run.steps for run in runs if run.steps is not None]
        timed = [run.step_s for run in runs if run.step_s is not None]
        steps = self._steps(runs) if len(reached) == len(runs) else None
        step_s = _seeds_interval(timed, timed) if timed else None
        time_s = product_interval(steps, step_s) if steps and step_s else None
        return PeerCell(
            peer=key.peer,
            version=next((run.version for run in runs if run.version), ""),
            batch=key.batch,
            rate=key.rate,
            step_s=step_s.mid if step_s else None,
            steps=None if steps is None else round(steps.mid),
            time_s=time_s.mid if time_s else None,
            reason="; ".join(sorted({run.reason for run in runs} - {""})),
            num_seeds=len(runs),
            num_reached=len(reached),
            steps_range=(min(reached), max(reached)) if reached else None,
            steps_interval=steps,
            step_s_interval=step_s,
            time_s_interval=time_s,
        )

    def _steps(self, runs: Sequence[PeerRun]) -> Interval:
        """To target, with the width of the evaluation grid in its ends."""
        batch = runs[0].key.batch
        missed = [run.curve[-2][0] if len(run.curve) > 1 else 0 for run in runs]
        earliest = [self.grid.step_at(samples, batch) + 1 for samples in missed]
        return _seeds_interval(earliest, [run.steps or 0 for run in runs])

    def _file(self, key: PeerKey) -> Path:
        return self.directory / f"{key.name}.json"

    def _task(self, key: PeerKey, data: Path, model: Model) -> dict[str, Any]:
        config, target = self.grid.plan.config, Target.parse(self.grid.plan.target)
        layers = [layer.model_dump() for layer in config.model.layers or ()]
        units = [layer["units"] for layer in layers]
        task = PeerTask(
            sizes=(*model.input_shape, *units),
            activation=layers[0].get("activation") or "relu",
            momentum=config.optimizer.model_dump().get("momentum") or 0.0,
            nesterov=_RULES[config.optimizer.type],
            batch=key.batch,
            rate=key.rate,
            seed=key.seed,
            data=data,
            metric=target.metric,
            at_least=target.at_least,
            target=target.value,
            grid_samples=self.grid.grid_samples,
            most_samples=self.grid.most_samples,
            threads=num_cores(),
        )
        return asdict(task) | {"data": str(data), "peer": key.peer, "out": str(self._file(key))}


def _seeds_interval(lowest: Sequence[float], highest: Sequence[float]) -> Interval:
    """The median of the highest over the seeds; 95 % for what lies between lowest and highest."""
    mid = float(median(highest))
    if len(highest) < 2:
        return Interval(min(lowest), mid, max(highest))
    low, high = (geometric_interval(np.array(ends, np.float64)) for ends in (lowest, highest))
    return Interval(min(low.low, mid), mid, max(high.high, mid))
