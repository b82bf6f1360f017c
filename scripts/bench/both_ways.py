"""What a setting brings: steps with it and without, in turn, as a Markdown table of ratios.

    scripts/bench/both_ways.py --with parallel.spin=true --without parallel.spin=false

Each figure is a `distsgd bench` of its own; a ratio is the median over the pairs of one network and
batch, with the least and the most. Run it by the environment's Python, with nothing else running.
"""

import argparse
import statistics

from against_peers import COMMAND, NETWORKS, call
from markdown_table import Table
from plain import without_inherited_kernel


def step_us(name: str, batch: int, options: argparse.Namespace, setting: str) -> float:
    """Microseconds of a step by `setting`."""
    sizes = ["--layers", NETWORKS[name], "--batch", str(batch)]
    how = ["--workers", str(options.workers), "--seconds", str(options.seconds), "--json"]
    return call(COMMAND, "bench", *sizes, *how, "--set", setting)["step_us"]


def main() -> None:
    """Print the table."""
    without_inherited_kernel()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--with", dest="first", required=True, metavar="KEY=VALUE")
    parser.add_argument("--without", dest="second", required=True, metavar="KEY=VALUE")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--batches", default="16,64,256,1024")
    options = parser.parse_args()
    columns = ("network", "rows", options.first, options.second, "times as long", "least", "most")
    table = Table(f"Microseconds a step, {options.workers} workers", *columns)
    for name in NETWORKS:
        for batch in map(int, options.batches.split(",")):
            pairs = [
                tuple(
                    step_us(name, batch, options, setting)
                    for setting in (options.first, options.second)
                )
                for _ in range(options.rounds)
            ]
            ours, others = zip(*pairs, strict=True)
            ratios = [other / one for one, other in pairs]
            middle = (f"{statistics.median(its):.0f}" for its in (ours, others))
            spread = (f"{it:.2f}" for it in (statistics.median(ratios), min(ratios), max(ratios)))
            table.row(name, batch, *middle, *spread)


if __name__ == "__main__":
    main()
