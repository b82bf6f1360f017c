"""A model of the time of a step over its rows and who computes them, and who beats a peer.

``t = fixed + row · b / p + worker · k``: the rows are shared by p processes, the k workers among
them cost an exchange each, and the update and all else that depends on neither are one constant,
since no choice of b, p and k tells them apart. The server may be one of the p; where it computes
alone, nothing is exchanged. No I/O here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from distsgd.errors import ConfigError

Float64 = NDArray[np.float64]
_NUM_CONSTANTS = 3


class Cell(NamedTuple):
    """A measured step time.

    Attributes:
        rows: Of a mini-batch, on average.
        processes: That computed them, 1 or more: the server, workers, or both.
        workers: How many of these were workers.
        seconds: Of a step.
    """

    rows: float
    processes: int
    workers: int
    seconds: float


@dataclass(frozen=True, slots=True)
class StepTimeFit:
    """The fitted model; its text gives the constants in microseconds.

    Attributes:
        fixed_s: Seconds a step for the update and all that neither rows nor workers change.
        row_s: Seconds to compute one row.
        worker_s: Seconds a step to exchange weights and gradients with one worker.
        cores: How many processes compute at once; more of them share these.

    Examples:
        >>> model = StepTimeFit(100e-6, 2e-6, 50e-6, cores=2)
        >>> print(model)
        fixed 100 µs + row 2 µs x rows / min(processes, 2) + worker 50 µs x workers
        >>> round(model.seconds(256, 2, 2) * 1e6), round(model.seconds(256, 1, 0) * 1e6)
        (456, 612)
    """

    fixed_s: float
    row_s: float
    worker_s: float
    cores: int

    def seconds(self, rows: float, processes: int, workers: int) -> float:
        """Predicted seconds of a step; the arguments are those of a `Cell`."""
        constants = (self.fixed_s, self.row_s, self.worker_s)
        return float(np.dot(_terms(rows, processes, workers, self.cores), constants))

    def __str__(self) -> str:
        fixed, row, worker = map(_microseconds, (self.fixed_s, self.row_s, self.worker_s))
        shared = f"rows / min(processes, {self.cores})"
        return f"fixed {fixed} + row {row} x {shared} + worker {worker} x workers"


def fit_step_time(cells: Sequence[Cell], *, cores: int) -> StepTimeFit:
    """Fit the constants, none negative, to the least sum of squared relative errors.

    Of every subset of the three terms the unconstrained best is found; the best of those without a
    negative constant is the constrained optimum (Lawson and Hanson, "Solving Least Squares
    Problems", 1974, chapter 23: it is the unconstrained one of its own positive terms).

    Args:
        cells: Measured step times, with several batch sizes and numbers of processes.
        cores: How many processes can compute at once.

    Raises:
        ConfigError: The cells do not tell the three constants apart.

    Examples:
        >>> true = StepTimeFit(100e-6, 2e-6, 50e-6, cores=2)
        >>> grid = [(64, 1, 0), (256, 1, 0), (256, 2, 1), (256, 2, 2), (1024, 2, 2)]
        >>> print(fit_step_time([Cell(*it, true.seconds(*it)) for it in grid], cores=2))
        fixed 100 µs + row 2 µs x rows / min(processes, 2) + worker 50 µs x workers
    """
    terms = [_terms(*cell[:3], cores) / cell.seconds for cell in cells]
    # Each term as a part of its largest: they differ by many orders of magnitude.
    sizes_3 = np.max(terms, axis=0, initial=1e-300)
    relative_C3 = np.reshape(terms, (-1, _NUM_CONSTANTS)) / sizes_3
    if np.linalg.matrix_rank(relative_C3) < _NUM_CONSTANTS:
        rule = (
            "they do not tell its three constants apart (vary batch sizes and workers, 0 included)"
        )
        raise ConfigError([f"{len(cells)} cells for the model of step times: {rule}"])
    best_3, least = np.zeros(_NUM_CONSTANTS), math.inf
    for subset in product((False, True), repeat=_NUM_CONSTANTS):
        constants_3, is_in = np.zeros(_NUM_CONSTANTS), list(subset)
        constants_3[is_in] = np.linalg.lstsq(relative_C3[:, is_in], np.ones(len(cells)))[0]
        error = float(np.sum((relative_C3 @ constants_3 - 1.0) ** 2))
        if constants_3.min() >= 0.0 and error < least:
            best_3, least = constants_3, error
    fixed_s, row_s, worker_s = (best_3 / sizes_3).tolist()
    return StepTimeFit(fixed_s, row_s, worker_s, cores=cores)


def left_out_errors(cells: Sequence[Cell], *, cores: int) -> tuple[float, float]:
    """How well the model predicts a cell that it was not fitted to, each cell in turn.

    Args:
        cells: Measured step times; four or more.
        cores: As for `fit_step_time`.

    Returns:
        Median and largest relative error, ``|predicted / measured - 1|``.

    Raises:
        ConfigError: Without one of them the cells do not tell the constants apart.

    Examples:
        >>> true = StepTimeFit(100e-6, 2e-6, 50e-6, cores=2)
        >>> grid = [(64, 1, 0), (256, 1, 0), (256, 2, 1), (256, 2, 2), (1024, 2, 2)]
        >>> errors = left_out_errors([Cell(*it, true.seconds(*it)) for it in grid], cores=2)
        >>> max(errors) < 1e-9
        True
    """
    errors = []
    for i, cell in enumerate(cells):
        model = fit_step_time([*cells[:i], *cells[i + 1 :]], cores=cores)
        errors.append(abs(model.seconds(*cell[:3]) / cell.seconds - 1.0))
    return float(np.median(errors)), max(errors)


def crossover(seconds_of_workers: Mapping[int, float], peer_s: float) -> int | None:
    """The fewest workers that beat a peer, None where none of those given do.

    With a single-threaded peer that is its COST (McSherry, Isard, Murray, "Scalability! But at what
    COST?", HotOS 2015): the configuration required to outperform a single thread.

    Args:
        seconds_of_workers: Measured or predicted seconds by the number of workers.
        peer_s: Seconds of the peer for the same work.

    Examples:
        >>> crossover({1: 3.0, 2: 1.6, 4: 0.9}, 2.0), crossover({1: 3.0, 2: 2.0}, 2.0)
        (2, None)
    """
    return min((k for k, s in seconds_of_workers.items() if s < peer_s), default=None)


def _microseconds(seconds: float) -> str:
    return f"{float(f'{1e6 * seconds:.3g}'):.10g} µs"


def _terms(rows: float, processes: int, workers: int, cores: int) -> Float64:
    return np.array([1.0, rows / min(processes, cores), workers], np.float64)
