"""How training is shown while it runs: a live display on a terminal, plain lines elsewhere.

Everything goes to standard error. The trainer calls back from its loop, so nothing here may block.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Self

from distsgd.cli.terminal.messages import can_redraw, console, duration, number, print_line

if TYPE_CHECKING:
    from rich.console import Console

    from distsgd.run.progress import Progress

PLAIN_EVERY_S = 5.0
EVALUATION_EVERY_S = 1.0  # Small data are evaluated many times a second.


class Reporter:
    """Shows messages and progress between ``with`` and its end; this one shows nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def message(self, text: str) -> None:
        """Show one message."""

    def progress(self, now: Progress) -> None:
        """Show how far training is."""

    def doing(self, text: str) -> None:
        """Show what is being done before there are steps; often called."""


class Plain(Reporter):
    """A line for an evaluation, at most one a second, and one every few seconds between them."""

    def __init__(self, screen: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._screen, self._clock = screen, clock
        self._last_s, self._last_step = clock(), -1
        self._last_test: tuple[float | None, float | None] = (None, None)

    def message(self, text: str) -> None:
        """Print it."""
        print_line(self._screen, text)

    def progress(self, now: Progress) -> None:
        """Print it when there is a new evaluation, the end, or nothing was printed for a while."""
        test = (now.test_loss, now.test_accuracy)
        pause_s = PLAIN_EVERY_S if test == self._last_test else EVALUATION_EVERY_S
        ended = now.step == now.total_steps != self._last_step
        if ended or self._clock() - self._last_s >= pause_s:
            self._last_s, self._last_step, self._last_test = self._clock(), now.step, test
            print_line(self._screen, progress_line(now))

    def doing(self, text: str) -> None:
        """Print it when nothing was printed for a while."""
        if self._clock() - self._last_s >= PLAIN_EVERY_S:
            self._last_s = self._clock()
            print_line(self._screen, text)


class Live(Reporter):
    """A bar and two lines that are redrawn, with messages scrolling above them."""

    def __init__(self, screen: Console) -> None:
        from rich.progress import BarColumn, SpinnerColumn, TextColumn
        from rich.progress import Progress as Display

        self._display = Display(
            SpinnerColumn(),
            BarColumn(bar_width=20),
            TextColumn("{task.description}"),
            console=screen,
            transient=True,  # What it came to is said in a line of its own.
        )
        self._task = self._display.add_task("starting", total=None)

    def __enter__(self) -> Self:
        self._display.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._display.stop()

    def message(self, text: str) -> None:
        """Print it above the lines."""
        print_line(self._display.console, text)

    def progress(self, now: Progress) -> None:
        """Set the lines; the display redraws them in its own time."""
        # Without a number of steps the epochs say how far it is; without both the bar only moves.
        done, total = float(now.step), now.total_steps
        if total is None and now.total_epochs is not None:
            done, total = now.epoch * 1000, round(now.total_epochs * 1000)
        lines = f"{how_far(now)}\n{how_good(now)}"
        self._display.update(self._task, completed=done, total=total, description=lines)

    def doing(self, text: str) -> None:
        """Show it next to the spinner."""
        self._display.update(self._task, description=text)


def reporter(*, quiet: bool) -> Reporter:
    """The right one for where standard error goes."""
    if quiet:
        return Reporter()
    screen = console()
    return Live(screen) if can_redraw(screen) else Plain(screen)


def progress_line(now: Progress) -> str:
    """One line of everything: how far, how good, how fast, how long still."""
    return f"{how_far(now)}  {how_good(now)}"


def how_far(now: Progress) -> str:
    """Steps, epochs and time left; short enough for a bar and 80 columns."""
    steps = f"{now.step:,}" + (f"/{now.total_steps:,}" if now.total_steps else "")
    epochs = f"{now.epoch:.1f}" + (f"/{now.total_epochs:g}" if now.total_epochs else "")
    most = "at most " if now.target else ""
    left = "" if now.seconds_left is None else f"  {most}{duration(now.seconds_left)} left"
    return f"step {steps}  epoch {epochs}{left}"


def how_good(now: Progress) -> str:
    """Losses, accuracy and speed."""
    parts = [f"loss {number(now.train_loss)}"]
    if now.test_loss is not None:
        parts.append(f"test {number(now.test_loss)}")
    if now.test_accuracy is not None:
        parts.append(f"accuracy {number(now.test_accuracy)}")
    return "  ".join([*parts, f"{number(now.samples_per_s, 0)} samples/s"])
