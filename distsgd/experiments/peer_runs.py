"""The peers of an experiment: which can train its network, and what they took."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from distsgd.base.files import read_json
from distsgd.config import TrainConfig
from distsgd.experiments.children import Work, run_all
from distsgd.experiments.findings import PeerCell
from distsgd.experiments.learning import Chosen
from distsgd.experiments.peers.training import PeerTask
from distsgd.experiments.plan import Grid, Piece
from distsgd.nn.model import Model
from distsgd.parallel.numerics import num_cores
from distsgd.parallel.server.target import Target

TRAIN = "distsgd.experiments.peers.train:train"  # Loads what the peers need.
_HIDDEN = ("relu", "tanh", "sigmoid")
_RULES = {"sgd": False, "momentum": False, "nesterov": True}  # Is it Nesterov's?


def why_not(config: TrainConfig) -> str:
    """Why no peer can train the network of `config`; "" where they can."""
    layers = [layer.model_dump() for layer in config.model.layers]
    if any(layer["type"] != "dense" for layer in layers):
        return "has layers that are not dense"
    if len({layer.get("activation") for layer in layers[:-1]} | {None}) > 2 or any(
        layer.get("activation") not in _HIDDEN for layer in layers[:-1]
    ):
        return f"hidden layers are not all of one activation of {', '.join(_HIDDEN)}"
    if config.model.loss != "softmax_cross_entropy":
        return f"the loss is {config.model.loss}, not softmax_cross_entropy"
    if config.optimizer.type not in _RULES:
        return f"the rule is {config.optimizer.type}, not one of {', '.join(_RULES)}"
    if config.schedule.type != "constant":
        return f"the schedule is {config.schedule.type}, not constant"
    return ""


@dataclass(frozen=True, slots=True)
class PeerRuns:
    """Makes and reads the peers' runs of an experiment, one at a time: each has all cores."""

    grid: Grid
    directory: Path

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
            Work(
                Piece("peers", choice.batch, f"peers/{name}-batch-{choice.batch}"),
                TRAIN,
                self._task(name, choice, data, model),
            )
            for name in self.grid.plan.peers
            for choice in chosen
            if not self._file(name, choice.batch).is_file()
        ]
        failed = {}
        for done in run_all(works, is_over=is_over, most=1):
            note(done.piece)
            if done.failure:
                failed[done.piece.name] = done.failure
        return failed

    def read(self, chosen: Sequence[Chosen], failed: dict[str, str]) -> tuple[PeerCell, ...]:
        """What they took; what is missing with its reason."""
        return tuple(
            self._cell(name, choice, failed) for name in self.grid.plan.peers for choice in chosen
        )

    def _cell(self, name: str, choice: Chosen, failed: dict[str, str]) -> PeerCell:
        file = self._file(name, choice.batch)
        found: dict[str, Any] = read_json(file) if file.is_file() else {}
        reason = found.get("reason") or why_not(self.grid.plan.config)
        if not found and not reason:
            reason = failed.get(f"peers/{name}-batch-{choice.batch}", "out of budget")
        if found and not reason and found["steps"] is None:
            reason = "target not reached"
        return PeerCell(
            peer=name,
            version=found.get("version", ""),
            batch=choice.batch,
            rate=choice.rate,
            step_s=found.get("step_s"),
            steps=found.get("steps"),
            time_s=found.get("time_s"),
            reason=reason,
        )

    def _file(self, name: str, batch: int) -> Path:
        return self.directory / "peers" / f"{name}-batch-{batch}.json"

    def _task(self, name: str, choice: Chosen, data: Path, model: Model) -> dict[str, Any]:
        config, target = self.grid.plan.config, Target.parse(self.grid.plan.target)
        units = [layer.model_dump()["units"] for layer in config.model.layers]
        task = PeerTask(
            sizes=(*model.input_shape, *units),
            activation=config.model.layers[0].model_dump().get("activation") or "relu",
            momentum=config.optimizer.model_dump().get("momentum") or 0.0,
            nesterov=_RULES[config.optimizer.type],
            batch=choice.batch,
            rate=choice.rate,
            seed=self.grid.seeds[0],
            data=data,
            metric=target.metric,
            at_least=target.at_least,
            target=target.value,
            grid_samples=self.grid.grid_samples,
            most_samples=self.grid.most_samples,
            threads=num_cores(),
        )
        out = self._file(name, choice.batch)
        return asdict(task) | {"data": str(data), "peer": name, "out": str(out)}
