"""What faults cost: a killed worker, a killed server, a slow worker, checkpoints, a killed run.

Real runs on a Ray of their own, with injected faults, read from what they leave: history, log of
faults, messages. Prints one line a figure, with its goal; takes about ten minutes. Give letters to
take only some: python scripts/bench/faults.py a c
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise, product
from pathlib import Path
from statistics import median
from typing import NamedTuple

from plain import without_inherited_kernel

from distsgd.errors import TrainingInterrupted
from distsgd.lab.bench import Bench, synthetic
from distsgd.lab.faults.injection import overrides as injected
from distsgd.lab.faults.log import FILE, FaultLog
from distsgd.lab.processes import marked_processes
from distsgd.run.callbacks import Callback
from distsgd.run.progress import Progress
from distsgd.run.trainer import Trainer
from distsgd.store.logs import read_history

SMALL, MIDDLE, LARGE = (784, 128, 10), (784, 512, 512, 10), (784, 2800, 2800, 10)
SLOW_FROM, SLOW_TO = 300, 2000  # Steps.
MOST_WAIT_S = 120.0
CHECKPOINTS_S = 95.0  # Three checkpoints at the default interval of 30 s.
MARK = "DISTSGD_BENCH_FAULTS"
BACK = re.compile(r"the server is back ([\d.]+) s after its first line")


class Figure(NamedTuple):
    """One line of the table."""

    what: str
    found: str
    goal: str


@dataclass
class Run:
    """What a run left: when each step ended, the faults that were done, what was said and when."""

    ends_s: dict[int, float] = field(default_factory=dict)
    faults: list[dict[str, float]] = field(default_factory=list)
    said: list[tuple[float, str]] = field(default_factory=list)
    saved: list[int] = field(default_factory=list)  # Steps with a checkpoint.

    def took_s(self, step: int) -> float:
        """Seconds of the step that led to `step`."""
        return self.ends_s[step] - self.ends_s[step - 1]

    @property
    def lasted_s(self) -> float:
        """From the first step to the last."""
        return max(self.ends_s.values()) - min(self.ends_s.values())

    @property
    def usual_s(self) -> float:
        """The median step."""
        return median(b - a for a, b in pairwise(self.ends_s.values()))


def train(
    layers: tuple[int, ...],
    batch: int,
    workers: int,
    *overrides: str,
    faults: tuple[str, ...] = (),
    most_s: float = float("inf"),
) -> Run:
    """Make a run, or as much of it as `most_s` seconds allow."""
    found = Run()
    bench = Bench(layers, batch, workers, 0.0, overrides=(*overrides, *injected(faults)))
    with tempfile.TemporaryDirectory(prefix="distsgd-bench-") as directory:
        run = Path(directory) / "run"

        def stop_in_time(_: Progress) -> None:
            if time.monotonic() > until:
                trainer.request_stop()

        def keep(message: str) -> None:
            found.said.append((time.time(), message))

        trainer = Trainer(
            bench.config(),
            data=synthetic(max(8192, 2 * batch), layers),
            run_dir=run,
            callbacks=[Callback(on_progress=stop_in_time, on_message=keep)],
        )
        until = time.monotonic() + most_s
        with (
            contextlib.redirect_stdout(sys.stderr),  # Ray prints a paragraph for every death.
            contextlib.suppress(TrainingInterrupted),
        ):
            trainer.fit()
        rows = read_history(run / "history").to_pylist()
        found.ends_s = {row["step"]: row["seconds"] for row in rows}
        found.faults = FaultLog(run / FILE).read()
        found.saved = sorted(int(it.name[5:]) for it in (run / "checkpoints").glob("step-*"))
    return found


def killed_worker() -> Iterator[Figure]:
    """One of three workers is killed, again and again; its step includes the redone blocks."""
    every = 300
    run = train(
        MIDDLE,
        256,
        3,
        "parallel.assignment=all",
        f"train.steps={26 * every}",
        faults=(f"kill worker every {every} steps",),
    )
    usual_s, hit = run.usual_s, {int(it["step"]) + 1 for it in run.faults}
    extra_ms = sorted((run.took_s(step) - usual_s) * 1e3 for step in hit)
    yield Figure(
        f"a killed worker's step takes longer by ({len(hit)} kills)",
        f"median {median(extra_ms):.1f} ms, at most {extra_ms[-1]:.1f} ms",
        "100 ms",
    )
    # A busy machine delays steps that nothing befell as well.
    others_ms = sorted((run.took_s(step) - usual_s) * 1e3 for step in run.ends_s.keys() - hit - {1})
    yield Figure(
        f"and one in a hundred of the others, of {usual_s * 1e3:.1f} ms each",
        f"{others_ms[len(others_ms) * 99 // 100]:.1f} ms or more",
        "",
    )


def killed_server() -> Iterator[Figure]:
    """The server is killed, again and again."""
    run = train(
        SMALL,
        64,
        2,
        "parallel.assignment=all",
        "train.steps=33000",
        "checkpoint.every_s=0.5",
        faults=("kill server every 3000 steps",),
    )
    back = [(when, float(it[1])) for when, said in run.said if (it := BACK.search(said))]
    own_s = [seconds for _, seconds in back]
    whole_s = [when - it["time"] for (when, _), it in zip(back, run.faults, strict=True)]
    yield Figure(
        f"a killed server trains again after its first line ({len(back)} kills)",
        f"median {median(own_s):.1f} s, at most {max(own_s):.1f} s",
        "3 s",
    )
    yield Figure(
        "and after its death", f"median {median(whole_s):.1f} s, at most {max(whole_s):.1f} s", ""
    )


def slow_worker() -> Iterator[Figure]:
    """One worker at a tenth of its speed, against the others alone."""
    for plan, workers in product(("all", "autotune"), (2, 3)):
        slowed = _rate(plan, workers, f"slow worker 0 at step {SLOW_FROM} by 10")
        others = _rate(plan, workers - 1)
        yield Figure(
            f"one of {workers} workers slow, plan {plan}: of the others alone",
            f"{slowed / others:.2f} ({slowed:.0f} of {others:.0f} steps/s)",
            "0.8",
        )


def _rate(plan: str, workers: int, *faults: str) -> float:
    """Steps a second of 256 rows."""
    settings = (f"parallel.assignment={plan}", f"train.steps={SLOW_TO}")
    run = train(MIDDLE, 256, workers, *settings, faults=faults)
    return (SLOW_TO - SLOW_FROM) / (run.ends_s[SLOW_TO] - run.ends_s[SLOW_FROM])


def checkpoints() -> Iterator[Figure]:
    """The share of the time that checkpoints take at the default interval."""
    for layers, size in ((SMALL, "100 k"), (LARGE, "10 M")):
        run = train(
            layers, 64, 0, "optimizer.type=momentum", "checkpoint.every_s=30", most_s=CHECKPOINTS_S
        )
        seconds = [run.took_s(it + 1) - run.usual_s for it in run.saved if it + 1 in run.ends_s]
        yield Figure(
            f"checkpoints every 30 s, {size} parameters",
            f"{sum(seconds) / run.lasted_s:.2%} ({max(seconds) * 1e3:.0f} ms at most)",
            "2 %",
        )


def killed_everything() -> Iterator[Figure]:
    """All processes of a run are killed at once, again and again."""
    gone_on: list[bool] = []
    with tempfile.TemporaryDirectory(prefix="distsgd-bench-") as place:
        subprocess.run([sys.executable, "-m", "distsgd", "init", "digits"], cwd=place, check=True)
        saved = Path(place) / "run" / "checkpoints"
        for _ in range(6):
            newest = _newest(saved)
            words = Path(place) / "words"
            process = _digits(place, words)
            try:
                _wait_for_checkpoint(saved, newest, process)
            finally:
                for pid in marked_processes(f"{MARK}={os.getpid()}"):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
            process.wait(MOST_WAIT_S)
            if newest:
                gone_on.append(f"continuing after step {newest}\n" in words.read_text())
    yield Figure(
        "all processes killed: continues after the newest checkpoint, every 1000 steps",
        f"{sum(gone_on)} of {len(gone_on)} times",
        "all",
    )


def _wait_for_checkpoint(saved: Path, newest: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + MOST_WAIT_S
    while _newest(saved) <= newest and process.poll() is None:
        if time.monotonic() > deadline:
            raise SystemExit(f"no checkpoint after {newest} in {MOST_WAIT_S:.0f} s")
        time.sleep(0.01)


def _digits(place: str, words: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "distsgd", "train", "digits.toml", "--run-dir", "run"]
    command += ["--workers", "2", "--resume", "auto"]
    for setting in (
        "train.epochs=100000",
        "parallel.assignment=all",
        "checkpoint.every_steps=1000",
    ):
        command += ["--set", setting]
    with words.open("wb") as stderr:
        environment = {**os.environ, MARK: str(os.getpid())}
        return subprocess.Popen(command, cwd=place, env=environment, stderr=stderr)


def _newest(saved: Path) -> int:
    return max((int(it.name[5:]) for it in saved.glob("step-*")), default=0)


FIGURES: dict[str, Callable[[], Iterator[Figure]]] = {
    "a": killed_worker,
    "b": killed_server,
    "c": slow_worker,
    "d": checkpoints,
    "e": killed_everything,
}


def main() -> None:
    """Take the figures and print the table as it comes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("which", nargs="*", choices=[*FIGURES, []], metavar="a..e")
    letters = parser.parse_args().which or FIGURES
    without_inherited_kernel()
    for letter in letters:
        for what, found, goal in FIGURES[letter]():
            print(f"({letter}) {what:75} {found:45} {goal}", flush=True)


if __name__ == "__main__":
    main()
