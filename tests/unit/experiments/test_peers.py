"""What a user would take instead: which networks it can train, the shared loop, the peers here."""

from __future__ import annotations

import importlib
import json
import math
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from distsgd.base.files import write_json_atomic
from distsgd.data.dataset import DataSet
from distsgd.experiments.collect import Collected
from distsgd.experiments.findings import PeerCell
from distsgd.experiments.further_runs import further_runs
from distsgd.experiments.learning import Chosen
from distsgd.experiments.peer_runs import PeerKey, PeerRuns, why_not
from distsgd.experiments.peers.train import CLASSES
from distsgd.experiments.peers.training import PeerTask, tables, train_to_target
from distsgd.parallel.server.evaluation_grid import EvaluationGrid
from distsgd.run.model import build_model
from distsgd.run.source import manifest_of, prepared_data
from tests.unit.experiments.rows import NUM_ROWS, begun, config_of, write_rows


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> PeerTask:
    place = tmp_path_factory.mktemp("peers")
    config = config_of(write_rows(place))
    data = prepared_data(config, cache_dir=place / "cache", on_message=lambda _: None)
    assert isinstance(data, Path)
    return PeerTask(
        sizes=(2, 3),
        activation="relu",
        momentum=0.0,
        nesterov=False,
        batch=16,
        rate=0.3,
        seed=3,
        data=data,
        metric="test_accuracy",
        at_least=True,
        target=0.85,
        grid_samples=24,
        most_samples=20 * NUM_ROWS,
        threads=1,
    )


DENSE = '{type = "dense", units = 3}'
REFUSED = {
    f'model.layers=[{{type = "layer_norm"}}, {DENSE}]': "has layers that are not dense",
    f'model.layers=[{{type = "dense", units = 4, activation = "gelu"}}, {DENSE}]': (
        "hidden layers are not all of one activation of relu, tanh, sigmoid"
    ),
    f'model.layers=[{{type = "dense", units = 4}}, {DENSE}]': "hidden layers are not all of one",
    'model.layers=[{type = "dense", units = 3, bias = false}]': "has layers without a bias",
    'model.layers=[{type = "dense", units = 3, activation = "relu"}]': (
        "the last layer has the activation relu"
    ),
    "model.init=he": "model.init is he, not glorot",
    "model.initial_weights=/first.safetensors": "model.initial_weights is /first.safetensors",
    "optimizer.type=adamw": "the rule is adamw",
    "optimizer.clip_norm=0.1": "optimizer.clip_norm is 0.1, not none",
    "optimizer.weight_decay=0.01": "optimizer.weight_decay is 0.01, not 0",
    'optimizer.frozen=["layers.0.bias"]': "optimizer.frozen is layers.0.bias, not none",
    "schedule.type=cosine": "schedule.type is cosine, not constant",
    "batch.sampler=mine:sampler": "batch.sampler is mine:sampler, not permutation",
    "train.dtype=float64": "train.dtype is float64, not float32",
    "train.stop_gradient_norm=0.1": "train.stop_gradient_norm is 0.1, not none",
    "train.on_divergence=halve_lr": "train.on_divergence is halve_lr, not stop",
}


@pytest.mark.parametrize("override", REFUSED)
def test_a_peer_trains_nothing_that_it_would_train_otherwise(tmp_path: Path, override: str) -> None:
    config = config_of(write_rows(tmp_path))
    assert why_not(config) == ""
    assert why_not(config.with_overrides([override])).startswith(REFUSED[override])


class Counts:
    """A peer that only counts; the target is met by the evaluation `meets_at`."""

    version = "1"

    def __init__(self, meets_at: int = 0, diverges_at: int = 0) -> None:
        self.rows: list[NDArray[np.int64]] = []
        self._meets_at, self._diverges_at, self._evaluated = meets_at, diverges_at, 0

    def train(self, rows: NDArray[np.int64]) -> None:
        self.rows.append(rows)

    def evaluate(self) -> tuple[float, float]:
        self._evaluated += 1
        loss = math.inf if self._evaluated == self._diverges_at else 1.0
        return loss, 0.9 if self._evaluated == self._meets_at else 0.1


def test_steps_to_target_are_counted_in_batches_of_the_task(task: PeerTask) -> None:
    peer = Counts(meets_at=3)
    found = train_to_target(task, peer, NUM_ROWS)
    assert [len(rows) for rows in peer.rows[:3]] == [32, 16, 32]
    assert found["steps"] == 5
    assert [samples for samples, _ in found["curve"]] == [32, 48, 80]
    assert found["time_s"] == pytest.approx(5 * found["step_s"])


@pytest.mark.parametrize("batch", [1, 16, 100, 150, NUM_ROWS])
@pytest.mark.parametrize("grid_samples", [1, 24, 70, 500])
def test_a_peer_is_evaluated_after_the_steps_that_a_run_is(
    task: PeerTask, batch: int, grid_samples: int
) -> None:
    """The oracle walks the steps of a run, one by one."""
    grid, due, samples = EvaluationGrid(grid_samples, "samples"), [], 0
    ends = [*range(batch, NUM_ROWS, batch), NUM_ROWS]
    for step in range(3 * len(ends)):
        epoch, within = divmod(step, len(ends))
        before, samples = samples, epoch * NUM_ROWS + ends[within]
        if grid.is_due(step + 1, samples, of_step=samples - before) or samples == 3 * NUM_ROWS:
            due.append((step + 1, samples))
    asked = replace(task, batch=batch, grid_samples=grid_samples, most_samples=3 * NUM_ROWS)
    found = train_to_target(asked, Counts(meets_at=len(due)), NUM_ROWS)
    assert [at for at, _ in found["curve"]] == [at for _, at in due]
    assert found["steps"] == due[-1][0]


def test_each_row_is_used_once_an_epoch(task: PeerTask) -> None:
    peer = Counts()
    found = train_to_target(replace(task, target=2.0, most_samples=2 * NUM_ROWS), peer, NUM_ROWS)
    rows = np.concatenate(peer.rows)
    assert (found["steps"], found["time_s"]) == (None, None)
    assert sorted(rows[:NUM_ROWS]) == sorted(rows[NUM_ROWS:]) == list(range(NUM_ROWS))


def test_a_peer_sees_the_prepared_rows(task: PeerTask) -> None:
    train, test = tables(task)
    data = DataSet.open(task.data)
    assert (len(train.x), len(test.x)) == (data.train.num_rows, data.test.num_rows)
    assert abs(float(train.x.mean())) < 1e-5  # Standardised.
    assert set(train.y.tolist()) == {0, 1, 2}


def peer_class(name: str) -> Any:
    module = importlib.import_module(f"distsgd.experiments.peers.{name}_peer")
    return getattr(module, CLASSES[name])


@pytest.mark.parametrize("name", list(CLASSES))
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_peers_that_are_installed_learn(task: PeerTask, name: str, momentum: float) -> None:
    pytest.importorskip(name, reason=f"{name} is not installed")
    rate = task.rate / (10 if momentum else 1)
    asked = replace(task, rate=rate, momentum=momentum, nesterov=momentum > 0)
    train, test = tables(asked)
    peer = peer_class(name)(asked, train, test)
    found = train_to_target(asked, peer, len(train.x))
    assert found["steps"] is not None
    assert found["step_s"] > 0
    assert found["version"]
    json.dumps(found)


@pytest.mark.parametrize("name", list(CLASSES))
@pytest.mark.parametrize("batch", [100, 150, NUM_ROWS])
def test_a_peer_makes_the_steps_of_an_explicit_loop(task: PeerTask, name: str, batch: int) -> None:
    """Also in the epochs behind one that ended with a smaller batch."""
    pytest.importorskip(name, reason=f"{name} is not installed")
    asked = replace(task, batch=batch, target=2.0, most_samples=3 * NUM_ROWS)
    train, test = tables(asked)
    whole, in_steps = (peer_class(name)(asked, train, test) for _ in range(2))
    chance = np.random.default_rng(0)
    for _ in range(3):
        order = chance.permutation(NUM_ROWS)
        whole.train(order)
        for first in range(0, NUM_ROWS, batch):
            in_steps.train(order[first : first + batch])
    assert whole.evaluate() == in_steps.evaluate()


def test_a_target_that_is_met_early_leaves_steps_to_time(task: PeerTask) -> None:
    """The first steps, in which a library compiles, are not all there is."""
    peer = Counts(meets_at=1)
    found = train_to_target(task, peer, NUM_ROWS)
    assert (found["steps"], found["curve"]) == (2, [(32, 0.9)])
    assert len(peer.rows) > 1


def test_one_that_diverges_ends_and_says_so(task: PeerTask) -> None:
    found = train_to_target(task, Counts(diverges_at=2), NUM_ROWS)
    assert (found["is_diverged"], found["steps"], found["curve"]) == (True, None, [(32, 0.1)])


@pytest.mark.parametrize("name", list(CLASSES))
def test_a_rate_that_is_too_high_is_told_as_divergence(task: PeerTask, name: str) -> None:
    pytest.importorskip(name, reason=f"{name} is not installed")
    asked = replace(task, sizes=(2, 8, 3), rate=1e9, target=2.0)
    train, test = tables(asked)
    found = train_to_target(asked, peer_class(name)(asked, train, test), len(train.x))
    assert (found["is_diverged"], found["steps"]) == (True, None)
    json.dumps(found, allow_nan=False)


def never() -> bool:
    return False


@pytest.fixture
def chosen() -> tuple[Chosen, ...]:
    return (Chosen(16, 0.3, is_at_edge=False, tried=(0.3,)),)


def test_a_peer_that_is_not_there_is_said(
    tmp_path: Path, chosen: tuple[Chosen, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    hidden = tmp_path / "hidden" / "jax"
    hidden.mkdir(parents=True)
    text = "raise ModuleNotFoundError(\"No module named 'jax'\", name='jax')"
    (hidden / "__init__.py").write_text(text)
    directory, grid = begun(tmp_path, peers=("jax",))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(hidden.parent), *sys.path]))
    seen: list[Any] = []
    note: Callable[[Any], None] = seen.append
    config = grid.plan.config
    data = prepared_data(config, cache_dir=tmp_path / "cache", on_message=lambda _: None)
    assert isinstance(data, Path)
    runs = PeerRuns(grid, directory)
    failed = runs.make(
        data, build_model(config, manifest_of(data)), chosen, is_over=never, note=note
    )
    (cell,) = runs.read(chosen, failed)
    assert (cell.reason, cell.time_s) == ("jax is not installed", None)
    assert [piece.stage for piece in seen] == ["peers", "peers"]  # One a seed.


def write_found(directory: Path, key: PeerKey, found: dict[str, Any]) -> None:
    file = directory / f"{key.name}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    write_json_atomic(file, found)


def planted(place: Path, *found: dict[str, Any], seeds: int) -> PeerCell:
    """What is read of these findings of torch, one a seed."""
    directory, grid = begun(place, peers=("torch",), seeds=seeds)
    chosen = (Chosen(16, 0.3, is_at_edge=False, tried=(0.3,)),)
    runs = PeerRuns(grid, directory)
    for key, one in zip(runs.keys(chosen), found, strict=False):
        usual = {"version": "2", "step_s": 1e-3, "is_diverged": False, "curve": [[24, 0.1]]}
        write_found(directory, key, usual | one)
    (cell,) = runs.read(chosen, {})
    return cell


def test_a_peer_has_the_seeds_of_the_runs_and_the_median_of_them(tmp_path: Path) -> None:
    curve = [[32, 0.1], [48, 0.9]]
    steps = (3, 4, 8)
    found = ({"steps": count, "step_s": count * 1e-3, "curve": curve} for count in steps)
    cell = planted(tmp_path, *found, seeds=3)
    assert (cell.steps, cell.steps_range, cell.step_s) == (4, (3, 8), 4e-3)
    assert (cell.num_seeds, cell.num_reached, cell.reason) == (3, 3, "")
    assert cell.time_s == pytest.approx(16e-3)
    for interval, value in (
        (cell.steps_interval, 4),
        (cell.step_s_interval, 4e-3),
        (cell.time_s_interval, 16e-3),
    ):
        assert interval is not None
        assert interval.low < value < interval.high


def test_a_peer_whose_seeds_do_not_all_meet_the_target_has_no_time_to_it(tmp_path: Path) -> None:
    met, missed, diverged = {"steps": 4}, {"steps": None}, {"steps": None, "is_diverged": True}
    cell = planted(tmp_path, met, missed, diverged, seeds=4)
    assert (cell.steps, cell.time_s, cell.steps_range) == (None, None, (4, 4))
    assert (cell.num_seeds, cell.num_reached) == (4, 1)
    assert cell.reason == "diverged; out of budget; target not reached"


def test_each_seed_of_a_peer_is_a_run_of_its_own(tmp_path: Path) -> None:
    directory, grid = begun(tmp_path, peers=("torch",), seeds=2, rates=None)
    first = next(iter(PeerRuns(grid, directory).keys(Collected(grid, directory, {}).chosen())))
    found = {"version": "2", "step_s": 1e-3, "steps": 7, "is_diverged": False, "curve": []}
    write_found(directory, first, found)
    runs = further_runs(Collected(grid, directory, {}))
    made, *missing = (run for run in runs if run.kind == "peer")
    assert (made.name, made.peer, made.verdict, made.reason) == (
        first.name,
        "torch 2",
        "reached",
        "",
    )
    assert (made.steps, made.seed) == (7, grid.seeds[0])
    assert made.seconds == pytest.approx(7e-3)
    assert [(run.batch, run.seed, run.reason) for run in missing] == [
        (batch, seed, "out of budget") for batch, seed in ((4, 2), (NUM_ROWS, 1), (NUM_ROWS, 2))
    ]
