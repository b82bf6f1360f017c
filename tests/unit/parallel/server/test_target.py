"""A target: how it is written, what meets it, what is refused."""

from __future__ import annotations

import math

import pytest

from distsgd.errors import ConfigError
from distsgd.parallel.server.target import Target
from distsgd.store.logs import EvaluationRow


@pytest.mark.parametrize(
    ("text", "target", "plain"),
    [
        ("test_accuracy>=0.95", Target("test_accuracy", True, 0.95), "test_accuracy >= 0.95"),
        ("  test_accuracy  >=  1 ", Target("test_accuracy", True, 1.0), "test_accuracy >= 1.0"),
        ("test_loss<=.5", Target("test_loss", False, 0.5), "test_loss <= 0.5"),
        ("test_loss <= -2E-3", Target("test_loss", False, -0.002), "test_loss <= -0.002"),
        ("test_loss <= +3.", Target("test_loss", False, 3.0), "test_loss <= 3.0"),
    ],
)
def test_target_is_read_and_written_in_one_spelling(text: str, target: Target, plain: str) -> None:
    assert Target.parse(text) == target
    assert str(target) == plain
    assert Target.parse(plain) == target


RULE = 'must be "test_accuracy >= NUMBER" or "test_loss <= NUMBER"'


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", RULE),
        ("0.95", RULE),
        ("test_accuracy", RULE),
        ("test_accuracy > 0.9", RULE),
        ("test_accuracy = 0.9", RULE),
        ("test_accuracy >= 0.9 0.8", RULE),
        ("test_acuracy >= 0.9", f"{RULE} (did you mean 'test_accuracy'?)"),
        ("loss <= 0.1", f"{RULE} (did you mean 'test_loss'?)"),
        ("f1 >= 0.9", RULE),
        ("test_accuracy <= 0.9", f"an accuracy grows in training, so that would be met {RULE}"),
        ("test_loss >= 0.1", f"a loss falls in training, so that would be met {RULE}"),
        ("test_accuracy >= nan", f"nan is no finite number; {RULE}"),
        ("test_loss <= inf", f"inf is no finite number; {RULE}"),
        ("test_loss <= 1e999", f"1e999 is no finite number; {RULE}"),
        ("test_loss <= 1_0", f"1_0 is no finite number; {RULE}"),
        ("test_accuracy >= 95%", f"95% is no finite number; {RULE}"),
        ("test_accuracy >= 95", "an accuracy is a share of the rows; must be from 0 to 1"),
        ("test_accuracy >= -0.1", "an accuracy is a share of the rows; must be from 0 to 1"),
    ],
)
def test_what_is_no_target_is_told_with_value_rule_and_way_out(text: str, reason: str) -> None:
    with pytest.raises(ConfigError) as found:
        Target.parse(text)
    (line,) = found.value.problems
    line = line.replace("before anything is learnt; ", "")
    assert line == f'train.target is "{text}"; {reason} (set [train] target)'


def evaluation(loss: float, accuracy: float | None) -> EvaluationRow:
    return EvaluationRow(3, 1.5, loss, accuracy, 20)


@pytest.mark.parametrize(
    ("text", "newest", "is_met"),
    [
        ("test_accuracy >= 0.95", evaluation(0.1, 0.95), True),
        ("test_accuracy >= 0.95", evaluation(0.1, 19 / 20), True),
        ("test_accuracy >= 0.95", evaluation(0.1, 0.9499999), False),
        ("test_accuracy >= 0.95", evaluation(0.1, None), False),
        ("test_accuracy >= 0", evaluation(math.nan, 0.0), True),
        ("test_loss <= 0.1", evaluation(0.1, None), True),
        ("test_loss <= 0.1", evaluation(0.1000001, 1.0), False),
        ("test_loss <= 0.1", evaluation(math.nan, 1.0), False),
        ("test_loss <= 0.1", evaluation(math.inf, 1.0), False),
        ("test_loss <= 0.1", evaluation(-math.inf, 1.0), False),
        ("test_loss <= 0.1", None, False),
    ],
)
def test_target_is_met_by_the_newest_evaluation_alone(
    text: str, newest: EvaluationRow | None, *, is_met: bool
) -> None:
    assert Target.parse(text).is_met(newest) is is_met


@pytest.mark.parametrize(
    ("text", "num_test_rows", "has_classes", "starts"),
    [
        ("test_accuracy >= 0.9", 5, True, []),
        ("test_loss <= 0.9", 5, False, []),
        ("test_loss <= 0.9", 0, True, ["no rows are held out"]),
        ("test_accuracy >= 0.9", 5, False, ["the labels are numbers"]),
        ("test_accuracy >= 0.9", 0, False, ["no rows are held out", "the labels are numbers"]),
    ],
)
def test_target_that_no_evaluation_could_meet_is_a_problem(
    text: str, num_test_rows: int, starts: list[str], *, has_classes: bool
) -> None:
    found = Target.parse(text).problems(num_test_rows=num_test_rows, has_classes=has_classes)
    for line, start in zip(found, starts, strict=True):
        assert line.startswith(f'train.target is "{text}"; {start}')
        assert line.endswith(")")
