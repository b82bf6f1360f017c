"""A data source of one's own: it trains as its rows do in a table, or is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from distsgd.config import TrainConfig
from distsgd.data.prepare import columns
from distsgd.errors import DataError
from distsgd.run.trainer import Trainer

X = np.arange(12.0).reshape(6, 2) % 5
TABLE = pa.table({"a": X[:, 0], "b": X[:, 1], "kind": [0, 1, 2, 0, 1, 2]})
TEXT = pa.table({"a": X[:, 0], "b": X[:, 1], "kind": ["u", "v", "w"] * 2})
CONFIG = TrainConfig.from_dict(
    {
        "data": {"label": "kind"},
        "model": {"layers": [{"type": "dense", "units": 3}], "loss": "softmax_cross_entropy"},
        "batch": {"size": 2},
        "train": {"steps": 3},
        "parallel": {"workers": 0},
    }
)


class OwnSource:
    """A source of the user's own; `changes` are what it does otherwise than the protocol says."""

    name, num_bytes, num_rows, schema = "mine", 0, 6, TABLE.schema

    def __init__(self, **changes: Any) -> None:
        vars(self).update(changes)

    def batches(self, columns: Any) -> Any:  # noqa: ARG002 -- it may give more.
        yield from TABLE.to_batches(max_chunksize=4)

    def check_unchanged(self) -> None:
        """It never changes."""


def test_a_source_of_the_users_own_trains_as_a_table_of_its_rows(tmp_path: Path) -> None:
    own = Trainer(CONFIG, data=OwnSource(), run_dir=tmp_path / "own").fit()
    table = Trainer(CONFIG, data=TABLE, run_dir=tmp_path / "table").fit()
    assert own.metrics["weights_digest"] == table.metrics["weights_digest"]
    assert np.array_equal(own.predict(OwnSource()), table.predict(TABLE))
    assert own.evaluate(OwnSource()) == table.evaluate(TABLE)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"name": 5}, "name is 5; must be of type str"),
        ({"schema": {"a": "float"}}, "must be of type Schema"),
        ({"num_rows": None}, "num_rows is None; must be of type int"),
        ({"num_rows": 7}, "num_rows is 7, and its batches have 6 rows"),
        ({"num_bytes": -1}, "num_bytes is -1; must be 0 or more"),
        ({"check_unchanged": None}, "has no method check_unchanged"),
        ({"batches": lambda _: [TABLE]}, "batch 0 is a Table; must be a pyarrow RecordBatch"),
        ({"batches": lambda _: TABLE.select(["a", "b"]).to_batches()}, "'kind' of batch 0 is"),
        ({"batches": lambda _: TEXT.to_batches()}, "of batch 0 is"),
        ({"check_unchanged": lambda: False}, "has changed since it was opened (check_unchanged"),
    ],
)
def test_source_that_does_not_keep_the_protocol_is_refused(
    changes: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError) as caught:
        Trainer(CONFIG, data=OwnSource(**changes), run_dir=tmp_path / "run").fit()
    assert reason in str(caught.value)
    assert "distsgd.TableSource" in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_numbers_of_numpy_are_numbers_of_rows(tmp_path: Path) -> None:
    own = OwnSource(num_rows=np.int64(6), num_bytes=np.int32(0))
    found = Trainer(CONFIG, data=own, run_dir=tmp_path / "run").fit()
    assert found.manifest.train_rows == 6


def test_class_in_place_of_an_instance_is_refused_with_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"OwnSource: is a class; must be an .*OwnSource\(\.\.\.\)"):
        Trainer(CONFIG, data=OwnSource, run_dir=tmp_path / "run").fit()


class Shuffled(OwnSource):
    """Gives its rows in another order each time; `what` is all that moves."""

    def __init__(self, *what: str) -> None:
        super().__init__()
        self._what, self._readings = what, 0

    def batches(self, columns: Any) -> Any:  # noqa: ARG002 -- it may give more.
        order = np.roll(np.arange(6), self._readings)
        table = TABLE
        for name in self._what:
            table = table.set_column(
                table.schema.get_field_index(name), name, TABLE[name].take(pa.array(order))
            )
        self._readings += 1
        yield from table.to_batches(max_chunksize=1 + self._readings)


@pytest.mark.parametrize("stratify", [False, True])
@pytest.mark.parametrize(
    ("moved", "said"), [(("a",), "features"), (("kind",), "labels"), (("a", "b", "kind"), "")]
)
def test_rows_in_another_order_at_the_next_reading_are_refused(
    moved: tuple[str, ...],
    said: str,
    stratify: bool,  # noqa: FBT001 -- of the table.
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(columns, "KEPT_BYTES", 0)
    held_out = ["data.stratify=true", "data.test_fraction=0.5"] if stratify else []
    config = CONFIG.with_overrides(held_out)
    reason = rf"mine: gave other {said}.*same order each time \(see distsgd.TableSource\)"
    with pytest.raises(DataError, match=reason):
        Trainer(config, data=Shuffled(*moved), run_dir=tmp_path / "run").fit()
    assert not list(tmp_path.iterdir())


def test_batches_of_other_lengths_at_the_next_reading_are_the_same_rows(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(columns, "KEPT_BYTES", 0)
    config = CONFIG.with_overrides(["data.stratify=true", "data.test_fraction=0.5"])
    found = Trainer(config, data=Shuffled(), run_dir=tmp_path / "run").fit()
    assert found.manifest.train_rows == 3
