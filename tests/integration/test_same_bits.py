"""The first promise.

The number of workers, their plan and interruptions are no input to the bits.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from distsgd.config import TrainConfig
from distsgd.store.logs import read_history
from tests.integration.pools import server_spec, train_with_threads

TWO_STAGE = "distsgd.lessons.two_stage:TwoStageSampler.of"
BATCHES = {"1": 150, "10": 100, "64": 60, "1000": 20, "full": 4}  # Size to steps.


def run_of(
    config: TrainConfig, run: Path, cache_dir: Path, *overrides: str, stop_after: int | None = None
) -> tuple[str, list[float]]:
    """The digest of the weights and the losses of all steps."""
    spec = server_spec(config.with_overrides(overrides), run, cache_dir=cache_dir)
    if not spec.pool.num_workers:
        from distsgd.parallel.launch.launch import train_in_process

        outcome = train_in_process(
            spec, "distsgd_workers.gradient_worker:GradientWorker", lambda _: False
        )
    else:
        outcome = train_with_threads(spec, stop_after=stop_after)
    return outcome.weights_digest, read_history(run / "history")["train_loss"].to_pylist()


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("data", ["digits", "synthetic"])
def test_any_number_of_workers_gives_the_same_bits(
    data: str, batch: str, request: pytest.FixtureRequest, tmp_path: Path, cache_dir: Path
) -> None:
    config: TrainConfig = request.getfixturevalue(data)
    common = [f"batch.size={batch}", f"train.steps={BATCHES[batch]}", "train.epochs=1000"]
    alone = run_of(config, tmp_path / "alone", cache_dir, *common, "parallel.workers=0")
    for workers in (1, 2, 3, 5, 7):
        for plan in ("all", "autotune"):
            found = run_of(
                config,
                tmp_path / f"{workers}-{plan}",
                cache_dir,
                *common,
                f"parallel.workers={workers}",
                f"parallel.assignment={plan}",
            )
            assert found == alone, (workers, plan)


@pytest.mark.parametrize("shuffle", ["rows", "windows"])
@pytest.mark.parametrize(
    "sampler", [[], [f"batch.sampler={TWO_STAGE}", "batch.sampler_options.pool=400"]]
)
def test_any_sampler_gives_the_same_bits(
    sampler: list[str], shuffle: str, digits: TrainConfig, tmp_path: Path, cache_dir: Path
) -> None:
    common = [
        *("train.steps=60", "train.epochs=1000", "parallel.assignment=all", "batch.size=90"),
        *(f"data.shuffle={shuffle}", *sampler),
        *("parallel.lanes=8", "parallel.lane_rows=4", "parallel.block_rows=7"),
    ]
    alone = run_of(digits, tmp_path / "alone", cache_dir, *common, "parallel.workers=0")
    for workers in (1, 2, 3, 5, 7):
        several = f"parallel.workers={workers}"
        assert run_of(digits, tmp_path / several, cache_dir, *common, several) == alone, workers


@pytest.mark.parametrize("transport", ["shared_memory", "zmq"])
def test_any_transport_gives_the_same_bits(
    transport: str, digits: TrainConfig, tmp_path: Path, cache_dir: Path
) -> None:
    common = ["train.steps=60", "parallel.assignment=all"]
    alone = run_of(digits, tmp_path / "alone", cache_dir, *common, "parallel.workers=0")
    several = ["parallel.workers=3", f"parallel.transport={transport}"]
    assert run_of(digits, tmp_path / "several", cache_dir, *common, *several) == alone


def test_a_resume_in_mid_epoch_with_other_workers_gives_the_same_bits(
    digits: TrainConfig, tmp_path: Path, cache_dir: Path
) -> None:
    common = [
        "train.steps=300",
        "train.epochs=1000",
        "parallel.assignment=all",
        "checkpoint.every_steps=70",
    ]
    alone = run_of(digits, tmp_path / "alone", cache_dir, *common, "parallel.workers=0")
    broken = tmp_path / "broken"
    for workers, stop_after in ((2, 40), (3, 90), (1, 150), (5, None)):
        found = run_of(
            digits, broken, cache_dir, *common, f"parallel.workers={workers}", stop_after=stop_after
        )
    assert found == alone
