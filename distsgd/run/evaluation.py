"""Loss and accuracy of a run on its held-out rows, or on new ones. In this process, without Ray.

Legend: N rows, O outputs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from distsgd.base.arrays import Array
from distsgd.parallel.messages import RequestKind
from distsgd.parallel.numerics import one_blas_thread
from distsgd.parallel.pool.pool import PoolSettings, Work, WorkerPool
from distsgd.parallel.runner import make_runner
from distsgd.parallel.transport.buffers import BufferLayout
from distsgd.run.label_check import label_problem
from distsgd.run.new_rows import NewRows
from distsgd.run.own_code import check_found_again
from distsgd.run.saved import SavedRun
from distsgd.run.spec import make_run_spec


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Mean loss over `rows` rows; `test_accuracy` is None where the labels are no classes."""

    test_loss: float
    test_accuracy: float | None
    rows: int


def evaluate_held_out(saved: SavedRun, data: Path) -> Evaluation:
    """On the rows that training held out, in the same blocks and the same tree. Blocks.

    The same bits as during training.

    Args:
        saved: A run that held some out.
        data: Its prepared rows.
    """
    with one_blas_thread():
        if saved.own.worker is None:
            check_found_again(saved.directory, "worker")
        run_spec = make_run_spec(saved.config, data, saved.manifest, saved.own)
        layout = BufferLayout(saved.model.num_parameters, 1, saved.config.train.dtype)
        pool = WorkerPool(
            layout,
            make_runner(run_spec.worker, run_spec.worker_spec()),
            transport=None,
            settings=PoolSettings("all", step_timeout_s=math.inf),
        )
        np.copyto(pool.weights, saved.weights_P)
        partition = run_spec.sampler.blocking.evaluation(saved.manifest.test_rows)
        sums = pool.gather(Work(RequestKind.EVALUATE, 0, partition)).sums
    accuracy = sums.correct / sums.num_samples if saved.manifest.label_kind == "class" else None
    return Evaluation(sums.loss_sum / sums.num_samples, accuracy, sums.num_samples)


def evaluate_rows(saved: SavedRun, rows: NewRows) -> Evaluation:
    """On rows with labels, in blocks of `block_rows`. Blocks.

    Raises:
        DataError: A row or a label cannot be used.
    """
    losses, correct, num_rows = [], 0, 0
    is_class = saved.manifest.label_kind == "class"
    weights_P, block_rows = saved.weights_P, saved.config.parallel.block_rows
    program = saved.model.program(block_rows, weights_P.dtype, per_sample=False)
    usable = label_problem(saved.model.loss)
    with one_blas_thread():
        for x_NI, target in rows.pieces(labels="required", label_problem=usable):
            assert target is not None
            for x, labels in _blocks(saved, x_NI, target):
                bound = program.bind(x, labels, weights=weights_P)
                bound.forward()
                losses.append(float(bound.losses_N.sum(dtype=np.float64)))
                if is_class:
                    correct += num_correct(bound.outputs_NO, labels)
            num_rows += len(x_NI)
    accuracy = correct / num_rows if is_class else None
    return Evaluation(math.fsum(losses) / num_rows, accuracy, num_rows)


def num_correct(outputs_NO: Array, target: Array) -> int:
    """Rows whose largest output is their class; `target` has numbers ``[N]``, or ones in zeros."""
    classes_N = target if target.ndim == 1 else target.argmax(axis=1)
    return int(np.count_nonzero(outputs_NO.argmax(axis=1) == classes_N))


def as_target(saved: SavedRun, target: Array) -> Array:
    """Targets as the loss takes them: classes as ones among zeros where it wants numbers."""
    if saved.model.target_kind == "number" and saved.manifest.label_kind == "class":
        ones: Array = np.eye(saved.manifest.num_targets, dtype=saved.config.train.dtype)[target]
        return ones
    return target


def _blocks(saved: SavedRun, x_NI: Array, target: Array) -> Iterator[tuple[Array, Array]]:
    """Blocks of rows in the shapes that the network takes."""
    target = as_target(saved, target)
    size = saved.config.parallel.block_rows
    for first in range(0, len(x_NI), size):
        rows = slice(first, first + size)
        yield x_NI[rows].reshape(-1, *saved.model.input_shape), target[rows]
