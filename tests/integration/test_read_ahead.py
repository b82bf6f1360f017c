"""How often rows are read where a step asks for more than one loss."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from distsgd.config import TrainConfig
from distsgd.parallel.worker import BlockRows
from distsgd_workers.gradient_worker import GradientWorker
from tests.integration.pools import server_spec, train_with_threads

STEPS, LOSSES = 6, 3  # A step of `Spsa` measures two after the first.
OVERRIDES = [
    *(f"train.steps={STEPS}", "parallel.workers=1", "parallel.assignment=all", "batch.size=90"),
    *("parallel.lanes=8", "parallel.lane_rows=4", "parallel.block_rows=7"),
    "optimizer.type=tests.own_parts:Spsa",
]


def test_search_rule_has_the_next_step_read_ahead_once(
    digits: TrainConfig, tmp_path: Path, cache_dir: Path
) -> None:
    steps_read: list[int] = []

    class Counting(GradientWorker):
        def read(self, rows: BlockRows, buffer: int) -> Any:
            if not rows.is_test:
                steps_read.append(rows.step)
            return super().read(rows, buffer)

    spec = server_spec(digits.with_overrides(OVERRIDES), tmp_path / "run", cache_dir=cache_dir)
    train_with_threads(spec, worker=Counting)
    num_blocks = [len(spec.worker.sampler.partition(step).blocks) for step in range(STEPS)]
    # One block of the step after the last is read ahead in vain.
    assert len(steps_read) == LOSSES * sum(num_blocks) + 1
    assert steps_read.count(STEPS) == 1
