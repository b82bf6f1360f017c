"""What an observer is told, of which process, and what becomes of what it says. No Ray."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distsgd import Callback, Run, TrainConfig, Trainer
from distsgd.base.named import Named, name_of
from distsgd.errors import ConfigError
from distsgd.parallel.messages import ComputeRequest, RequestKind
from distsgd.parallel.observer import OBSERVER, Observer, ObserverContext, make_observer
from distsgd.parallel.server.server import ParameterServer
from distsgd.store.run_directory import RunDirectory
from tests.fakes import FakeWorker
from tests.unit.parallel.server.test_server import SAMPLER, TOTAL_STEPS, new_run, server_spec

__all__ = ["new_run"]
SEEN: list[tuple[str, str, int]] = []


class Watcher(Observer):
    """Remembers in `SEEN` what it is told; raises at step `fails_at`."""

    def __init__(self, context: ObserverContext, fails_at: int = -1) -> None:
        self._context, self._fails_at = context, fails_at

    def on_phase(self, phase: str, step: int) -> None:
        SEEN.append((self._context.role, phase, step))
        if phase == "before_update" and step == self._fails_at:
            raise ZeroDivisionError("asked to fail")

    def summary(self) -> Mapping[str, Any]:
        return {"seen": len(SEEN), "steps": "never over the run's own"}

    def report(self) -> str:
        return "it was watched"


NAMED = Named(f"{__name__}:Watcher")


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    SEEN.clear()
    yield
    SEEN.clear()


def test_server_tells_its_phases_in_order_and_writes_what_the_observer_says(
    new_run: Callable[[], Path],
) -> None:
    assert name_of(Watcher) == NAMED.name
    path = new_run()
    spec = replace(server_spec(path), observer=NAMED)
    server = ParameterServer(spec, lambda asked: FakeWorker(asked.sampler))
    server.train()
    epoch = SAMPLER.steps_per_epoch
    expected = []
    for step in range(TOTAL_STEPS):
        expected += [("server", "before_update", step), ("server", "after_update", step + 1)]
        if (step + 1) % epoch == 0:
            expected.append(("server", "during_evaluation", step + 1))
    expected.append(("server", "during_evaluation", TOTAL_STEPS))
    assert expected == SEEN
    result = json.loads(RunDirectory.open(path).result_path.read_text())
    assert (result["seen"], result["steps"]) == (len(SEEN), TOTAL_STEPS)
    assert server.status().messages[-1] == "it was watched"


def test_checkpoint_is_told_before_it_is_written(new_run: Callable[[], Path]) -> None:
    spec = server_spec(new_run())
    log = replace(spec.record, checkpoint_every_steps=2)
    spec = replace(spec, record=log, observer=NAMED)
    ParameterServer(spec, lambda asked: FakeWorker(asked.sampler)).train()
    told = [step for _, phase, step in SEEN if phase == "during_checkpoint"]
    assert told == list(range(2, TOTAL_STEPS + 1, 2))


def test_error_of_an_observer_ends_the_run(new_run: Callable[[], Path]) -> None:
    spec = replace(server_spec(new_run()), observer=Named(NAMED.name, {"fails_at": 2}))
    with pytest.raises(ZeroDivisionError, match="asked to fail"):
        ParameterServer(spec, lambda asked: FakeWorker(asked.sampler)).train()
    assert SEEN[-1] == ("server", "before_update", 2)


def test_what_is_no_observer_is_refused() -> None:
    context = ObserverContext(role="driver", run=Path("run"))
    with pytest.raises(ConfigError, match=r'"builtins:id", which is a .*must be an Observer'):
        make_observer(Named("builtins:id"), context)


def test_worker_tells_its_phases_around_each_request() -> None:
    context = ObserverContext(role="worker", run=Path("run"), worker=0)
    worker = FakeWorker(SAMPLER, on_phase=NAMED.make(OBSERVER, context).on_phase)
    worker.attach(np.zeros(4, np.float32), np.zeros((8, 4), np.float32))
    for step, kind in enumerate((RequestKind.GRADIENT, RequestKind.LOSS, RequestKind.EVALUATE)):
        worker.compute(ComputeRequest(0, kind, step, 0, 1, 0, 0))
    assert [(phase, step) for _, phase, step in SEEN] == [
        ("before_read", 0),
        ("after_compute", 0),
        ("before_read", 1),
        ("after_compute", 1),
        ("during_evaluation", 2),
        ("after_evaluation", 2),
    ]


def test_run_has_an_observer_in_driver_and_server_and_its_verification_has_none(
    tmp_path: Path,
) -> None:
    config = TrainConfig.from_dict(
        {
            "model": {"layers": [{"type": "dense", "units": 1}], "loss": "squared_error"},
            "train": {"steps": 5},
            "batch": {"size": 4},
            "parallel": {"workers": 0, "observer": NAMED.name},
        }
    )
    rows = np.arange(16.0).reshape(8, 2), np.arange(8.0)
    said: list[str] = []
    callbacks = [Callback(on_message=said.append)]
    run = Trainer(config, data=rows, run_dir=tmp_path / "run", callbacks=callbacks).fit()
    assert {(role, phase) for role, phase, _ in SEEN} == {
        ("driver", "on_status"),
        ("server", "before_update"),
        ("server", "after_update"),
    }
    assert run.metrics["seen"] > 0
    assert "it was watched" in said
    SEEN.clear()
    assert run.verify().steps == 5
    assert SEEN == []


def test_run_is_read_where_the_module_of_its_observer_is_gone(tmp_path: Path) -> None:
    config = TrainConfig.from_dict(
        {
            "model": {"layers": [{"type": "dense", "units": 1}], "loss": "squared_error"},
            "train": {"steps": 1},
            "parallel": {"workers": 0, "observer": NAMED.name},
            "batch": {"size": 4},
        }
    )
    rows = np.arange(16.0).reshape(8, 2), np.arange(8.0)
    run = Trainer(config, data=rows, run_dir=tmp_path / "run").fit().path
    recorded = run / "config.json"
    recorded.write_text(recorded.read_text().replace(NAMED.name, "gone:Watcher"))
    assert "gone:Watcher" in recorded.read_text()
    assert Run.open(run).verify().steps == 1
