"""Every rule, and rules and samplers of a user's own by name: one digest with any workers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distsgd.base.arrays import Array
from distsgd.config import TrainConfig
from distsgd.errors import ConfigError
from distsgd.optim.rules import RULES
from distsgd.run.trainer import Trainer
from distsgd.store.checkpoint import CheckpointStore
from distsgd.store.logs import read_history
from tests.integration.pools import server_spec, train_with_threads

SIGN, SPSA = "tests.own_parts:SignDescent", "tests.own_parts:Spsa"
PARTS: dict[str, list[str]] = {
    **{rule: [f"optimizer.type={rule}"] for rule in RULES},
    "own rule": [f"optimizer.type={SIGN}", "optimizer.options.beta=0.75"],
    "own search": [
        *(f"optimizer.type={SPSA}", "optimizer.options.reach=0.05"),
        'optimizer.frozen=["layers.1.bias"]',
    ],
    "own sampler": [
        "batch.sampler=tests.own_parts:StoredOrder.of",
        "batch.sampler_options.divide_by=2",
    ],
}
COMMON = [
    *("train.steps=60", "train.epochs=1000", "parallel.assignment=all", "batch.size=90"),
    *("parallel.lanes=8", "parallel.lane_rows=4", "parallel.block_rows=7"),
    *("optimizer.learning_rate=0.005", "checkpoint.every_steps=11"),
]


@pytest.mark.parametrize("part", PARTS)
def test_any_workers_and_a_resume_give_the_same_bits_with(
    part: str, digits: TrainConfig, tmp_path: Path, cache_dir: Path
) -> None:
    config = digits.with_overrides([*COMMON, *PARTS[part]])
    alone, broken = tmp_path / "alone", tmp_path / "broken"
    digest = _train(config, alone, cache_dir, 0)
    assert _train(config, tmp_path / "several", cache_dir, 2) == digest
    _train(config, broken, cache_dir, 2, stop_after=25)
    assert _train(config, broken, cache_dir, 0) == digest
    losses = read_history(alone / "history")["train_loss"].to_pylist()
    assert np.mean(losses[-10:]) < np.mean(losses[:10])
    assert losses == read_history(broken / "history")["train_loss"].to_pylist()
    _hold_state_against(alone, broken)


def _train(
    config: TrainConfig, run: Path, cache_dir: Path, workers: int, *, stop_after: int | None = None
) -> str:
    config = config.with_overrides([f"parallel.workers={workers}"])
    spec = server_spec(config, run, cache_dir=cache_dir)
    return train_with_threads(spec, stop_after=stop_after).weights_digest


def _hold_state_against(one: Path, other: Path) -> None:
    """The state of the rule at the end is the same bits too."""
    states = []
    for run in (one, other):
        found = CheckpointStore(run / "checkpoints").latest(lambda _: None)
        assert found is not None
        arrays = found.arrays.get("optimizer", {})
        states.append(
            ({name: it.tobytes() for name, it in arrays.items()}, found.state["training"])
        )
    assert states[0] == states[1]


def test_frozen_weights_stay_whatever_a_search_does(
    digits: TrainConfig, tmp_path: Path, cache_dir: Path
) -> None:
    config = digits.with_overrides([*COMMON, *PARTS["own search"], "train.steps=12"])
    _train(config, tmp_path / "run", cache_dir, 0)
    found = CheckpointStore(tmp_path / "run" / "checkpoints").latest(lambda _: None)
    assert found is not None
    weights: dict[str, Array] = dict(found.arrays["weights"])
    assert not weights["layers.1.bias"].any()  # As at the beginning.
    assert weights["layers.0.bias"].all()


@pytest.mark.parametrize(
    ("optimizer", "said"),
    [
        ({"type": "no_such_module:Rule"}, '"no_such_module:Rule" cannot be found'),
        ({"type": "tests.own_parts:Nothing"}, '"tests.own_parts:Nothing" cannot be found'),
        ({"type": SIGN, "options": {"bta": 0.5}}, r"does not take the options {bta = 0.5}"),
        (
            {"type": "tests.own_parts:make_nothing"},
            "which is a function; must be a class",
        ),
        ({"type": SPSA, "clip_norm": 1.0}, "optimizer.clip_norm is set with optimizer.type"),
    ],
)
def test_rule_that_cannot_be_used_is_refused_before_rows_are_read(
    optimizer: dict[str, Any], said: str, digits: TrainConfig
) -> None:
    values = digits.to_dict() | {"optimizer": optimizer}
    values["data"]["path"] = "no/such/file.parquet"
    with pytest.raises(ConfigError) as caught:
        Trainer(TrainConfig.from_dict(values))
    assert said in caught.value.problems[0]
