"""Rules and samplers as a user would write them, known to the package by their names only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from distsgd.base.arrays import Array
from distsgd.base.random_keys import Purpose, uniform
from distsgd.data.sampler import Blocking, Partition, RowOrder, SamplerSpec, WillNeed
from distsgd.optim.search import LossProbe


@dataclass(frozen=True)
class SignDescent:
    """Each weight by the rate against the sign of its gradient, smoothed with `beta`."""

    beta: float = 0.5

    def init(self, weights: Array) -> dict[str, Array]:
        """The smoothed gradient."""
        return {"mean": np.zeros_like(weights)}

    def update_inplace(
        self,
        weights: Array,
        mean_grad: Array,
        *,
        state: Mapping[str, Array],
        learning_rate: float,
        num_updates: int,
    ) -> None:
        """See `distsgd.optim.rules.UpdateRule`."""
        scalar, mean = weights.dtype.type, state["mean"]
        mean *= scalar(self.beta if num_updates else 0.0)
        mean += mean_grad
        weights -= np.sign(mean) * scalar(learning_rate)


@dataclass(frozen=True)
class Spsa:
    """Simultaneous perturbation (Spall, 1992): two losses give the slope along one direction.

    Its state counts, to be seen in a checkpoint.
    """

    reach: float = 0.01

    def init(self, weights: Array) -> dict[str, Array]:
        """The steps made."""
        return {"steps": np.zeros(1, weights.dtype)}

    def rate(self, scheduled: float) -> float:
        """That of the schedule."""
        return scheduled

    def search_inplace(
        self,
        weights: Array,
        probe: LossProbe,
        *,
        step: int,
        free: NDArray[np.int64],
        state: Mapping[str, Array],
        learning_rate: float,
    ) -> None:
        """See `distsgd.optim.search.SearchRule`; it moves all weights, frozen or not."""
        assert len(free)
        state["steps"] += 1
        scalar, here = weights.dtype.type, weights.copy()
        signs = np.where(uniform(step, Purpose.PROBE, count=weights.size) < 0.5, -1, 1)
        direction = (signs * self.reach).astype(weights.dtype)
        weights += direction
        up = probe.measure()
        weights[:] = here - direction
        slope = (up - probe.measure()) / (2.0 * self.reach * probe.num_samples)
        weights[:] = here - direction * scalar(learning_rate * slope / self.reach)


@dataclass(frozen=True)
class StoredOrder:
    """The rows as they are stored, every epoch the same, without a short mini-batch at the end."""

    num_rows: int
    batch_rows: int
    blocking: Blocking

    @classmethod
    def of(cls, spec: SamplerSpec, *, divide_by: int = 1) -> StoredOrder:
        """Of mini-batches smaller by `divide_by` than the configuration says."""
        rows = spec.batch_rows // divide_by
        return cls(spec.num_rows, rows, spec.blocking(rows))

    @property
    def steps_per_epoch(self) -> int:
        """Whole mini-batches."""
        return self.num_rows // self.batch_rows

    @property
    def most_leaves(self) -> int:
        """Of a full mini-batch."""
        return self.blocking.num_leaves(self.batch_rows)

    @property
    def hot_rows(self) -> int:
        """Those of a mini-batch."""
        return self.batch_rows

    @property
    def order_bytes(self) -> int:
        """None are kept."""
        return 0

    def num_samples(self, step: int) -> int:  # noqa: ARG002 -- the protocol's signature.
        """The same in each."""
        return self.batch_rows

    def partition(self, step: int) -> Partition:
        """The same in each."""
        return self.blocking.partition(self.num_samples(step))

    def row_order(self, will_need: WillNeed = lambda _: None) -> RowOrder:  # noqa: ARG002
        """Itself: it builds nothing."""
        return self

    def rows_inplace(self, step: int, first: int, last: int, rows_N: NDArray[np.int64]) -> None:
        """See `RowOrder`."""
        start = step % self.steps_per_epoch * self.batch_rows
        rows_N[:] = np.arange(start + first, start + last)

    def describe(self) -> dict[str, int | str]:
        """For the record."""
        return {"shuffle": "stored"}


def make_nothing() -> int:
    """No rule."""
    return 0
