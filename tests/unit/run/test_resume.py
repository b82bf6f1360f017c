"""A run under another numerics profile: refused, or taken and written down."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distsgd.config import TrainConfig
from distsgd.errors import CheckpointError, NumericsError, RunError
from distsgd.parallel.server.step_runner import StepView
from distsgd.run.callbacks import Callback
from distsgd.run.resume import ACCEPTED
from distsgd.run.run import Run
from distsgd.run.trainer import Trainer

STEPS = 12
CONFIG = TrainConfig.from_dict(
    {
        "data": {"path": "rows", "label": "y"},
        "model": {"layers": [{"type": "dense", "units": 1}], "loss": "quadratic"},
        "batch": {"size": 2},
        "train": {"steps": STEPS, "digest_every": 1},
        "parallel": {"workers": 0},
        "checkpoint": {"every_steps": 1},
    }
)
ROWS = np.arange(16.0, dtype=np.float32).reshape(8, 2), np.arange(8.0, dtype=np.float32)


class _StoppedError(Exception):
    """Ends a run at a given step."""


def trainer(run: Path, **hooks: Any) -> Trainer:
    return Trainer(CONFIG, data=ROWS, run_dir=run, callbacks=[Callback(**hooks)])


def change(run: Path, **values: Any) -> None:
    file = run / "environment.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def environment(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "environment.json").read_text())
    return found


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """A run that was stopped after a few steps, as if on another machine."""
    run = tmp_path / "run"

    def stop(view: StepView) -> None:
        if view.step == 3:
            raise _StoppedError

    with pytest.raises(_StoppedError):
        trainer(run, on_step=stop).fit()
    profile = environment(run)["numerics"]
    change(run, numerics=profile | {"probe": "other bits", "kernel": "Elsewhere"})
    return run


def test_other_numerics_are_refused_unless_told(elsewhere: Path) -> None:
    before = environment(elsewhere)
    with pytest.raises(NumericsError, match=r"kernel Elsewhere \(now .*--accept-numerics"):
        trainer(elsewhere).fit(resume="auto")
    with pytest.raises(NumericsError, match="kernel Elsewhere"):
        Run.open(elsewhere).verify()
    assert environment(elsewhere) == before


def test_accepted_numerics_are_said_and_written_down_once(elsewhere: Path) -> None:
    profile, said = environment(elsewhere)["numerics"], list[str]()

    def stop(view: StepView) -> None:
        if view.step == 6:
            raise _StoppedError

    first = trainer(elsewhere, on_message=said.append, on_step=stop)
    with pytest.raises(_StoppedError):
        first.fit(resume="auto", accept_numerics=True)
    assert [text for text in said if "WARNING" in text and "kernel Elsewhere" in text]
    found = environment(elsewhere)
    assert found["numerics"] == profile
    (entry,) = found[ACCEPTED]
    assert entry["after_step"] >= 1
    assert entry["numerics"]["probe"] != "other bits"
    # From now on this is the profile of the run: nothing needs to be accepted again.
    result = trainer(elsewhere).fit(resume="auto")
    assert result.metrics["steps"] == STEPS
    assert environment(elsewhere)[ACCEPTED] == [entry]


def test_verify_of_accepted_numerics_says_why_a_record_may_differ(elsewhere: Path) -> None:
    trainer(elsewhere).fit(resume="auto", accept_numerics=True)
    said: list[str] = []
    # Only the profile's name was changed, not the arithmetic: all holds.
    assert Run.open(elsewhere).verify(accept_numerics=True, on_message=said.append).steps == STEPS
    assert [text for text in said if "made again under another" in text]
    assert [text for text in said if "was resumed under another" in text]


def test_damaged_record_of_numerics_is_named(elsewhere: Path) -> None:
    change(elsewhere, **{ACCEPTED: {"after_step": 1}})
    with pytest.raises(RunError, match=ACCEPTED):
        trainer(elsewhere).fit(resume="auto", accept_numerics=True)
    change(elsewhere, **{ACCEPTED: [], "numerics": 3})
    with pytest.raises(RunError, match="numerics is no object"):
        Run.open(elsewhere).verify(accept_numerics=True)


def test_wrong_record_under_accepted_numerics_names_the_profile(elsewhere: Path) -> None:
    trainer(elsewhere).fit(resume="auto", accept_numerics=True)
    (elsewhere / "digests.jsonl").unlink()
    with pytest.raises(CheckpointError, match=r"step 1 is the first.*was resumed under another"):
        Run.open(elsewhere).verify(accept_numerics=True)
