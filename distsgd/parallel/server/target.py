"""What an evaluation must show for a run to end early. No I/O here."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn, Self

from distsgd.base.settings import nearest
from distsgd.errors import ConfigError, shortened

if TYPE_CHECKING:
    from distsgd.store.logs import EvaluationRow

RULE = '"test_accuracy >= NUMBER" or "test_loss <= NUMBER"'
_AT_LEAST = {"test_accuracy": True, "test_loss": False}
_TOO_EARLY = {
    "test_accuracy": "an accuracy grows in training",
    "test_loss": "a loss falls in training",
}
_COMPARISON = re.compile(r"\s*(\w+)\s*(>=|<=)\s*(\S+)\s*")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Target:
    """A run ends, done, at the first evaluation that meets it.

    Attributes:
        metric: "test_accuracy" or "test_loss", of an `EvaluationRow`.
        at_least: Is it met from `value` upwards, or downwards?
        value: Finite; an accuracy from 0 to 1.

    >>> Target.parse("test_accuracy>=0.95")
    Target(metric='test_accuracy', at_least=True, value=0.95)
    >>> str(Target.parse(" test_loss <= 1e-3 "))
    'test_loss <= 0.001'
    """

    metric: str
    at_least: bool
    value: float

    @classmethod
    def parse(cls, text: str) -> Self:
        """The target that `text` says: METRIC OP NUMBER. Raises ConfigError.

        >>> Target.parse("accuracy >= 0.95")  # doctest: +ELLIPSIS, +NORMALIZE_WHITESPACE
        Traceback (most recent call last):
            ...
        distsgd.errors.ConfigError: train.target is "accuracy >= 0.95"; must be "test_accuracy >=
        NUMBER" or "test_loss <= NUMBER" (did you mean 'test_accuracy'?) (set [train] target)
        """
        found = _COMPARISON.fullmatch(text)
        if found is None:
            _refuse(text, f"must be {RULE}")
        metric, operator, number = found.groups()
        at_least = operator == ">="
        if metric not in _AT_LEAST:
            _refuse(text, f"must be {RULE}{nearest(metric, _AT_LEAST)}")
        if at_least is not _AT_LEAST[metric]:
            reason = f"{_TOO_EARLY[metric]}, so that would be met before anything is learnt"
            _refuse(text, f"{reason}; must be {RULE}")
        value = float(number) if _NUMBER.fullmatch(number) else math.nan
        if not math.isfinite(value):
            _refuse(text, f"{shortened(number, 20)} is no finite number; must be {RULE}")
        if metric == "test_accuracy" and not 0 <= value <= 1:
            _refuse(text, "an accuracy is a share of the rows; must be from 0 to 1")
        return cls(metric, at_least, value)

    def __str__(self) -> str:
        return f"{self.metric} {'>=' if self.at_least else '<='} {self.value!r}"

    def is_met(self, newest: EvaluationRow | None) -> bool:
        """Does the newest evaluation meet it? None yet, and no finite number, do not."""
        found = None if newest is None else getattr(newest, self.metric)
        if found is None or not math.isfinite(found):
            return False
        return bool(found >= self.value if self.at_least else found <= self.value)

    def problems(self, *, num_test_rows: int, has_classes: bool) -> Iterator[str]:
        """Why no evaluation of these rows could meet it, a line each."""
        if not num_test_rows:
            yield _line(
                str(self),
                "no rows are held out to measure that",
                "set [data] test_fraction or test_path, or remove target from [train]",
            )
        if self.metric == "test_accuracy" and not has_classes:
            yield _line(
                str(self),
                "the labels are numbers, which have no accuracy",
                'set [train] target to "test_loss <= NUMBER"',
            )


def _refuse(text: str, reason: str) -> NoReturn:
    raise ConfigError([_line(text, reason, "set [train] target")])


def _line(text: str, reason: str, way_out: str) -> str:
    shown = json.dumps(shortened(text), ensure_ascii=False)
    return f"train.target is {shown}; {reason} ({way_out})"
