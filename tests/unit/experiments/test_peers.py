"""What a user would take instead: which networks it can train, the shared loop, the peers here."""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from distsgd.config import TrainConfig
from distsgd.data.dataset import DataSet
from distsgd.experiments.learning import Chosen
from distsgd.experiments.peer_runs import PeerRuns, why_not
from distsgd.experiments.peers.train import CLASSES
from distsgd.experiments.peers.training import PeerTask, tables, train_to_target
from distsgd.run.source import prepared_data
from distsgd.run.spec import build_model
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


def changed(config: TrainConfig, *overrides: str) -> str:
    return why_not(config.with_overrides(list(overrides)))


def test_a_peer_trains_dense_networks_with_softmax_and_nothing_else(tmp_path: Path) -> None:
    config = config_of(write_rows(tmp_path))
    assert why_not(config) == ""
    dense = '{type = "dense", units = 3}'
    assert "are not dense" in changed(config, f'model.layers=[{{type = "layer_norm"}}, {dense}]')
    elu = f'model.layers=[{{type = "dense", units = 4, activation = "gelu"}}, {dense}]'
    assert "not all of one activation" in changed(config, elu)
    assert "rule is adamw" in changed(config, "optimizer.type=adamw")
    assert "schedule is cosine" in changed(config, "schedule.type=cosine")


class Counts:
    """A peer that only counts; the target is met after three chunks."""

    version = "1"

    def __init__(self) -> None:
        self.rows: list[NDArray[np.int64]] = []

    def train(self, rows: NDArray[np.int64]) -> None:
        self.rows.append(rows)

    def evaluate(self) -> tuple[float, float]:
        return 1.0, 0.9 if len(self.rows) == 3 else 0.1


def test_steps_to_target_are_counted_in_batches_of_the_task(task: PeerTask) -> None:
    peer = Counts()
    found = train_to_target(task, peer, NUM_ROWS)
    assert [len(rows) for rows in peer.rows] == [32, 32, 32]
    assert found["steps"] == 6
    assert [samples for samples, _ in found["curve"]] == [32, 64, 96]
    assert found["time_s"] == pytest.approx(6 * found["step_s"])


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
    failed = runs.make(data, build_model(config, 2), chosen, is_over=never, note=note)
    (cell,) = runs.read(chosen, failed)
    assert (cell.reason, cell.time_s) == ("jax is not installed", None)
    assert [piece.stage for piece in seen] == ["peers"]
