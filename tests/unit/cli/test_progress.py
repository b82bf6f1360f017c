"""What is shown while training: the right lines at the right times."""

import io
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from distsgd.cli.terminal.messages import can_redraw
from distsgd.cli.terminal.progress import (
    EVALUATION_EVERY_S,
    PLAIN_EVERY_S,
    Live,
    Plain,
    Reporter,
    progress_line,
    reporter,
)
from distsgd.run.progress import PREPARING_EVERY_S, PreparingWatch, rows_done


def at(step: int, **known: Any) -> Any:
    """Progress at `step` of 100."""
    values: dict[str, Any] = {
        "step": step,
        "total_steps": 100,
        "epoch": step / 10,
        "total_epochs": 10.0,
        "train_loss": 0.5,
        "test_loss": None,
        "test_accuracy": None,
        "samples_per_s": 12345.6,
        "seconds_left": 4.2,
        "num_workers": 2,
        "target": None,
    }
    return SimpleNamespace(**(values | known))


@pytest.mark.parametrize(
    ("environment", "can"),
    [
        ({"TERM": "xterm"}, True),
        ({"TERM": "xterm", "NO_COLOR": ""}, True),
        ({"TERM": "xterm", "NO_COLOR": "1"}, False),
        ({"TERM": "dumb"}, False),
        ({"TERM": "unknown"}, False),
        ({"TERM": ""}, False),
    ],
)
def test_only_terminals_that_can_are_drawn_again(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, *, can: bool
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert can_redraw(Console(force_terminal=True)) == can
    assert not can_redraw(Console(file=io.StringIO()))


def test_line_tells_all_that_is_known() -> None:
    line = progress_line(at(20, test_loss=0.25, test_accuracy=0.975))
    assert line == (
        "step 20/100  epoch 2.0/10  4.2 s left"
        "  loss 0.5000  test 0.2500  accuracy 0.9750  12,346 samples/s"
    )


def test_time_left_is_the_most_where_a_target_may_end_it() -> None:
    line = progress_line(at(20, target="test_loss <= 0.1"))
    assert line.startswith("step 20/100  epoch 2.0/10  at most 4.2 s left  loss")


def test_line_leaves_out_what_is_not_known() -> None:
    line = progress_line(
        at(0, total_steps=None, total_epochs=None, train_loss=None, seconds_left=None)
    )
    assert line == "step 0  epoch 0.0  loss -  12,346 samples/s"


def test_plain_reporter_prints_evaluations_pauses_and_the_end() -> None:
    screen = Console(file=io.StringIO(), width=200)
    now_s = 0.0
    plain = Plain(screen, clock=lambda: now_s)
    with plain:
        plain.message("cache [made]")
        plain.progress(at(1))
        plain.progress(at(2, test_accuracy=0.5))
        now_s = EVALUATION_EVERY_S
        plain.progress(at(3, test_accuracy=0.5))
        now_s += PLAIN_EVERY_S
        plain.progress(at(4, test_accuracy=0.5))
        plain.progress(at(5, test_accuracy=0.5))
        plain.progress(at(100, test_accuracy=0.5))
        plain.progress(at(100, test_accuracy=0.5))
    assert isinstance(screen.file, io.StringIO)
    lines = screen.file.getvalue().splitlines()
    assert lines[0] == "cache [made]"
    assert [line.split("  ")[0] for line in lines[1:]] == [
        "step 3/100",
        "step 4/100",
        "step 100/100",
    ]


def test_live_display_shows_the_line_and_messages_above_it() -> None:
    screen = Console(file=io.StringIO(), width=80, force_terminal=True)
    live = Live(screen)
    with live:
        live.message("cache [made]")
        live.progress(at(20, test_loss=0.25, test_accuracy=0.975))
        live.progress(at(30, total_steps=None))
        live.progress(at(40, total_steps=None, total_epochs=None, test_loss=1.0))
    assert isinstance(screen.file, io.StringIO)
    shown = screen.file.getvalue()
    assert "cache [made]" in shown
    assert "step 40" in shown
    assert "12,346 samples/s" in shown


def test_quiet_reporter_shows_nothing(capsys: Any) -> None:
    with reporter(quiet=True) as quiet:
        quiet.message("a message")
        quiet.progress(at(1, test_accuracy=0.5))
    assert type(quiet) is Reporter
    assert tuple(capsys.readouterr()) == ("", "")


def test_reporter_is_plain_where_there_is_no_terminal(capsys: Any) -> None:
    with reporter(quiet=False) as shown:
        shown.message("a message")
    assert isinstance(shown, Plain)
    assert tuple(capsys.readouterr()) == ("", "a message\n")


def test_what_comes_before_steps_is_said_now_and_then() -> None:
    screen = Console(file=io.StringIO(), width=200)
    now_s = 0.0
    plain = Plain(screen, clock=lambda: now_s)
    said: list[str] = []
    watch = PreparingWatch(said.append, clock=lambda: now_s)
    for done in range(0, 60_000, 1_000):
        now_s += 1.0
        plain.doing(rows_done("reading", done, 60_000))
        watch("reading", done, None)
    assert isinstance(screen.file, io.StringIO)
    lines = screen.file.getvalue().splitlines()
    assert lines[0] == "reading: 4,000 of 60,000 rows"
    assert len(lines) == 60 / PLAIN_EVERY_S
    assert said[0] == "reading: 9,000 rows"
    assert len(said) == 60 / PREPARING_EVERY_S
