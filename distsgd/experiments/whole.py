"""How much of an experiment there is: what is to be made, what was kept, how a piece came out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from distsgd.base.files import read_json
from distsgd.experiments.plan import NUM_RATES, NUM_REFINED, Grid, Piece

Totals = Mapping[tuple[int, str], int]


def totals(grid: Grid) -> dict[tuple[int, str], int]:
    """Pieces at most by batch size and stage, as far as that is known before any is made."""
    plan = grid.plan
    found = {}
    for batch in grid.batches:
        cells = [key for key in grid.timings if key.base_batch == batch]
        found[batch, "learning"] = plan.seeds + (NUM_RATES + NUM_REFINED if plan.rates else 0)
        found[batch, "timing"] = len(cells) * plan.num_pairs
        found[batch, "peers"] = len(plan.peers) * plan.seeds
    return found


def kept(grid: Grid, directory: Path) -> Iterator[Piece]:
    """What the experiment in `directory` has already, of the stages that `totals` knows."""
    for batch in grid.batches:
        for place in sorted(directory.glob(f"learning/batch-{batch}/*/*/result.json")):
            yield Piece("learning", batch, str(place.parent.relative_to(directory)))
    for key in grid.timings:
        for number, _ in enumerate(directory.glob(f"{key.name}/pair-*.json"), 1):
            yield Piece("timing", key.base_batch, f"{key.name} pair {number}")
    for batch in grid.batches:
        for place in sorted(directory.glob(f"peers/*/batch-{batch}/*/*.json")):
            yield Piece("peers", batch, str(place.relative_to(directory).with_suffix("")))


def outcome(directory: Path, piece: Piece) -> str:
    """How a learning run or a peer ended: "reached" or "diverged"; "" of what has neither.

    Raises RunError where its file is damaged.
    """
    if piece.stage == "peers":
        file = directory / f"{piece.name}.json"
        found = read_json(file) if file.is_file() else {}
        is_reached, is_diverged = found.get("steps") is not None, found.get("is_diverged")
    else:
        file = directory / piece.name / "result.json"
        found = read_json(file) if file.is_file() else {}
        is_reached = found.get("stopped_by") == "target"
        is_diverged = found.get("status") == "diverged"
    return "reached" if is_reached else "diverged" if is_diverged else ""
