"""How a run ended, as it is written down and found again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from distsgd.errors import RunError
from distsgd.parallel.messages import ComputeRequest
from distsgd.parallel.server.server import ParameterServer
from distsgd.parallel.server.spec import KEYS, Outcome
from distsgd.store.run_directory import RunDirectory
from tests.fakes import FakeWorker
from tests.unit.parallel.server.test_server import new_run, server_spec, train

__all__ = ["new_run"]


def test_run_that_another_finished_meanwhile_is_left_as_it_is(new_run: Callable[[], Path]) -> None:
    path = new_run()
    first = train(server_spec(path))
    result = RunDirectory.open(path).result_path
    written = result.read_bytes()
    computed: list[ComputeRequest] = []
    server = ParameterServer(
        server_spec(path), lambda asked: FakeWorker(asked.sampler, computed.append)
    )
    assert server.train() == first
    assert not computed
    assert server.status().messages == (f"{path} is finished; nothing to do",)
    assert result.read_bytes() == written


def test_result_is_written_before_the_run_is_let_go_of(new_run: Callable[[], Path]) -> None:
    path = new_run()
    outcome = train(server_spec(path))
    metrics = json.loads(RunDirectory.open(path).result_path.read_text())
    assert Outcome(**metrics) == outcome
    assert set(KEYS) == metrics.keys()


def test_damaged_result_is_named_and_not_trained_over(new_run: Callable[[], Path]) -> None:
    path = new_run()
    RunDirectory.open(path).result_path.write_text('{"status": "done"}')
    with pytest.raises(RunError, match=r"result\.json: has no run; restore it"):
        train(server_spec(path))


def test_result_of_an_earlier_session_is_gone_while_the_run_goes_on(
    new_run: Callable[[], Path],
) -> None:
    path = new_run()
    result = RunDirectory.open(path).result_path
    result.write_text("{}")
    seen: list[bool] = []
    train(server_spec(path), before=lambda _: seen.append(result.exists()))
    assert seen
    assert not any(seen)
