"""Rows of tokens with a class at each place, learnt by a module of PyTorch from end to end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from distsgd.config import TrainConfig
from distsgd.errors import DataError
from distsgd.models import torch_model
from distsgd.run.run import Run
from distsgd.run.trainer import Trainer

torch = pytest.importorskip("torch", reason="needs the extra 'torch'")

CHANCE = np.random.default_rng(2)
TOKENS = CHANCE.integers(0, 5, (120, 6))
NEXT = (TOKENS * 2 + 1) % 5 * 10  # Classes 0, 10, ..., 40, each a function of the token.


@torch_model
def make(inputs: int, outputs: int, levels: int) -> Any:
    """Each token's class from its embedding."""
    assert (inputs, outputs, levels) == (6, 5, 5)

    class Net(torch.nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.embedding = torch.nn.Embedding(levels, 8)
            self.out = torch.nn.Linear(8, outputs)

        def forward(self, x: Any) -> Any:
            return self.out(self.embedding(x.long()))

    def sample_losses(out: Any, target: Any) -> Any:
        losses = torch.nn.functional.cross_entropy(out.mT, target, reduction="none")
        return losses.sum(dim=1)

    return Net(), sample_losses, lambda out: out.softmax(-1)


def config(**data: Any) -> TrainConfig:
    return TrainConfig.from_dict(
        {
            "data": {"label": "next", "feature_kind": "integer", "test_fraction": 0.25} | data,
            "model": {"factory": f"{__name__}:make"},
            "optimizer": {"learning_rate": 0.3},
            "batch": {"size": 10},
            "train": {"epochs": 8, "digest_every": 1},
            "statistics": {"per_sample": False},
            "parallel": {"workers": 0, "block_rows": 16},
        }
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    path = tmp_path_factory.mktemp("tokens") / "run"
    made = config(target_shape=[6])
    return Trainer(made, data=(TOKENS, NEXT), run_dir=path).fit()


def test_places_are_learnt_and_predicted_by_their_names(run: Run) -> None:
    manifest = run.manifest
    assert (manifest.target_shape, manifest.num_levels) == ((6,), 5)
    assert manifest.class_names == (0, 10, 20, 30, 40)
    assert run.metrics["test_accuracy"] == 1.0
    held_out, new = run.evaluate(), run.evaluate((TOKENS, NEXT))
    assert (held_out.test_accuracy, held_out.rows) == (1.0, 30)
    assert (new.test_accuracy, new.rows) == (1.0, 120)
    assert np.array_equal(run.predict(TOKENS), NEXT)
    assert run.predict_proba(TOKENS).shape == (120, 6, 5)
    assert run.verify().steps == 72


def test_accuracy_is_that_of_all_places(run: Run) -> None:
    wrong = NEXT.copy()
    wrong[:, 0] = (wrong[:, 0] + 10) % 50
    assert run.evaluate((TOKENS, wrong)).test_accuracy == pytest.approx(5 / 6, abs=1e-12)


def test_files_of_lists_give_the_same_run_and_predictions(run: Run, tmp_path: Path) -> None:
    table = pa.table({"tokens": pa.array(TOKENS.tolist()), "next": pa.array(NEXT.tolist())})
    pq.write_table(table, tmp_path / "rows.parquet")
    named = config(path=str(tmp_path / "rows.parquet"))
    again = Trainer(named, run_dir=tmp_path / "run", cache_dir=tmp_path / "cache").fit()
    assert again.metrics["weights_digest"] == run.metrics["weights_digest"]
    again.write_predictions(tmp_path / "rows.parquet", tmp_path / "said.parquet")
    said = pq.read_table(tmp_path / "said.parquet")
    assert said.column_names == ["prediction", "probability", "outputs"]
    assert said["prediction"].to_pylist() == NEXT.tolist()
    assert again.evaluate(str(tmp_path / "rows.parquet")) == run.evaluate((TOKENS, NEXT))


def test_a_token_that_was_never_seen_does_not_reach_the_embedding(run: Run) -> None:
    unknown = TOKENS.copy()
    unknown[3, 2] = 5
    with pytest.raises(DataError, match=r"column 'x\[2\]', row 3: 5 is unknown; must be at most 4"):
        run.predict(unknown)


def test_axes_of_inputs_and_targets_reach_the_model(tmp_path: Path) -> None:
    x, y = CHANCE.standard_normal((40, 6)), CHANCE.standard_normal((40, 2, 3))

    def make_folded(inputs: tuple[int, ...], outputs: int) -> Any:
        assert (inputs, outputs) == ((2, 3), 6)
        net = torch.nn.Linear(3, 3)
        return net, lambda out, target: ((out - target) ** 2).sum(dim=(1, 2))

    values = config(feature_kind="number", input_shape=[2, 3])
    result = Trainer(values, data=(x, y), model=make_folded, run_dir=tmp_path / "run").fit()
    assert result.manifest.target_shape == (2, 3)
    assert result.predict(x).shape == (40, 2, 3)
    assert result.evaluate((x, y)).test_accuracy is None
