"""Side by side: distsgd against PyTorch DDP, PyTorch, JAX and the machine's limit, in turn.

Only ratios taken in one run count: every figure of ours is taken next in time to its peer's,
several times, and the ratio is the median of the pairs. Where DDP and one core are both asked for,
one figure of two workers stands between both. With workers, ours run on a Ray that stays up, each
with shards, a server and workers of its own; without, each is a command. Prints Markdown tables.
"""

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from markdown_table import Table
from plain import without_inherited_kernel

from distsgd.lab.bench import Bench, run_bench
from distsgd.lab.standing_ray import standing_ray

NETWORKS = {"A": "784,30,10", "B": "784,128,10", "C": "784,512,512,10"}
BATCHES = (16, 64, 256, 1024, 4096)
DDP_GOALS = {16: {"A": 10, "B": 10, "C": 5}, 64: {"A": 10, "B": 8, "C": 4}}
SHORT_STEP_US = 50  # Below it a signal weighs more.
ONE_BLOCK = ("parallel.lanes=1", "parallel.block_rows=4096")
ONE_LANE = ("parallel.lanes=1", "parallel.block_rows=256")
COMMAND = str(Path(sys.executable).with_name("distsgd"))
PARTS = ("limit", "ddp", "one_core", "one_thread")


@dataclass(frozen=True, slots=True)
class Sides:
    """How each side is timed."""

    referee: str
    peers: str
    seconds: float
    rounds: int
    ray: tuple[str, ...] = ()

    def ours(
        self, layers: str, batch: int, workers: int, *settings: str, statistics: str = "norms"
    ) -> dict:
        """One timing of distsgd; without workers in a process of its own, as its peers are."""
        if not workers:
            sizes = ["--layers", layers, "--batch", str(batch), "--workers", "0"]
            sets = [word for setting in settings for word in ("--set", setting)]
            how = ["--seconds", str(self.seconds), "--statistics", statistics, "--json"]
            return call(COMMAND, "bench", *sizes, *how, *sets)
        sizes = tuple(int(size) for size in layers.split(","))
        return run_bench(
            Bench(sizes, batch, workers, self.seconds, statistics, settings + self.ray)
        )

    def peer_us(self, name: str, layers: str, batch: int, *options: str) -> float:
        """Microseconds of a peer's step."""
        sizes = ["--layers", layers, "--batch", str(batch), *options]
        return call(self.peers, f"{self.referee}/peers.py", name, *sizes)["step_us"]

    def ddp_us(self, name: str, batch: int) -> float:
        """Two processes of PyTorch DDP."""
        steps = "30" if name == "C" and batch >= 1024 else "100"
        return self.peer_us("ddp", NETWORKS[name], batch, "--steps", steps)

    def limit_us(self, layers: str) -> float:
        """A bare numpy step on 256 rows."""
        sizes = ["--layers", layers, "--block", "256"]
        return call(sys.executable, f"{self.referee}/limit.py", *sizes)["bare_step_us"]


def call(*command: str) -> dict:
    """The JSON object on the last line of what a command prints."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def ratio(over: list[float], under: list[float]) -> float:
    """Median of the ratios of the pairs."""
    return statistics.median(a / b for a, b in zip(over, under, strict=True))


def middle(times_us: list[float]) -> str:
    """The median, or a dash where nothing was timed."""
    return f"{statistics.median(times_us):.0f}" if times_us else "-"


def two_workers(sides: Sides, parts: set[str]) -> None:
    """Two workers against two DDP processes, and against this process alone."""
    table = Table(
        "Two workers against PyTorch DDP (gloo, two processes) and against `--workers 0`",
        *("network", "batch", "DDP us", "two workers us", "alone us"),
        *("times DDP", "goal", "times alone", "goal", "computed by"),
    )
    for name in NETWORKS:
        for batch in (1, *BATCHES) if "one_core" in parts else BATCHES:
            with_ddp = "ddp" in parts and batch > 1
            table.row(name, batch, *two_workers_row(sides, name, batch, parts, with_ddp=with_ddp))


def two_workers_row(
    sides: Sides, name: str, batch: int, parts: set[str], *, with_ddp: bool
) -> list[str]:
    """The figures of one network and batch."""
    ddp, two, alone, plan = [], [], [], []
    for _ in range(sides.rounds):
        if with_ddp:
            ddp.append(sides.ddp_us(name, batch))
        found = sides.ours(NETWORKS[name], batch, 2)
        two.append(found["step_us"])
        plan = found["plan"]
        if "one_core" in parts:
            alone.append(sides.ours(NETWORKS[name], batch, 0)["step_us"])
    cells = [middle(ddp), middle(two), middle(alone)]
    ddp_goal = str(DDP_GOALS.get(batch, {}).get(name, 2))
    cells += [f"{ratio(ddp, two):.1f}", ddp_goal] if ddp else ["-", "-"]
    if alone:
        is_short = statistics.median(alone) < SHORT_STEP_US
        cells += [f"{ratio(alone, two):.2f}", "0.90" if is_short else "0.95"]
    else:
        cells += ["-", "-"]
    return [*cells, ", ".join(plan)]


def against_one_thread(sides: Sides) -> None:
    """One process of ours against JAX and PyTorch on one core."""
    table = Table(
        "One process (`--workers 0`), blocks of the batch's size",
        *("network", "batch", "distsgd us", "JAX us", "ours / JAX", "PyTorch us", "ours / PyTorch"),
    )
    for name, layers in NETWORKS.items():
        for batch in (64, 256, 1024):
            jax, torch, own = [], [], []
            for _ in range(sides.rounds):
                seconds = ("--seconds", str(sides.seconds))
                jax.append(sides.peer_us("jax", layers, batch, *seconds))
                own.append(sides.ours(layers, batch, 0, *ONE_BLOCK)["step_us"])
                torch.append(sides.peer_us("torch", layers, batch, *seconds))
            beside_jax = [middle(jax), f"{ratio(own, jax):.2f}"]
            beside_torch = [middle(torch), f"{ratio(own, torch):.2f}"]
            table.row(name, batch, middle(own), *beside_jax, *beside_torch)


def against_the_limit(sides: Sides) -> None:
    """Compute of one block of 256 rows against a bare numpy step, reading apart; norms on, off."""
    table = Table(
        "One block of 256 rows (`lanes = 1`) against a bare numpy step",
        *("network", "bare us", "compute us", "ratio", "goal", "norms on / off", "goal"),
    )
    goals = {"A": (1.25, 1.20), "B": (1.10, 1.05), "C": (1.10, 1.03)}
    for name, layers in NETWORKS.items():
        bare, off, on = [], [], []
        for _ in range(sides.rounds):
            bare.append(sides.limit_us(layers))
            for kind, times in (("none", off), ("norms", on)):
                found = sides.ours(layers, 256, 0, *ONE_LANE, statistics=kind)
                times.append(found["phases_us"]["compute"])
        ratios = [f"{ratio(off, bare):.2f}", goals[name][0], f"{ratio(on, off):.3f}"]
        table.row(name, middle(bare), middle(off), *ratios, goals[name][1])


def run(sides: Sides, parts: set[str]) -> None:
    """Print the tables of `parts`."""
    if "limit" in parts:
        against_the_limit(sides)
    if "one_thread" in parts:
        against_one_thread(sides)
    if parts & {"ddp", "one_core"}:
        with standing_ray(num_cpus=3) as ray:
            own = Sides(sides.referee, sides.peers, sides.seconds, sides.rounds, ray)
            two_workers(own, parts)


def main() -> None:
    """Run the parts that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--referee", default="../shared/bench", help="folder of peers.py and limit.py"
    )
    parser.add_argument(
        "--peers", default=".venv-peers/bin/python", help="Python with PyTorch and JAX"
    )
    parser.add_argument("--seconds", type=float, default=1.0, help="of each timing")
    parser.add_argument("--rounds", type=int, default=5, help="pairs of each figure")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    options = parser.parse_args()
    without_inherited_kernel()
    started = time.monotonic()
    print(f"{platform.platform()}, Python {platform.python_version()}, {options.rounds} rounds")
    sides = Sides(options.referee, options.peers, options.seconds, options.rounds)
    run(sides, set(options.parts))
    print(f"\n{(time.monotonic() - started) / 60:.1f} minutes")


if __name__ == "__main__":
    main()
