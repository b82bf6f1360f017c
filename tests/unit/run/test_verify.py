from __future__ import annotations

from dataclasses import replace
from typing import Any

from distsgd.run.verify import Record, differences


def record(*losses: float, seconds: float = 1.0, digests: dict[int, str] | None = None) -> Record:
    history: list[dict[str, Any]] = [
        {"step": step, "train_loss": loss, "noise_scale": None, "seconds": seconds}
        for step, loss in enumerate(losses, start=1)
    ]
    return Record(len(losses), digests or {1: "a"}, history, "w")


def test_equal_records_have_no_difference_and_time_is_not_compared() -> None:
    assert list(differences(record(0.5, 0.25), record(0.5, 0.25, seconds=9.0))) == []


def test_what_is_no_number_equals_itself_and_nothing_else() -> None:
    nan = float("nan")
    assert list(differences(record(0.5, nan), record(0.5, nan))) == []
    assert [step for step, _ in differences(record(0.5, nan), record(0.5, 0.25))] == [2]


def test_the_first_wrong_step_comes_from_history_digests_or_a_row_too_many() -> None:
    assert min(differences(record(0.5, 0.3, 0.1), record(0.5, 0.25, 0.1)))[0] == 2
    assert min(differences(record(0.5, digests={1: "b"}), record(0.5)))[0] == 1
    assert min(differences(record(0.5, 0.3), record(0.5)))[0] == 2


def test_what_ends_a_run_is_told_before_what_is_missing_behind_it() -> None:
    short, long = record(0.5), record(0.5, 0.3)
    assert next(differences(long, short)) == (2, "computed again, the run ends before it")
    met = replace(short, has_met_target=True)
    assert [step for step, _ in differences(met, short)] == [1]
    assert list(differences(short, met)) == []  # It was stopped there before it was evaluated.


def test_row_that_the_history_lacks_is_named_as_such() -> None:
    (lacking,) = differences(record(0.5), record(0.5, 0.25))
    assert lacking == (2, "the history has no row of it")
