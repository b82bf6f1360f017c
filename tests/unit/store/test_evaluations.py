import math
from pathlib import Path

import pytest

from distsgd.errors import CheckpointError
from distsgd.store import EvaluationLog, EvaluationRow


def row(step: int, *, test_loss: float | None = 0.5) -> EvaluationRow:
    return EvaluationRow(step, step / 10, test_loss, 0.9, 360)


def test_evaluations_come_back_as_they_were(tmp_path: Path) -> None:
    log = EvaluationLog(tmp_path / "evaluations.jsonl")
    rows = [row(10), row(20, test_loss=0.1 + 0.2), row(30)._replace(test_accuracy=None)]
    for each in rows:
        log.append(each)
    log.flush()
    assert list(log.read()) == rows


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_evaluation_that_is_not_finite_is_null(tmp_path: Path, loss: float) -> None:
    log = EvaluationLog(tmp_path / "evaluations.jsonl")
    log.append(row(10, test_loss=loss))
    log.flush()
    assert log.read() == (row(10, test_loss=None),)


def test_evaluations_beyond_a_step_are_dropped(tmp_path: Path) -> None:
    log = EvaluationLog(tmp_path / "evaluations.jsonl")
    for step in (10, 20, 30):
        log.append(row(step))
    log.flush()
    log.drop_after(20)
    assert [each.step for each in log.read()] == [10, 20]
    log.drop_after(0)
    assert log.read() == ()


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"step": 1}', "line 1: has the fields"),
        (
            '{"step": 1, "epoch": null, "test_loss": 1, "test_accuracy": 1, "rows": 1}',
            "line 1: epoch is None; must be a number",
        ),
        (
            '{"step": 1, "epoch": 1, "test_loss": "low", "test_accuracy": 1, "rows": 1}',
            "line 1: test_loss is 'low'; must be a number",
        ),
    ],
)
def test_evaluations_name_a_damaged_line(tmp_path: Path, line: str, reason: str) -> None:
    path = tmp_path / "evaluations.jsonl"
    path.write_text(line + "\n")
    with pytest.raises(CheckpointError, match=reason):
        EvaluationLog(path).read()
