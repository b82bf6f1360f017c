"""Dropout: its masks are keyed by step and row, so that the bits stay the same for any number of
workers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from distsgd import TrainConfig, Trainer
from distsgd import autodiff as f
from distsgd.autodiff import GradientTape, Variable, assert_gradient
from distsgd.base.random_keys import Purpose, row_keys_inplace
from distsgd.errors import ModelError
from distsgd.nn import Dense, Dropout, Network
from distsgd.parallel.launch.launch import train_in_process
from distsgd.store.logs import read_history
from tests.integration.pools import server_spec, train_with_threads

Floats = NDArray[np.float64]
MODEL = Network(
    [Dense(6, "tanh"), Dropout(0.4), Dense(5, "sigmoid"), Dropout(0.2), Dense(3)],
    "quadratic",
    (4,),
)
CHANCE = np.random.default_rng(0)
X, TARGET = CHANCE.standard_normal((12, 4)), CHANCE.standard_normal((12, 3))
FLAT = CHANCE.uniform(-1, 1, MODEL.num_parameters)

FROZEN_KEYS = [
    9182567535642808091,
    10529476461108055045,
    10973950944059449116,
    13492281865745057586,
]
FROZEN_MASK = [False, True, True, True, False, False, False, False, True]


def keys(step: int, rows: NDArray[np.int64], seed: int = 0) -> NDArray[np.uint64]:
    found = np.empty(len(rows), np.uint64)
    row_keys_inplace(seed, Purpose.DROPOUT, step, rows_N=rows, keys_N=found)
    return found


def masks(step: int, rate: float, *, rows: int = 50, units: int = 201, layer: int = 0) -> Floats:
    ones = np.ones((rows, units))
    return np.asarray(f.dropout(ones, keys(step, np.arange(rows)), rate, layer=layer).value)


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.8])
def test_mean_over_many_masks_is_what_went_in(rate: float) -> None:
    num_steps = 200
    found = np.stack([masks(step, rate) for step in range(num_steps)])
    kept = found > 0
    np.testing.assert_allclose(found[kept], 1 / (1 - rate), rtol=1e-8)
    # Standard deviations of a mean of so many numbers; 5 of them for one number, 6 for the largest
    # of ten thousand.
    one = np.sqrt(rate / (1 - rate))
    assert abs(found.mean() - 1) < 5 * one / np.sqrt(found.size)
    assert abs(found.mean(0) - 1).max() < 6 * one / np.sqrt(num_steps)
    assert abs(found.mean((0, 2)) - 1).max() < 5 * one / np.sqrt(found[:, 0].size)


def test_masks_of_rows_steps_layers_and_neighbours_are_unrelated() -> None:
    first = masks(0, 0.5) > 0
    others = {
        "step": masks(1, 0.5) > 0,
        "layer": masks(0, 0.5, layer=1) > 0,
        "row": np.roll(first, 1, axis=0),
        "unit": np.roll(first, 1, axis=1),
        "pair": np.roll(first, 2, axis=1),
    }
    for what, other in others.items():
        agreement = (first == other).mean()
        assert abs(agreement - 0.5) < 5 * 0.5 / np.sqrt(first.size), what


def test_mask_depends_on_seed_step_and_row_alone() -> None:
    rows = np.array([7, 3, 100_000, 12])
    whole = f.dropout(np.ones((4, 9)), keys(5, rows), 0.5).value
    for n in range(4):
        alone = f.dropout(np.ones((1, 9)), keys(5, rows[n : n + 1]), 0.5).value
        assert alone[0].tolist() == whole[n].tolist()
    assert keys(5, rows).tolist() != keys(6, rows).tolist()
    assert keys(5, rows).tolist() != keys(5, rows, seed=1).tolist()
    # Frozen: a saved run must be verified with the same masks for ever.
    assert keys(5, rows).tolist() == FROZEN_KEYS
    assert (whole[0] > 0).tolist() == FROZEN_MASK


def bound_arrays(flat: Floats, x: Floats, *, step: int | None) -> tuple[float, Floats, Floats]:
    gradients, by_input = np.empty_like(flat), np.empty_like(x)
    bound = MODEL.program(len(x), np.float64, per_sample=True).bind(
        x,
        TARGET[: len(x)],
        weights=flat,
        gradients=gradients,
        x_gradient=by_input,
        keys=None if step is None else keys(step, np.arange(len(x))),
    )
    bound.forward()
    bound.backward()
    return float(bound.losses_N.sum()), gradients, by_input


@pytest.mark.parametrize("step", [None, 0, 3])
def test_gradients_are_those_of_central_differences(step: int | None) -> None:
    assert_gradient(lambda flat: bound_arrays(flat, X, step=step)[:2], FLAT)
    assert_gradient(lambda x: bound_arrays(FLAT, x, step=step)[::2], X)


def test_per_sample_norms_are_those_of_a_loop_over_samples() -> None:
    row_keys, gradients = keys(2, np.arange(12)), np.empty_like(FLAT)
    program = MODEL.program(12, np.float64, per_sample=True)

    def run(rows: slice) -> tuple[Floats, Floats]:
        bound = program.bind(
            X[rows], TARGET[rows], weights=FLAT, gradients=gradients, keys=row_keys[rows]
        )
        bound.forward()
        bound.backward()
        assert bound.squared_norms_N is not None
        return bound.squared_norms_N.copy(), gradients.copy()

    own = [run(slice(n, n + 1))[1] for n in range(12)]
    norms, summed = run(slice(None))
    np.testing.assert_allclose(norms, [g @ g for g in own], rtol=1e-10)
    np.testing.assert_allclose(summed, sum(own), rtol=1e-9, atol=1e-13)


def test_evaluation_and_prediction_leave_nothing_out() -> None:
    plain = Network([Dense(6, "tanh"), Dense(5, "sigmoid"), Dense(3)], "quadratic", (4,))
    expected = plain.predict(FLAT, X)
    assert MODEL.predict(FLAT, X).tolist() == expected.tolist()
    program = MODEL.program(12, np.float64, per_sample=True)
    evaluation = program.bind(X, TARGET, weights=FLAT)
    training = program.bind(
        X, TARGET, weights=FLAT, gradients=np.empty_like(FLAT), keys=keys(0, np.arange(12))
    )
    training.forward()
    assert abs(training.outputs_NO - expected).max() > 0.01
    evaluation.forward()
    np.testing.assert_allclose(evaluation.outputs_NO, expected, rtol=1e-12)


def test_dropout_refuses_what_it_cannot_do() -> None:
    with pytest.raises(ModelError, match="a key for each sample"):
        f.dropout(np.ones((3, 2)), np.zeros(2, np.uint64), 0.5)
    plain = Network([Dense(3)], "quadratic", (4,))
    with pytest.raises(ModelError, match="no use for keys"):
        plain.program(12, np.float64, per_sample=False).bind(
            X, TARGET, weights=FLAT[:15], keys=keys(0, np.arange(12))
        )
    row_keys = Variable(keys(0, np.arange(2)), dtype=np.uint64)
    with GradientTape() as tape:
        y = f.dropout(Variable(np.ones((2, 2))), row_keys, 0.5)
    with pytest.raises(ModelError, match="dtype uint64 has no gradient"):
        tape.gradient(y, row_keys)


def config(path: Path, *overrides: str) -> TrainConfig:
    chance = np.random.default_rng(1)
    x = chance.standard_normal((500, 6))
    columns = {f"x{i}": x[:, i] for i in range(6)} | {"y": (x[:, 0] > 0).astype(np.int64)}
    pq.write_table(pa.table(columns), path)
    layers = [
        {"type": "dense", "units": 9, "activation": "relu"},
        {"type": "dropout", "rate": 0.3},
        {"type": "dense", "units": 2},
    ]
    described = {
        "data": {"path": str(path), "label": "y", "test_fraction": 0.2},
        "model": {"layers": layers, "loss": "softmax_cross_entropy"},
        "batch": {"size": 100},
        "train": {"epochs": 5},
        "parallel": {"lane_rows": 10, "block_rows": 8, "assignment": "all"},
    }
    return TrainConfig.from_dict(described).with_overrides(overrides)


def test_training_with_dropout_gives_the_same_bits_for_any_number_of_workers(
    tmp_path: Path,
) -> None:
    digests, losses = {}, {}
    for workers in (0, 1, 2, 3):
        run = tmp_path / f"run{workers}"
        changed = config(tmp_path / "rows.parquet", f"parallel.workers={workers}")
        task = server_spec(changed, run, cache_dir=tmp_path / "cache")
        if workers:
            outcome = train_with_threads(task)
        else:
            worker = "distsgd_workers.gradient_worker:GradientWorker"
            outcome = train_in_process(task, worker, lambda _: False)
        digests[workers] = outcome.weights_digest
        losses[workers] = read_history(run / "history")["train_loss"].to_pylist()
    assert set(digests.values()) == {digests[0]}
    assert all(losses[workers] == losses[0] for workers in losses)


def test_a_run_without_dropout_takes_another_way(tmp_path: Path) -> None:
    found = set()
    for rate in (0.0, 0.3):
        dropped = config(tmp_path / "rows.parquet", "parallel.workers=0").to_dict()
        dropped["model"]["layers"][1]["rate"] = rate
        run = tmp_path / f"run{rate}"
        cache = tmp_path / "cache"
        result = Trainer(TrainConfig.from_dict(dropped), run_dir=run, cache_dir=cache).fit()
        found.add(result.metrics["weights_digest"])
    assert len(found) == 2
