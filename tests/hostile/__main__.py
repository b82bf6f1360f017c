"""Reads many hostile inputs and prints a table; see ``scripts/fuzz``."""

from __future__ import annotations

import argparse
import sys
from concurrent.futures import ThreadPoolExecutor

from tests.hostile.campaign import Tally, judge
from tests.hostile.cases import FORMATS

_ROW = "{:22}{:>8}{:>8}{:>9}{:>9}{:>8}{:>9}"


def main() -> int:
    """Judge `--inputs` inputs, spread over the formats; the exit code says whether all held."""
    parser = argparse.ArgumentParser(prog="scripts/fuzz", description=__doc__)
    parser.add_argument("formats", nargs="*", default=list(FORMATS), metavar="FORMAT")
    parser.add_argument("--inputs", type=int, default=10_000, help="in all formats together")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    unknown = sorted(set(asked.formats) - set(FORMATS))
    if unknown:
        parser.error(f"no format {unknown[0]!r}; known: {', '.join(FORMATS)}")
    each = -(-asked.inputs // len(asked.formats))
    _say(_ROW.format("format", "inputs", "read", "refused", "failed", "most s", "most MiB"))
    with ThreadPoolExecutor(2) as pool:
        tallies = []
        for tally in pool.map(
            lambda name: judge(name, seed=asked.seed, first=0, last=each), asked.formats
        ):
            tallies.append(tally)
            _say(_row(tally, each))
    _say(_total(tallies, each))
    failures = [failure for tally in tallies for failure in tally.failures]
    for failure in failures:
        sys.stderr.write(f"\n{failure}\n")
    return 1 if failures else 0


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _row(tally: Tally, inputs: int) -> str:
    numbers = (inputs, tally.read, tally.refused, len(tally.failures))
    return _ROW.format(tally.name, *numbers, f"{tally.most_seconds:.2f}", f"{tally.most_mib:.0f}")


def _total(tallies: list[Tally], each: int) -> str:
    numbers = (
        each * len(tallies),
        sum(tally.read for tally in tallies),
        sum(tally.refused for tally in tallies),
        sum(len(tally.failures) for tally in tallies),
    )
    seconds, mib = (max(getattr(t, key) for t in tallies) for key in ("most_seconds", "most_mib"))
    return _ROW.format("all", *numbers, f"{seconds:.2f}", f"{mib:.0f}")


if __name__ == "__main__":
    sys.exit(main())
