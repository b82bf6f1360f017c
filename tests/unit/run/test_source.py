"""From the configuration to prepared rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from distsgd.config import TrainConfig
from distsgd.data.options import CsvSettings, PrepareOptions
from distsgd.data.prepare.prepare import prepare
from distsgd.data.tables import table_source
from distsgd.errors import ConfigError
from distsgd.run.source import prepare_options, prepared_data


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    """Rows of two features and a number, prepared."""
    columns = {"a": [1.0, 2.0], "b": [3.0, 5.0], "y": [0.5, 1.5]}
    pq.write_table(pa.table(columns), tmp_path / "rows.parquet")
    out = tmp_path / "prepared"
    prepare(tmp_path / "rows.parquet", out, options=PrepareOptions(label=("y",)))
    return out


def config(path: Path, **data: Any) -> TrainConfig:
    return TrainConfig.from_dict(
        {
            "data": {"path": str(path), "label": "y", **data},
            "model": {"layers": [{"type": "dense", "units": 1}], "loss": "quadratic"},
        }
    )


def test_prepared_data_takes_a_prepared_directory_as_it_is(prepared: Path) -> None:
    found = prepared_data(
        config(prepared, features=["a", "b"]), cache_dir=prepared, on_message=print
    )
    assert found == prepared


@pytest.mark.parametrize(
    "data", [{"features": ["a", "b"]}, {"features": ["[ab]"], "exclude": ["c*"]}]
)
def test_patterns_are_held_against_a_prepared_directory(
    prepared: Path, data: dict[str, Any]
) -> None:
    found = prepared_data(config(prepared, **data), cache_dir=prepared, on_message=print)
    assert found == prepared


def test_integers_and_shapes_of_a_prepared_directory_need_not_be_said_again(tmp_path: Path) -> None:
    rows = pa.table({"x": [[1, 2], [3, 0]], "y": [[0.5, 1.5], [2.5, 3.5]]})
    options = PrepareOptions(label=("y",), feature_kind="integer", target_shape=(2, 1))
    prepare(table_source(rows), tmp_path / "data", options=options)
    for said in ({}, {"feature_kind": "integer", "target_shape": [2, 1]}):
        found = prepared_data(
            config(tmp_path / "data", **said), cache_dir=tmp_path, on_message=print
        )
        assert found == tmp_path / "data"


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        ({"features": ["a"]}, r"data\.features is \('a',\), but .* prepared with \('a', 'b'\)"),
        ({"features": ["b*"]}, r"data\.features is \('b\*',\), but .* prepared with"),
        ({"exclude": ["a"]}, r"data\.exclude is \('a',\), but .* prepared with \('a', 'b'\)"),
        ({"test_path": "more.parquet"}, r"data\.test_path is set, but .* is prepared"),
        ({"standardise": "min_max"}, r"data\.standardise is 'min_max'"),
        ({"feature_kind": "integer"}, r"data\.feature_kind is 'integer', but .* with 'number'"),
        ({"target_shape": [1, 1]}, r"data\.target_shape is \(1, 1\), but .* prepared with \(1,\)"),
    ],
)
def test_prepared_data_refuses_what_a_prepared_directory_cannot_give(
    prepared: Path, data: dict[str, Any], problem: str
) -> None:
    with pytest.raises(ConfigError, match=problem):
        prepared_data(config(prepared, **data), cache_dir=prepared, on_message=print)


@pytest.mark.parametrize(
    ("loss", "units", "problem"),
    [
        (
            "softmax_cross_entropy",
            2,
            r'model\.loss is "softmax_cross_entropy", which takes classes',
        ),
        ("hinge", 2, r'prepared with numbers; set \[model\] loss .* such as "squared_error"'),
    ],
)
def test_a_loss_that_takes_other_labels_is_named_with_a_way_out(
    prepared: Path, loss: str, units: int, problem: str
) -> None:
    raw = config(prepared).to_dict() | {
        "model": {"layers": [{"type": "dense", "units": units}], "loss": loss}
    }
    with pytest.raises(ConfigError, match=problem) as caught:
        prepared_data(TrainConfig.from_dict(raw), cache_dir=prepared, on_message=print)
    assert "label kind" not in str(caught.value)


def test_the_settings_of_csv_files_reach_the_data(tmp_path: Path) -> None:
    csv = {"separator": "|", "encoding": "latin-1", "decimal": ",", "null_values": ["?"]}
    found = prepare_options(config(tmp_path, csv=csv)).csv
    assert found == CsvSettings("|", "latin-1", ",", ("?",))
