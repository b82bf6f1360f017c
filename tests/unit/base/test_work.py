"""Work by name: how it fails, and that a request to end is heard whenever it comes."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import pytest

from distsgd.base.work import Stop, do_work
from distsgd.errors import ConfigError

HERE = "works_of_this_test"


def finish(task: Mapping[str, Any], stop: Stop) -> None:
    stop.taken_by(lambda: task["seen"].append("asked"))


def refuse(task: Mapping[str, Any], stop: Stop) -> None:
    del task, stop
    raise ConfigError(["a is 1;\n must be 2", "b is 3"])


def fail(task: Mapping[str, Any], stop: Stop) -> None:
    raise ValueError(task, stop)


@pytest.fixture(autouse=True)
def _named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, HERE, sys.modules[__name__])


def test_failure_is_a_line_where_it_is_ours() -> None:
    assert do_work(f"{HERE}:finish", {}, Stop()) == ""
    assert do_work(f"{HERE}:refuse", {}, Stop()) == "a is 1; must be 2 b is 3"
    assert f'"{HERE}:absent" cannot be found' in do_work(f"{HERE}:absent", {}, Stop())
    with pytest.raises(ValueError, match="Stop"):
        do_work(f"{HERE}:fail", {}, Stop())


def test_request_to_end_is_heard_before_the_work_and_while_it_is_done() -> None:
    early, late, seen = Stop(), Stop(), list[str]()
    early.ask()
    do_work(f"{HERE}:finish", {"seen": seen}, early)
    assert seen == ["asked"]
    do_work(f"{HERE}:finish", {"seen": seen}, late)
    assert seen == ["asked"]
    late.ask()
    assert seen == ["asked", "asked"]
    assert early.is_asked
    assert late.is_asked
