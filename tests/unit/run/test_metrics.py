"""Metrics of a run: the numbers and their text."""

from __future__ import annotations

import re

from distsgd.parallel.pool.autotuner import Phases
from distsgd.parallel.server.spec import Status
from distsgd.run.metrics import Sample, as_text, samples_of

STATUS = Status(
    phase="training",
    step=12,
    epoch=0.5,
    train_loss=0.25,
    test_loss=None,
    test_accuracy=None,
    num_samples=1000,
    seconds=2.0,
    num_workers=3,
    incarnation=1,
    phases=Phases(read=0.5),
    plan=(0, 1, 2),
    is_settled=True,
    num_messages=0,
    messages=(),
)
_LINE = re.compile(r'distsgd_\w+\{run="[^"\n]*"(,phase="\w+")?\} (NaN|[+-]Inf|[-+.0-9e]+)')


def test_numbers_are_those_of_the_status() -> None:
    found = {sample.name + sample.phase: sample.value for sample in samples_of(STATUS)}
    assert found["step"] == 12
    assert found["samples_per_second"] == 500.0
    assert found["workers"] == 3
    assert found["server_restarts"] == 1
    assert found["phase_secondsread"] == 0.5
    assert "test_loss" not in found


def test_text_is_what_prometheus_reads() -> None:
    lines = as_text("runs/a", samples_of(STATUS)).splitlines()
    for line in lines:
        assert line.startswith(("# HELP distsgd_", "# TYPE distsgd_")) or _LINE.fullmatch(line)
    headings = [line for line in lines if line.startswith("# TYPE")]
    assert len(headings) == len(set(headings))


def test_labels_and_numbers_without_end_are_written_by_the_rules() -> None:
    text = as_text('a"b\\c\nd', iter([Sample("train_loss", float("inf"))]))
    assert text.splitlines()[-1] == r'distsgd_train_loss{run="a\"b\\c\nd"} +Inf'
