"""A module of PyTorch trained by two workers against two processes of DDP; norms on against off.

    scripts/bench/own_models.py [--kinds mlp cnn transformer] [--batches 16,64,256] [--rounds 5]

Every figure of ours is taken next in time to its peer's, and a ratio is the median of the pairs.
Needs PyTorch (`scripts/env --with torch,jax`); nothing else should run.
"""

import argparse
import os
import platform
import statistics
import sys
import tempfile
from pathlib import Path

import ddp
from markdown_table import Table
from modules import MODULES, PLACES
from plain import without_inherited_kernel
from rows import rows_of

from distsgd import TrainConfig
from distsgd.lab.standing_ray import standing_ray
from distsgd.lab.step_time import time_steps
from distsgd.run.source import prepared_arrays

NORM_GOALS = {"mlp": 1.15, "transformer": 1.3, "cnn": 2.2}


def config_of(kind: str, batch: int, workers: int, *, norms: bool) -> TrainConfig:
    """A run of plain SGD without an end."""
    tokens = {"feature_kind": "integer", "target_shape": [PLACES]}
    places = tokens if kind == "transformer" else {"standardise": "none"}
    return TrainConfig.from_dict(
        {
            "data": {"label": "label"} | places,
            "model": {"factory": "modules:make", "options": {"kind": kind}},
            "optimizer": {"learning_rate": 0.01},
            "batch": {"size": batch},
            "train": {"steps": 1 << 40},
            "statistics": {"per_sample": norms},
            "parallel": {"workers": workers},
            "checkpoint": {"every_s": 0.0},
        }
    )


def against_ddp(kind: str, data: Path, options: argparse.Namespace, ray: tuple[str, ...]) -> None:
    """Two workers, with statistics and without, next to DDP."""
    columns = ("rows", "DDP us", "two workers us", "times DDP", "least", "most", "without norms")
    table = Table(f"{kind}: two workers against DDP", *columns)
    for batch in options.batches:
        pairs = []
        for _ in range(options.rounds):
            peer = ddp.step_s(kind, batch, max(5, int(options.seconds * 200 / batch)))
            ours = [
                time_steps(
                    config_of(kind, batch, 2, norms=norms).with_overrides(ray),
                    data,
                    options.seconds,
                ).seconds
                for norms in (True, False)
            ]
            pairs.append((peer, *ours))
        ratios = [peer / on for peer, on, _ in pairs]
        without = statistics.median(peer / off for peer, _, off in pairs)
        middles = (f"{statistics.median(its) * 1e6:.0f}" for its in [*zip(*pairs, strict=True)][:2])
        spread = (f"{it:.2f}" for it in (statistics.median(ratios), min(ratios), max(ratios)))
        table.row(batch, *middles, *spread, f"{without:.2f}")


def norms_on_and_off(kind: str, data: Path, options: argparse.Namespace, table: Table) -> None:
    """One process, compute only."""
    for batch in options.batches:
        ratios = []
        for _ in range(options.rounds):
            on, off = (
                time_steps(config_of(kind, batch, 0, norms=norms), data, options.seconds)
                for norms in (True, False)
            )
            ratios.append(on.phases_s["compute"] / off.phases_s["compute"])
        spread = (f"{it:.2f}" for it in (statistics.median(ratios), min(ratios), max(ratios)))
        table.row(kind, batch, *spread, NORM_GOALS[kind])


def main() -> None:
    """Print the tables."""
    without_inherited_kernel()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kinds", nargs="+", choices=MODULES, default=list(MODULES))
    parser.add_argument(
        "--batches", type=lambda text: [*map(int, text.split(","))], default=[16, 64, 256]
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--parts", nargs="+", choices=("norms", "ddp"), default=["norms", "ddp"])
    options = parser.parse_args()
    print(f"{platform.platform()}, Python {platform.python_version()}, {options.rounds} rounds")
    # Workers import the modules by name.
    here = str(Path(__file__).parent)
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (here, os.environ.get("PYTHONPATH"))))
    with tempfile.TemporaryDirectory(prefix="distsgd-bench-") as place:
        data = {}
        for kind in options.kinds:
            config = config_of(kind, 64, 0, norms=False)
            data[kind] = prepared_arrays(config, rows_of(kind), Path(place) / kind)
        if "norms" in options.parts:
            table = Table("Norms on / off", "module", "rows", "times", "least", "most", "goal")
            for kind in options.kinds:
                norms_on_and_off(kind, data[kind], options, table)
        if "ddp" in options.parts:
            with standing_ray(num_cpus=3) as ray:
                for kind in options.kinds:
                    against_ddp(kind, data[kind], options, ray)


if __name__ == "__main__":
    sys.exit(main())
