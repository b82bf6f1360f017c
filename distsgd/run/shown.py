"""A run in one line, for people at a prompt."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from distsgd.errors import DistSGDError
from distsgd.nn.weights import in_short

if TYPE_CHECKING:
    from distsgd.run.run import Run

_ECHOED = ("status", "steps", "epochs", "train_loss", "test_loss", "test_accuracy", "seconds")


def shown(run: Run) -> str:
    """How it ended and what it holds; of a damaged run, what can be read."""
    said = []
    with suppress(DistSGDError):
        said += [f"{key}={_short(it)}" for key, it in run.metrics.items() if key in _ECHOED]
        said.append(f"weights=<{in_short(run.weights)}>")
        rows = run.history
        said.append(f"history=<{len(rows):,} rows of {rows.num_columns} columns>")
    return f"Run({', '.join([*said, f'path={str(run.place)!r}'])})"


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else repr(value)
