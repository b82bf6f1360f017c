"""Whoever looks on at a run in this process: messages once, no wait without an end."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from distsgd.data.sampler import Block
from distsgd.errors import WaitTimeoutError
from distsgd.parallel.launch import launch as launch_module
from distsgd.parallel.launch.launch import train_in_process
from distsgd.parallel.server.spec import Status
from distsgd.parallel.worker import BlockRows
from distsgd.store.run_directory import RunDirectory
from tests.fakes import FakeBlocks
from tests.unit.parallel.server.test_server import TOTAL_STEPS, server_spec

GO, AT_STEP_2 = threading.Event(), threading.Event()


class HeldWorker(FakeBlocks):
    """At step 2 it waits to be let go."""

    def read(self, rows: BlockRows, buffer: int) -> tuple[int, Block]:
        if rows.step == 2:
            AT_STEP_2.set()
            assert GO.wait(60)
        return super().read(rows, buffer)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    GO.clear()
    AT_STEP_2.clear()
    made = RunDirectory.create(tmp_path / "run")
    made.write_json(made.config_path, {})
    return made.path


HELD = f"{__name__}:HeldWorker"


def ended() -> bool:
    """Let the worker go, and wait for the thread that trains."""
    GO.set()
    threads = [it for it in threading.enumerate() if it.name == "distsgd-server"]
    for thread in threads:
        thread.join(60)
    return not any(thread.is_alive() for thread in threads)


def test_watch_is_told_each_message_once_and_the_end(run: Path) -> None:
    GO.set()
    train_in_process(server_spec(run), HELD, lambda _: False)
    RunDirectory(run).result_path.unlink()  # As one that was killed before it said how it ended.
    seen: list[Status] = []

    def watch(status: Status) -> bool:
        seen.append(status)
        return False

    outcome = train_in_process(server_spec(run), HELD, watch)
    assert [text for it in seen for text in it.messages] == [f"continuing after step {TOTAL_STEPS}"]
    assert (outcome.status, seen[-1].phase, seen[-1].step) == ("done", "ended", TOTAL_STEPS)


def test_step_that_does_not_end_after_an_error_of_the_watch_is_named(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch_module, "STOP_TIMEOUT_S", 0.05)

    def watch(status: Status) -> bool:  # noqa: ARG001
        if AT_STEP_2.is_set():
            raise LookupError("the screen is gone")
        return False

    with pytest.raises(WaitTimeoutError, match=r"the present step to end.*screen") as caught:
        train_in_process(server_spec(run), HELD, watch)
    assert isinstance(caught.value.__cause__, LookupError)
    assert ended()


@pytest.mark.parametrize("is_asked_before", [False, True])
def test_ctrl_c_waits_for_the_step_and_a_second_wish_to_stop_does_not(
    run: Path, *, is_asked_before: bool
) -> None:
    times: list[int] = []

    def watch(status: Status) -> bool:  # noqa: ARG001
        if not AT_STEP_2.is_set():
            return False
        times.append(1)
        if is_asked_before and len(times) == 1:
            return True
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_in_process(server_spec(run), HELD, watch)
    assert len(times) == 2
    assert ended()
