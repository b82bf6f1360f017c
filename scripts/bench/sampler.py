"""What mini-batches cost before a row is read: a step's rows, the next epoch, memory.

Each figure is a median or a ratio within one process. Run it by the environment's Python, with
nothing else running.
"""

from __future__ import annotations

import argparse
import time
import tracemalloc
from statistics import median

import numpy as np

from distsgd.data.sampler import BatchSampler, Blocking, Shuffle

CASES: tuple[tuple[int, int, Shuffle], ...] = (
    (1 << 12, 1, "rows"),
    (1 << 16, 1, "rows"),
    (1 << 16, 256, "rows"),
    (1 << 22, 256, "rows"),
    (1 << 22, 4096, "rows"),
    (1 << 22, 256, "windows"),
    (1 << 26, 4096, "windows"),
)
MOST_STEPS = 6000


def sampler_of(num_rows: int, batch: int, shuffle: Shuffle) -> BatchSampler:
    """With the defaults of a configuration, and rows of 784 numbers."""
    blocking = Blocking.of(batch, lanes=16, lane_rows=None, block_rows=256)
    return BatchSampler.of(num_rows, batch, blocking=blocking, shuffle=shuffle, row_bytes=784 * 4)


def step_times(sampler: BatchSampler) -> tuple[list[float], list[float]]:
    """Seconds for all rows of a step: within an epoch, and of the first step of one.

    Between two steps stands a product as long as that of a small network on 256 rows.
    """
    order, rows = sampler.row_order(), np.empty(sampler.batch_rows, np.int64)
    work, square = np.ones((256, 784), np.float32), np.ones((784, 128), np.float32)
    within, first = [], []
    per_epoch = sampler.steps_per_epoch
    steps = range(min(4 * per_epoch + 1, MOST_STEPS))
    if per_epoch > MOST_STEPS:  # The end of the first epoch alone, and what leads to it.
        steps = range(per_epoch - MOST_STEPS // 2, per_epoch + MOST_STEPS // 2)
    for step in steps:
        started = time.perf_counter()
        for block in sampler.partition(step).blocks:
            order.rows_inplace(step, block.first, block.last, rows[block.first : block.last])
        (within if step % per_epoch else first).append(time.perf_counter() - started)
        np.matmul(work, square)
    return within, first


def peak_bytes_per_row(sampler: BatchSampler) -> float:
    """Memory at the peak, from one epoch into the next, by what numpy allocates."""
    tracemalloc.start()
    order, rows = sampler.row_order(), np.empty(sampler.batch_rows, np.int64)
    for step in (0, 1, sampler.steps_per_epoch - 1, sampler.steps_per_epoch):
        order.rows_inplace(step, 0, sampler.num_samples(step), rows[: sampler.num_samples(step)])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / sampler.num_rows


def main() -> None:
    """Print a table."""
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    print("rows        batch  shuffle   rows of a step   first of an epoch   peak bytes a row")
    for num_rows, batch, shuffle in CASES:
        sampler = sampler_of(num_rows, batch, shuffle)
        within, first = step_times(sampler)
        later = first[1:] or first  # The very first order is built before training begins.
        print(
            f"{num_rows:<11,} {batch:<6} {shuffle:<9} {median(within) * 1e6:8.2f} us"
            f"      {median(later) * 1e6:12.2f} us   {peak_bytes_per_row(sampler):12.2f}"
        )


if __name__ == "__main__":
    main()
