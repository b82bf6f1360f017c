"""A run publishes through an outage of its storage, and says so once."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from distsgd.base.leases import LEASE_S
from distsgd.base.locations import Location
from distsgd.errors import PublishError
from distsgd.store.publisher import Publisher
from distsgd.store.remote_run import RemoteRun
from distsgd.store.run_directory import RunDirectory
from tests.storage.proxy import FaultProxy


@pytest.fixture
def run(bucket: Location) -> Iterator[RunDirectory]:
    """A run at its beginning, which this process has."""
    run = RunDirectory.create(bucket / "run")
    run.write_json(run.config_path, {})
    run.begin()
    with RunDirectory.held(bucket / "run", 0.0, take_over=False, session="") as held:
        yield held


def published(run: RunDirectory) -> set[str]:
    assert isinstance(run.place, Location)
    pointer = RemoteRun(run.place).look()
    assert pointer is not None
    return set(pointer.files)


def write(run: RunDirectory, step: int) -> str:
    name = f"checkpoints/step-{step}"
    (run.path / name).write_text("w")
    return name


def test_checkpoints_of_an_outage_are_published_with_the_next_one_and_it_is_said_once(
    run: RunDirectory, proxy: FaultProxy
) -> None:
    said: list[str] = []
    publisher = Publisher(run, said.append)
    names = {"config.json"}
    proxy.refusals = 1000
    for step in (1, 2):
        names.add(write(run, step))
        publisher.at_checkpoint(step)
    (warning,) = said
    assert warning.startswith(f"WARNING: {run.place}/")
    assert "the run trains on, and the checkpoint of step 1 is published with the next" in warning
    proxy.refusals = 0
    assert published(run) == {"config.json"}
    names.add(write(run, 3))
    publisher.at_checkpoint(3)
    assert published(run) == names
    assert said[1:] == [f"{run.place} is published again, up to step 3"]
    publisher.at_checkpoint(3)
    assert len(said) == 2


class Time:
    """Seconds that pass only where they are waited for; at `ends_at` the outage ends."""

    def __init__(self, proxy: FaultProxy, ends_at: float) -> None:
        self.now_s, self._proxy, self._ends_at = 0.0, proxy, ends_at
        proxy.refusals = 1000

    def clock(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += max(seconds, LEASE_S / 4)
        if self.now_s >= self._ends_at:
            self._proxy.refusals = 0


def test_end_is_tried_again_until_the_storage_answers(run: RunDirectory, proxy: FaultProxy) -> None:
    time, name = Time(proxy, LEASE_S / 2), write(run, 1)
    Publisher(run, print, clock=time.clock, sleep=time.sleep).at_end()
    assert name in published(run)


def test_end_that_cannot_be_published_is_an_error_that_says_how_to_go_on(
    run: RunDirectory, proxy: FaultProxy
) -> None:
    time = Time(proxy, 10 * LEASE_S)
    write(run, 1)
    publisher = Publisher(run, print, clock=time.clock, sleep=time.sleep)
    with pytest.raises(PublishError, match=rf"within 30 s \(.*run_dir=\"{run.place}\"\)") as caught:
        publisher.at_end()
    assert caught.value.exit_code == 4
    assert time.now_s >= LEASE_S
    proxy.refusals = 0
    assert published(run) == {"config.json"}
