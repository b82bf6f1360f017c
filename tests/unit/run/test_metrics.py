"""Metrics of a run: the text, how often it is written, and that it never ends a run."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from distsgd.parallel.pool.autotuner import Phases
from distsgd.parallel.server.spec import Status
from distsgd.run.metrics import MetricsWatch, Sample, as_text, samples_of

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


def test_file_is_written_once_a_second_and_at_the_end(tmp_path: Path) -> None:
    now_s, path = 0.0, tmp_path / "metrics.prom"
    watch = MetricsWatch("a", path, lambda _: None, lambda: now_s)
    watch(replace(STATUS, num_samples=0))
    watch(replace(STATUS, num_samples=0, phase="ended"))
    assert not path.exists()
    watch(STATUS)
    now_s = 0.9
    watch(replace(STATUS, step=13))
    assert 'distsgd_step{run="a"} 12\n' in path.read_text()
    now_s = 1.0
    watch(replace(STATUS, step=14))
    assert 'distsgd_step{run="a"} 14\n' in path.read_text()
    watch(replace(STATUS, step=15, phase="ended"))
    assert 'distsgd_step{run="a"} 15\n' in path.read_text()
    assert [entry.name for entry in tmp_path.iterdir()] == ["metrics.prom"]


def test_file_that_cannot_be_written_is_said_once_and_ends_nothing(tmp_path: Path) -> None:
    now_s, said = 0.0, list[str]()
    watch = MetricsWatch("a", tmp_path / "gone" / "metrics.prom", said.append, lambda: now_s)
    watch(STATUS)
    now_s = 5.0
    watch(STATUS)
    assert len(said) == 1
    assert "is not written any more: No such file" in said[0]
