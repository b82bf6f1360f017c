"""A worker of one's own: the text that stands in `BlockWorker` is what is run here."""

from __future__ import annotations

import inspect
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from distsgd.base.random_keys import Purpose, uniform
from distsgd.config import TrainConfig
from distsgd.errors import ConfigError, ModelError, RunError
from distsgd.parallel.launch.launch import launch
from distsgd.parallel.launch.nodes.placement import Placement
from distsgd.parallel.worker import Batch, BlockResult, BlockWorker, WorkerSpec
from distsgd.run.run import Run
from distsgd.run.trainer import Trainer
from distsgd.store.logs import read_history
from tests.integration.pools import server_spec, train_with_threads

NAME = "own_worker:MedianWorker"
NUM_ROWS = 200


def text() -> str:
    """The example in the docstring: all that is indented."""
    lines = (inspect.getdoc(BlockWorker) or "").splitlines()
    code = [line for line in lines if line.startswith("    ") or not line]
    return textwrap.dedent("\n".join(code)).strip() + "\n"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "own_worker.py").write_text(text())
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    sys.modules.pop("own_worker", None)


def rows() -> tuple[Any, Any]:
    """Numbers on a line, a tenth of them far off it: the median is not drawn to those."""
    x_NI = uniform(0, Purpose.PROBE, count=2 * NUM_ROWS).reshape(NUM_ROWS, 2)
    y_N = x_NI @ np.array([2.0, -1.0]) + 0.5
    y_N[::10] += 100.0
    return x_NI, y_N


def config(**sections: dict[str, Any]) -> TrainConfig:
    values: dict[str, dict[str, Any]] = {
        "data": {"path": "arrays", "label": "y", "standardise": "none"},
        "model": {"layers": [{"type": "dense", "units": 1}], "loss": "quadratic"},
        "batch": {"size": 40},
        "optimizer": {"learning_rate": 1.0},
        "schedule": {"type": "cosine"},
        "train": {"epochs": 60},
        "parallel": {"workers": 0, "lane_rows": 5, "block_rows": 7, "worker": NAME},
    }
    for name, section in sections.items():
        values[name] = values.get(name, {}) | section
    return TrainConfig.from_dict(values)


def test_example_has_at_most_twenty_lines_of_code() -> None:
    assert 10 < sum(bool(line.strip()) for line in text().splitlines()) <= 20


def test_own_worker_trains_in_this_process_and_can_be_verified(place: Path) -> None:
    result = Trainer(config(), data=rows(), run_dir=place / "run").fit()
    weight_IO, bias_O = (result.weights[f"layers.0.{name}"] for name in ("weight", "bias"))
    # A least-squares fit would be ten off: the mean of what the rows off the line are off it.
    np.testing.assert_allclose(weight_IO[:, 0], [2.0, -1.0], atol=0.1)
    np.testing.assert_allclose(bias_O, [0.5], atol=0.1)
    history = read_history(place / "run" / "history").to_pydict()
    assert history["train_loss"][-1] < history["train_loss"][0]
    assert Run.open(place / "run").verify().steps == result.metrics["steps"]


@pytest.mark.parametrize("transport", ["shared_memory", "zmq"])
def test_own_worker_gives_the_same_bits_for_any_number_of_workers(
    place: Path, transport: str
) -> None:
    x_NI, y_N = rows()
    table = pa.table({"a": x_NI[:, 0], "b": x_NI[:, 1], "y": y_N})
    pq.write_table(table, place / "rows.parquet")
    digests = set()
    for workers in (0, 2, 3):
        changed = config(
            data={"path": str(place / "rows.parquet"), "test_fraction": 0.2},
            train={"epochs": 3},
            parallel={"workers": workers, "assignment": "all", "transport": transport},
        )
        if workers:
            spec = server_spec(changed, place / f"run{workers}", cache_dir=place / "cache")
            outcome = train_with_threads(spec, worker=NAME)
            digests.add(outcome.weights_digest)
        else:
            run = Trainer(changed, run_dir=place / "run0", cache_dir=place / "cache")
            digests.add(run.fit().metrics["weights_digest"])
    assert len(digests) == 1


def test_run_is_not_resumed_with_another_worker(place: Path) -> None:
    Trainer(config(), data=rows(), run_dir=place / "run").fit()
    other = config(parallel={"worker": "distsgd_workers.gradient_worker:GradientWorker"})
    with pytest.raises(RunError, match=r"parallel\.worker"):
        Trainer(other, data=rows(), run_dir=place / "run").fit(resume="auto")


def trains_with(worker: Any, place: Path, **sections: dict[str, Any]) -> None:
    x_NI, y_N = rows()
    data = (x_NI, (y_N > 0).astype(np.int64)) if "model" in sections else (x_NI, y_N)
    name = f"{__name__}:{worker.__name__}"
    Trainer(config(parallel={"worker": name}, **sections), data=data, run_dir=place / "run").fit()


class Careless(BlockWorker):
    """Gives losses, and nothing else."""

    def compute_block(self, batch: Batch, weights_P: Any, gradient_P: Any) -> BlockResult:
        if gradient_P is not None:
            gradient_P[:] = weights_P
        return BlockResult(np.ones(batch.num_rows, np.float32))


class Means(Careless):
    """Gives a mean where each sample's loss is wanted."""

    def compute_block(self, batch: Batch, weights_P: Any, gradient_P: Any) -> BlockResult:
        losses_N = super().compute_block(batch, weights_P, gradient_P).losses_N
        return BlockResult(losses_N.mean(keepdims=True))


class OneNorm(Careless):
    """Gives one squared norm for all."""

    def compute_block(self, batch: Batch, weights_P: Any, gradient_P: Any) -> BlockResult:
        result = super().compute_block(batch, weights_P, gradient_P)
        return result._replace(squared_norms_N=np.ones(1, np.float32))


class Pair(Careless):
    """Gives something else."""

    def compute_block(self, batch: Batch, weights_P: Any, gradient_P: Any) -> Any:
        return (super().compute_block(batch, weights_P, gradient_P).losses_N, None)


class NoWorker:
    """Has none of the calls."""

    def __init__(self, spec: WorkerSpec) -> None:
        """Nothing of `spec` is looked at."""


CLASSES: dict[str, dict[str, Any]] = {
    "model": {"layers": [{"type": "dense", "units": 2}], "loss": "softmax_cross_entropy"},
    "data": {"test_fraction": 0.2},
    "statistics": {"per_sample": False},
}


def test_what_a_worker_does_not_give_is_refused_where_the_run_measures_it(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"Careless.compute_block gives no squared_norms_N"):
        trains_with(Careless, tmp_path)
    with pytest.raises(ModelError, match=r"gives losses_N of shape \(1,\) for 5 rows"):
        trains_with(Means, tmp_path)
    with pytest.raises(ModelError, match=r"gives squared_norms_N of shape \(1,\) for 5 rows"):
        trains_with(OneNorm, tmp_path)
    with pytest.raises(ModelError, match=r"gives a tuple; must be a BlockResult"):
        trains_with(Pair, tmp_path)
    with pytest.raises(ModelError, match="gives no outputs_NO of held-out rows"):
        trains_with(Careless, tmp_path, **CLASSES)
    with pytest.raises(ConfigError, match="a class without read, compute, prefetch; must be"):
        trains_with(NoWorker, tmp_path)


def test_worker_that_gives_losses_only_trains_without_statistics(tmp_path: Path) -> None:
    trains_with(Careless, tmp_path, statistics={"per_sample": False}, train={"epochs": 1})


def test_name_of_a_worker_has_a_module_and_a_class() -> None:
    with pytest.raises(ConfigError, match=r'parallel.worker is "median"; must be module:class'):
        config(parallel={"worker": "median"})


def test_class_that_no_other_process_can_import_trains_in_this_one_only(tmp_path: Path) -> None:
    class Local(Careless):
        """Has no name outside this function."""

    x_NI, y_N = rows()
    pq.write_table(pa.table({"a": x_NI[:, 0], "y": y_N}), tmp_path / "rows.parquet")
    for workers in (0, 2):
        changed = config(
            data={"path": str(tmp_path / "rows.parquet")},
            train={"epochs": 1},
            statistics={"per_sample": False},
            parallel={"workers": workers},
        )
        spec = server_spec(changed, tmp_path / f"run{workers}", cache_dir=tmp_path / "cache")
        if not workers:
            assert (
                launch(spec, Local, lambda _: False, placement=Placement("local")).status == "done"
            )
            continue
        with pytest.raises(ConfigError, match="other processes cannot import the worker"):
            launch(spec, Local, lambda _: False, placement=Placement("local"))
