"""How the cost of a step grows: with workers, with parameters, with rows; and how long a start is.

An empty step is a synchronous step of a real run (server actor, worker actors, transport, sampler,
update, record) whose workers compute nothing: each writes a sum of zeros. Prints Markdown tables;
where a goal is missed, the phases next to it say where the time went.
"""

import argparse
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from markdown_table import Table
from plain import without_inherited_kernel

from distsgd.lab.bench import Bench, empty_bench, prepare_synthetic, run_bench
from distsgd.lab.standing_ray import standing_ray
from distsgd.lab.transport_time import transport_us
from distsgd.parallel.launch.supervisor.supervisor import examine_ray
from distsgd.parallel.server.spec import Status, Watch

MOST_WORKERS = 8
A_WORKER_US = 60
SIZES = (10_000, 100_000, 1_000_000, 10_000_000)
MOST_TIMES_STREAMING = 2.0
FLAT = 0.10
COMMAND = str(Path(sys.executable).with_name("distsgd"))


def phases(found: dict) -> str:
    """Microseconds a step, by what they went to."""
    return ", ".join(f"{name} {us:.0f}" for name, us in found["phases_us"].items())


def mark(*, is_reached: bool) -> str:
    """Is the goal reached?"""
    return "yes" if is_reached else "**no**"


def timed(bench: Bench, rounds: int, ray: tuple[str, ...], watch: Watch | None = None) -> dict:
    """The timing of the middle one of `rounds` runs on a Ray that stays up."""
    bench = replace(bench, overrides=(*bench.overrides, *ray))
    runs = sorted((run_bench(bench, watch) for _ in range(rounds)), key=lambda run: run["step_us"])
    return runs[(len(runs) - 1) // 2]


def over_workers(options: argparse.Namespace) -> None:
    """One to eight workers."""
    table = Table(
        f"Empty step, 100,000 parameters, `plan = all`, {os.cpu_count()} cores",
        *("workers", "transport alone us", "step us", "us a worker", f"at most {A_WORKER_US}"),
        *("no faster than linear", "step us with 16 blocks", "phases of the step"),
    )
    first_us = 0.0
    with standing_ray(num_cpus=MOST_WORKERS + 1) as ray:
        for workers in options.workers:
            alone_us = transport_us(num_workers=workers)
            found = timed(empty_bench(num_workers=workers), options.rounds, ray)
            blocks = timed(empty_bench(num_workers=workers, num_blocks=16), options.rounds, ray)
            us = found["step_us"]
            first_us = first_us or us / workers
            small = mark(is_reached=us / workers <= A_WORKER_US)
            linear = mark(is_reached=us <= first_us * workers)
            cells = [f"{alone_us:.0f}", f"{us:.0f}", f"{us / workers:.0f}", small, linear]
            table.row(workers, *cells, f"{blocks['step_us']:.0f}", phases(found))


def copy_us(num_parameters: int) -> float:
    """Microseconds in which numpy copies so many float32 numbers: a read and a write of each."""
    source, target = np.ones(num_parameters, np.float32), np.zeros(num_parameters, np.float32)
    times = []
    for _ in range(max(20, 20_000_000 // num_parameters)):
        started = time.perf_counter()
        np.copyto(target, source)
        times.append(time.perf_counter() - started)
    return statistics.median(times) * 1e6


def over_parameters(options: argparse.Namespace) -> None:
    """Two workers, more and more parameters."""
    table = Table(
        "Empty step, two workers, against streaming each sum and the weights twice (three copies)",
        *("parameters", "step us", "streaming us", "times streaming"),
        *(f"at most {MOST_TIMES_STREAMING:g} from 10^6 on", "phases of the step"),
    )
    with standing_ray(num_cpus=3) as ray:
        for size in SIZES:
            before_us = copy_us(size)
            found = timed(empty_bench(num_workers=2, num_parameters=size), options.rounds, ray)
            # Two sums and the weights, each written and read once: three copies.
            streaming_us = 3 * (before_us + copy_us(size)) / 2
            times = found["step_us"] / streaming_us
            goal = mark(is_reached=times <= MOST_TIMES_STREAMING) if size >= 1_000_000 else "-"
            cells = [f"{found['step_us']:.0f}", f"{streaming_us:.0f}", f"{times:.1f}", goal]
            table.row(f"{size:,}", *cells, phases(found))


@dataclass(slots=True)
class MemoryWatch:
    """Sees the most anonymous memory that a worker of a run has while it trains, in bytes."""

    most_bytes: int = 0
    _pids: set[int] = field(default_factory=set)

    def __call__(self, status: Status) -> bool:
        """Look; never wants to stop."""
        for message in status.messages:
            if found := re.search(r"worker \d+ has joined \(process (\d+)\)", message):
                self._pids.add(int(found[1]))
        if status.phase == "training":
            self.most_bytes = max([self.most_bytes, *map(anonymous_bytes, self._pids)])
        return False


def anonymous_bytes(pid: int) -> int:
    """RssAnon of a process; 0 where it has ended."""
    try:
        found = re.search(r"RssAnon:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    except OSError:
        return 0
    return int(found[1]) * 1024 if found else 0


def over_rows(options: argparse.Namespace) -> None:
    """More and more rows of 20 columns in shards."""
    table = Table(
        "Two workers (`plan = all`), rows of 20 columns in shards, 20,100,10, mini-batches of 256",
        *("rows", "prepared in s", "step us", "against fewest", "flat within 10 %"),
        *("worker's anonymous MB", "against fewest", "flat within 10 %", "phases of the step"),
    )
    first: tuple[float, float] | None = None
    with tempfile.TemporaryDirectory() as temporary, standing_ray(num_cpus=3) as ray:
        for rows in SIZES:
            bench = Bench(
                (20, 100, 10), 256, 2, options.seconds, overrides=("parallel.assignment=all",)
            )
            data, prepared_s = prepared(bench, rows, Path(options.cache or temporary))
            watch = MemoryWatch()
            found = timed(replace(bench, data=data), options.rounds, ray, watch)
            now = (found["step_us"], watch.most_bytes / 1e6)
            first = first or now
            cells = [text for a, b in zip(now, first, strict=True) for text in against(a, b)]
            table.row(f"{rows:,}", prepared_s, *cells, phases(found))


def against(value: float, first: float) -> tuple[str, str, str]:
    """A value, how many times the first it is, and whether that is flat."""
    times = value / first if first else 1.0
    return f"{value:.0f}", f"{times:.2f}", mark(is_reached=times <= 1 + FLAT)


def prepared(bench: Bench, rows: int, cache: Path) -> tuple[Path, str]:
    """The rows in shards, from `cache` if it has them, and how long preparing them took."""
    data = cache.absolute() / f"rows-{rows}"
    if (data / "manifest.json").exists():
        return data, "kept"
    cache.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    prepare_synthetic(bench, rows, data)
    return data, f"{time.monotonic() - started:.1f}"


def start_up(options: argparse.Namespace) -> None:
    """From the command to its first step."""
    table = Table("Start-up, whole commands", "what", "seconds", "all of them")
    with tempfile.TemporaryDirectory() as directory:
        here = Path(directory)
        call(here, "init", "digits")
        one_step = ("train", "digits.toml", "--set", "train.steps=1", "--workers")
        call(here, *one_step, "0")  # Prepares the rows.
        todo: list[tuple[str, Callable[[], float]]] = [
            ("`distsgd --help`", lambda: call(here, "--help")),
            ("a run of one step, `--workers 0`, start to end", lambda: call(here, *one_step, "0")),
            ("a run of one step, `--workers 2`, start to end", lambda: call(here, *one_step, "2")),
            ("of which Ray's own start", lambda: examine_ray()["ray_start_s"]),
        ]
        for what, measure in todo:
            times = [measure() for _ in range(options.rounds)]
            every = ", ".join(f"{seconds:.2f}" for seconds in times)
            table.row(what, f"{statistics.median(times):.2f}", every)


def call(directory: Path, *arguments: str) -> float:
    """Seconds a command takes."""
    started = time.monotonic()
    subprocess.run(
        [COMMAND, *arguments],
        cwd=directory,
        env={**os.environ, "HOME": str(directory)},  # A cache of its own.
        check=True,
        capture_output=True,
        timeout=120,
    )
    return time.monotonic() - started


PARTS = {
    "workers": over_workers,
    "parameters": over_parameters,
    "rows": over_rows,
    "start": start_up,
}


def main() -> None:
    """Run the parts that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="runs of each figure")
    parser.add_argument("--seconds", type=float, default=1.0, help="of each timing over rows")
    parser.add_argument("--workers", type=int, nargs="+", default=list(range(1, MOST_WORKERS + 1)))
    parser.add_argument("--cache", help="folder that keeps prepared rows for the next time")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    options = parser.parse_args()
    without_inherited_kernel()
    print(f"{platform.platform()}, Python {platform.python_version()}, {options.rounds} rounds")
    for part in options.parts:
        started = time.monotonic()
        PARTS[part](options)
        print(f"\n{part}: {time.monotonic() - started:.0f} s", flush=True)


if __name__ == "__main__":
    main()
