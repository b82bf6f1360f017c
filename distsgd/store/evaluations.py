"""Evaluations of a run: loss and accuracy on held-out rows, one JSON object a line."""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple

from distsgd.base.files import JsonLines


class EvaluationRow(NamedTuple):
    """One evaluation; its fields are the columns of the table.

    Attributes:
        step: Updates made before it.
        epoch: Passes over the rows, finished or begun, as the caller counts them.
        test_loss: Mean over the held-out rows; None where it is not finite.
        test_accuracy: Share of them classified right; None where there are no classes.
        rows: Held-out rows.
    """

    step: int
    epoch: float
    test_loss: float | None
    test_accuracy: float | None
    rows: int


class EvaluationLog:
    """The evaluations at `path`, in the order of their steps; in memory until `flush`."""

    def __init__(self, path: Path) -> None:
        self._lines = JsonLines(path)

    def append(self, row: EvaluationRow) -> None:
        """Remember `row`."""
        loss = row.test_loss
        finite = loss if loss is not None and math.isfinite(loss) else None
        self._lines.append(row._replace(test_loss=finite)._asdict())

    def flush(self) -> None:
        """Make all appended rows durable.

        Raises:
            RunError: The operating system refuses; the rows stay in memory.
        """
        self._lines.flush()

    def drop_after(self, step: int) -> None:
        """Forget the rows beyond `step`, in memory and on disk."""
        self._lines.drop_after(step)

    def read(self) -> tuple[EvaluationRow, ...]:
        """The rows on disk.

        Raises:
            CheckpointError: A line is damaged; names it.
        """
        rows = []
        for number, line in self._lines.read():
            if line.keys() != set(EvaluationRow._fields):
                names = ", ".join(EvaluationRow._fields)
                raise self._lines.damaged(
                    number, f"has the fields {sorted(line)}; must have {names}"
                )
            for name, value in line.items():
                may_be_null = name in {"test_loss", "test_accuracy"} and value is None
                if not may_be_null and type(value) not in {int, float}:
                    raise self._lines.damaged(number, f"{name} is {value!r}; must be a number")
            rows.append(EvaluationRow(**line))
        return tuple(rows)
