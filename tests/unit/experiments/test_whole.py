"""The pieces that are foreseen are those that are made, and what was kept is told again."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from distsgd.experiments.plan import Piece
from distsgd.experiments.scale import Scale, read_plan
from distsgd.experiments.whole import Totals
from tests.unit.experiments.rows import begun


def noted(directory: Path) -> tuple[dict[tuple[int, str], int], dict[Piece, str]]:
    """What is foreseen and what is made, by a run of the experiment or of the rest of it."""
    expected: list[Totals] = []
    outcomes: dict[Piece, str] = {}
    scale = Scale(
        *(directory, read_plan(directory), directory.parent / "cache", lambda _: None),
        note=outcomes.__setitem__,
        expect=expected.append,
    )
    scale.run()
    (totals,) = expected
    return dict(totals), outcomes


def test_what_is_foreseen_is_made_and_told_again_of_what_was_kept(tmp_path: Path) -> None:
    directory, _ = begun(tmp_path, timed_s=0.05, batches=(24, "full"), seeds=1)
    totals, outcomes = noted(directory)
    made = Counter((piece.batch, piece.stage) for piece in outcomes)
    stages = ("learning", "timing")
    assert {key: count for key, count in made.items() if key[1] in stages} == {
        key: count for key, count in totals.items() if key[1] in stages
    }
    reached = [piece for piece, how in outcomes.items() if how == "reached"]
    assert reached
    for piece in reached:
        assert (directory / piece.name / "result.json").is_file()
    again = noted(directory)[1]
    assert again == {
        piece: how
        for piece, how in outcomes.items()
        if piece.stage == "timing" or (directory / piece.name / "result.json").is_file()
        if piece.stage in stages
    }
