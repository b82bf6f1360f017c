"""Side by side: distsgd against PyTorch DDP, PyTorch, JAX and the machine's limit, in turn.

Only ratios taken in one run count: every figure of ours is taken right beside its peer's, several
times, and the ratio is the median of the pairs. Prints Markdown tables.
"""

import argparse
import json
import platform
import statistics
import subprocess
import sys
from pathlib import Path

NETWORKS = {"A": "784,30,10", "B": "784,128,10", "C": "784,512,512,10"}
BATCHES = (16, 64, 256, 1024, 4096)
DDP_GOALS = {16: {"A": 10, "B": 10, "C": 5}, 64: {"A": 10, "B": 8, "C": 4}}
OURS = [str(Path(sys.executable).with_name("distsgd")), "bench", "--json"]
PEERS = ".venv-peers/bin/python"


def call(*command: str) -> dict:
    """The JSON object on the last line of what a command prints."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def ours(layers: str, batch: int, workers: int, *extra: str, seconds: float) -> dict:
    """One timing of distsgd."""
    sizes = ["--layers", layers, "--batch", str(batch), "--workers", str(workers)]
    return call(*OURS, *sizes, "--seconds", str(seconds), *extra)


class Table:
    """Rows of Markdown, printed as they come."""

    def __init__(self, title: str, *columns: str) -> None:
        print(f"\n### {title}\n\n| {' | '.join(columns)} |\n|{'---|' * len(columns)}", flush=True)

    def row(self, *cells: object) -> None:
        """Print one row."""
        print(f"| {' | '.join(str(cell) for cell in cells)} |", flush=True)


def median_ratio(pairs: list[tuple[float, float]]) -> float:
    """Median of the first over the second."""
    return statistics.median(a / b for a, b in pairs)


def against_ddp(options: argparse.Namespace) -> None:
    """Two workers against two DDP processes, samples a second."""
    table = Table(
        "Two workers against PyTorch DDP (gloo, two processes)",
        "network",
        "batch",
        "distsgd us",
        "DDP us",
        "times faster",
        "goal",
        "computed by",
    )
    for name, layers in NETWORKS.items():
        for batch in BATCHES:
            pairs, plan = [], []
            for _ in range(options.rounds):
                found = ours(layers, batch, 2, seconds=options.seconds)
                steps = "30" if name == "C" and batch >= 1024 else "100"
                sizes = ["--layers", layers, "--batch", str(batch), "--steps", steps]
                peer = call(PEERS, f"{options.referee}/peers.py", "ddp", *sizes)
                pairs.append((peer["step_us"], found["step_us"]))
                plan = found["plan"]
            us = [statistics.median(p[i] for p in pairs) for i in (1, 0)]
            goal = DDP_GOALS.get(batch, {}).get(name, 2)
            table.row(
                name, batch, *map(round, us), f"{median_ratio(pairs):.1f}", goal, ", ".join(plan)
            )


def against_one_core(options: argparse.Namespace) -> None:
    """Never slower than one core: two workers against none."""
    table = Table(
        "Two workers against this process alone (`--workers 0`)",
        "network",
        "batch",
        "alone us",
        "two workers us",
        "times as fast",
        "of which planned",
    )
    for name, layers in NETWORKS.items():
        for batch in (1, *BATCHES):
            pairs, plan = [], []
            for _ in range(options.rounds):
                alone = ours(layers, batch, 0, seconds=options.seconds)
                two = ours(layers, batch, 2, seconds=options.seconds)
                pairs.append((alone["step_us"], two["step_us"]))
                plan = two["plan"]
            us = [statistics.median(p[i] for p in pairs) for i in (0, 1)]
            table.row(name, batch, *map(round, us), f"{median_ratio(pairs):.2f}", ", ".join(plan))


def against_one_thread(options: argparse.Namespace) -> None:
    """One process of ours against JAX and PyTorch on one core, and against a bare numpy step."""
    table = Table(
        "One process (`--workers 0`), blocks of the batch's size",
        "network",
        "batch",
        "distsgd us",
        "JAX us",
        "ours / JAX",
        "PyTorch us",
        "ours / PyTorch",
    )
    one_block = ("--set", "parallel.lanes=1", "--set", "parallel.block_rows=4096")
    for name, layers in NETWORKS.items():
        for batch in (64, 256, 1024):
            jax, torch, own = [], [], []
            for _ in range(options.rounds):
                sizes = [
                    "--layers",
                    layers,
                    "--batch",
                    str(batch),
                    "--seconds",
                    str(options.seconds),
                ]
                own.append(ours(layers, batch, 0, *one_block, seconds=options.seconds)["step_us"])
                jax.append(call(PEERS, f"{options.referee}/peers.py", "jax", *sizes)["step_us"])
                torch.append(call(PEERS, f"{options.referee}/peers.py", "torch", *sizes)["step_us"])
            ratios = [median_ratio(list(zip(own, peer, strict=True))) for peer in (jax, torch)]
            us = [round(statistics.median(times)) for times in (own, jax, torch)]
            table.row(name, batch, us[0], us[1], f"{ratios[0]:.2f}", us[2], f"{ratios[1]:.2f}")


def against_the_limit(options: argparse.Namespace) -> None:
    """Compute of one block of 256 rows against a bare numpy step, reading apart; norms on, off."""
    table = Table(
        "One block of 256 rows (`lanes = 1`) against a bare numpy step",
        "network",
        "bare us",
        "compute us",
        "ratio",
        "goal",
        "norms on / off",
        "goal",
    )
    goals = {"A": (1.25, 1.20), "B": (1.10, 1.05), "C": (1.10, 1.03)}
    one_lane = ("--set", "parallel.lanes=1", "--set", "parallel.block_rows=256")
    for name, layers in NETWORKS.items():
        bare, norms = [], []
        for _ in range(options.rounds):
            sizes = ["--layers", layers, "--block", "256"]
            limit = call(sys.executable, f"{options.referee}/limit.py", *sizes)["bare_step_us"]
            off, on = (
                ours(layers, 256, 0, *one_lane, "--statistics", kind, seconds=options.seconds)[
                    "phases_us"
                ]["compute"]
                for kind in ("none", "norms")
            )
            bare.append((off, limit))
            norms.append((on, off))
        us = [round(statistics.median(pair[i] for pair in bare)) for i in (1, 0)]
        goal = goals[name]
        ratios = [f"{median_ratio(bare):.2f}", goal[0], f"{median_ratio(norms):.3f}", goal[1]]
        table.row(name, *us, *ratios)


PARTS = {
    "limit": against_the_limit,
    "ddp": against_ddp,
    "one_core": against_one_core,
    "one_thread": against_one_thread,
}


def main() -> None:
    """Run the parts that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--referee", default="../shared/bench", help="folder of peers.py and limit.py"
    )
    parser.add_argument("--seconds", type=float, default=2.0, help="of each timing")
    parser.add_argument("--rounds", type=int, default=5, help="pairs of each figure")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    options = parser.parse_args()
    print(f"{platform.platform()}, Python {platform.python_version()}, {options.rounds} rounds")
    for part in options.parts:
        PARTS[part](options)


if __name__ == "__main__":
    main()
