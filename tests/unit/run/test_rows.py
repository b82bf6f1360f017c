"""Rows that are handed to the trainer: what it takes, what it refuses, what a refusal leaves."""

from __future__ import annotations

import importlib
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from distsgd.config import TrainConfig
from distsgd.data.dataset import DataSet
from distsgd.errors import ConfigError, DataError, DistSGDError, ModelError, RunError
from distsgd.run.run import Run
from distsgd.run.trainer import Trainer

X = np.arange(12.0).reshape(6, 2) % 5
Y = np.array([0, 1, 2, 0, 1, 2])
TABLE = pa.table({"a": X[:, 0], "b": X[:, 1], "kind": Y})
TEXT = pa.table({"a": X[:, 0], "kind": ["u", "v", "w"] * 2})
# As Polars hands out its categories.
VIEWED = pa.DictionaryArray.from_arrays(
    pa.array(Y, pa.uint32()), pa.array(["u", "v", "w"], pa.string_view())
)


def config(**sections: Any) -> TrainConfig:
    values: dict[str, Any] = {
        "data": {"label": "kind"},
        "model": {"layers": [{"type": "dense", "units": 3}], "loss": "softmax_cross_entropy"},
        "batch": {"size": 2},
        "train": {"steps": 3},
        "parallel": {"workers": 0},
    }
    return TrainConfig.from_dict(
        {section: values.get(section, {}) | keys for section, keys in (values | sections).items()}
    )


class Foreign:
    """An array of another library, on a device or not."""

    def __init__(self, values: Any, error: Exception | None = None) -> None:
        self._values, self._error = values, error

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        if self._error is not None:
            raise self._error
        return np.asarray(self._values, dtype)


class Exported:
    """An array that is handed out by its memory alone."""

    def __dlpack__(self, **options: Any) -> Any:
        return X.__dlpack__(**options)

    def __dlpack_device__(self) -> Any:
        return X.__dlpack_device__()


class Index:
    """Names of rows, as of a frame."""

    def __init__(self, *names: int) -> None:
        self.names = names

    def equals(self, other: Index) -> bool:
        return self.names == other.names


class Series(Foreign):
    """Values with the names of their rows."""

    def __init__(self, values: Any, *names: int) -> None:
        super().__init__(values)
        self.index = Index(*names)


class Frame:
    """A data frame of another library."""

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return TABLE.__arrow_c_stream__(requested_schema)


class Sparse:
    """As scipy's: numpy takes it as one object."""

    shape = (6, 2)

    def toarray(self) -> Any:
        return X


TAKEN: dict[str, Any] = {
    "arrays": (X, Y),
    "lists": (X.tolist(), Y.tolist()),
    "text labels": (X, np.array(["u", "v", "w"] * 2)),
    "text labels as objects": (X, np.array(["u", "v", "w"] * 2, object)),
    "one column of labels": (X, Y[:, None]),
    "Fortran order": (np.asfortranarray(X), Y),
    "every second": (np.repeat(X, 2, axis=0)[::2], np.repeat(Y, 2)[::2]),
    "other byte order": (X.astype(">f4"), Y.astype(">i2")),
    "half": (X.astype(np.float16), Y.astype(np.uint8)),
    "booleans": (X > 2, Y),
    "arrays of others": (Foreign(X), Foreign(Y)),
    "memory of others": (Exported(), Y),
    "series of one index": (Series(X, 5, 3), Series(Y, 5, 3)),
    "series beside an array": (Series(X, 5, 3), Y),
    "text of numpy's own type": (X, np.array(["u", "v", "w"] * 2, np.dtypes.StringDType())),
    "text that is viewed": TEXT.set_column(1, "kind", TEXT["kind"].cast(pa.string_view())),
    "text in a dictionary of views": TEXT.set_column(1, "kind", VIEWED),
    "masked, but nothing is": (np.ma.array(X), Y),
    "Arrow labels": (X, pa.array(Y)),
    "table": TABLE,
    "record batch": TABLE.to_batches()[0],
    "frame": Frame(),
}


@pytest.mark.parametrize("kind", TAKEN)
def test_trainer_takes_arrays_and_tables(kind: str, tmp_path: Path) -> None:
    result = Trainer(config(), data=TAKEN[kind], run_dir=tmp_path / "run").fit()
    assert result.metrics["status"] == "done"
    data = DataSet.open(tmp_path / "run" / "data")
    assert data.train.num_rows == 6
    names = ("u", "v", "w") if "text" in kind else (0, 1, 2)
    assert data.manifest.class_names == names
    assert list(tmp_path.iterdir()) == [tmp_path / "run"]


def test_table_features_are_those_of_the_configuration(tmp_path: Path) -> None:
    chosen = config(data={"features": ["b"]})
    Trainer(chosen, data=TABLE, run_dir=tmp_path / "run").fit()
    assert Run.open(tmp_path / "run").manifest.columns == ("b",)


def test_a_table_and_a_file_of_it_give_the_same_weights(tmp_path: Path) -> None:
    pq.write_table(TABLE, tmp_path / "rows.parquet")
    named = config(data={"path": str(tmp_path / "rows.parquet")})
    file = Trainer(named, run_dir=tmp_path / "file", cache_dir=tmp_path / "cache").fit()
    table = Trainer(config(), data=TABLE, run_dir=tmp_path / "table").fit()
    assert table.metrics["weights_digest"] == file.metrics["weights_digest"]


REFUSED: dict[str, tuple[Any, str]] = {
    "one array": (X, r"data: is an object of type numpy\.ndarray; must be \(x, y\)"),
    "one list": ([X, Y], r"is an object of type list; must be \(x, y\)"),
    "one of a pair": ((X,), r"is a tuple of 1; must be \(x, y\)"),
    "three": ((X, Y, Y), "is a tuple of 3"),
    "none of a pair": ((), "is a tuple of 0"),
    "a name": ("rows.parquet", "is an object of type str"),
    "a path": (Path("rows.parquet"), r"PosixPath; must be .* \(name files in \[data\] path\)"),
    "a dictionary": ({"a": [1]}, "is an object of type dict"),
    "series of two indexes": (
        (Series(X, 5, 3), Series(Y, 3, 5)),
        r"x and y have different indexes.*y\.loc\[x\.index\]",
    ),
    "a generator": ((iter(X), Y), "x is an object of type .*; give an array or a list"),
    "ones among zeros as classes": ((X, np.eye(3)[Y]), "3 label columns .* by argmax"),
    "a number": (5, r"int; must be a pyarrow Table"),
    "an Arrow array": (pa.array([1, 2]), "cannot be read as a table"),
    "no features": ((None, Y), "x is an object of type NoneType"),
    "names as features": (("x", Y), "x is an object of type str"),
    "text as features": ((X.astype(str), Y), r"x holds <U32; must be numbers"),
    "objects as features": ((X.astype(object), Y), r"x holds object; must be numbers"),
    "decimals": ((np.array([[Decimal(1)]]), [0]), "x holds object; must be numbers"),
    "complex": ((X.astype(complex), Y), "x holds complex128"),
    "times": ((X.astype("M8[s]"), Y), r"x holds datetime64"),
    "long floats": ((X.astype(np.longdouble), Y), "x holds .*; must be numbers of at most 64"),
    "one axis": ((X[:, 0], Y), r"x has shape \(6,\); must be \[N, I\].*x\[:, None\]"),
    "images": ((X[:, :, None], Y), r"x has shape \(6, 2, 1\).*x\.reshape\(len\(x\), -1\)"),
    "a scalar": ((5.0, Y), r"x has shape \(\)"),
    "labels without an axis": ((X, 1), r"y has shape \(\); must be \[N\] or \[N, K\]"),
    "texts of three axes": ((X, np.full((6, 1, 1), "a")), "label column 'kind' has lists of text"),
    "fewer labels": ((X, Y[:-1]), "x has 6 rows and y has 5"),
    "no rows": ((X[:0], Y[:0]), r"x has shape \(0, 2\); there must be one row"),
    "no features in rows": ((X[:, :0], Y), r"x has shape \(6, 0\)"),
    "no label in rows": ((X, Y[:, None][:, :0]), r"y has shape \(6, 0\)"),
    "ragged": (([[1.0], [1.0, 2.0]], [0, 1]), r"numpy cannot take as an array"),
    "sparse": ((Sparse(), Y), r"x is sparse; give x\.toarray\(\)"),
    "masked": ((np.ma.masked_less(X, 1.0), Y), "x has masked values; fill them in"),
    "on a device": ((Foreign(X, TypeError("on cuda:0")), Y), r"array \(on cuda:0\)"),
    "with a graph": ((X, Foreign(Y, RuntimeError("requires grad"))), r"\(requires grad\)"),
    "NaN": ((np.where(X == 0, np.nan, X), Y), r"column 'x\[0\]', row 0: nan is not a finite"),
    "infinity": ((np.where(X == 3, np.inf, X), Y), r"row \d: inf is not a finite"),
    "a null label": ((X, np.array(["u", None, "w"] * 2, object)), "row 1: null label"),
    "labels of two kinds": ((X, np.array(["u", 1, 2.5] * 2, object)), "arrays: cannot be read"),
    "fractions as classes": ((X, Y + 0.5), r"label 0\.5 is no class"),
    "labels that are times": ((X, Y.astype("M8[s]")), "label column 'kind' has type timestamp"),
    "a table without the label": (TABLE.drop(["kind"]), "has no label column 'kind'"),
    "an empty table": (TABLE[:0], "has no rows"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_rows_is_refused_and_leaves_nothing(kind: str, tmp_path: Path) -> None:
    data, message = REFUSED[kind]
    run = tmp_path / "runs" / "first"
    with pytest.raises(DataError, match=message):
        Trainer(config(), data=data, run_dir=run).fit()
    assert list(tmp_path.iterdir()) == []
    # The same command again, when the rows are mended.
    assert Trainer(config(), data=(X, Y), run_dir=run).fit().metrics["steps"] == 3


def test_a_label_cannot_have_the_name_of_the_features_of_arrays(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"label 'x' .*; name it otherwise in \[data\] label"):
        Trainer(config(data={"label": "x"}), data=(X, Y), run_dir=tmp_path / "run").fit()


def test_a_table_needs_the_name_of_its_label(tmp_path: Path) -> None:
    nameless = TrainConfig.from_dict(
        {"model": {"layers": [{"type": "dense", "units": 1}], "loss": "quadratic"}}
    )
    with pytest.raises(ConfigError, match=r"data\.label is missing") as caught:
        Trainer(nameless, data=TABLE, run_dir=tmp_path / "run").fit()
    assert len(caught.value.problems) == 1
    assert list(tmp_path.iterdir()) == []


WRONG: dict[str, tuple[dict[str, Any], type[DistSGDError]]] = {
    "batch": ({"batch": {"size": 7}}, ConfigError),
    "outputs": ({"model": {"layers": [{"type": "dense", "units": 2}]}}, ConfigError),
    "layers": ({"model": {"layers": [{"type": "max_pool", "size": 2}]}}, ModelError),
    "split": ({"data": {"test_fraction": 0.01}}, DataError),
    "weights": ({"model": {"initial_weights": "none.safetensors"}}, ConfigError),
}


@pytest.mark.parametrize("from_file", [True, False])
@pytest.mark.parametrize("kind", WRONG)
def test_a_refused_start_does_not_stand_in_its_own_way(
    kind: str, tmp_path: Path, *, from_file: bool
) -> None:
    pq.write_table(TABLE, tmp_path / "rows.parquet")
    more, data = ({"path": str(tmp_path / "rows.parquet")}, None) if from_file else ({}, (X, Y))
    place: dict[str, Any] = {"run_dir": tmp_path / "run", "cache_dir": tmp_path / "cache"}
    sections, error = WRONG[kind]
    wrong = config(**sections | {"data": {**more, **sections.get("data", {})}})
    for _ in range(2):
        with pytest.raises(error):
            Trainer(wrong, data=data, **place).fit()
        assert {path.name for path in tmp_path.iterdir()} <= {"rows.parquet", "cache"}
    right = Trainer(config(data=more), data=data, **place)
    assert right.fit().metrics["status"] == "done"


@pytest.mark.parametrize("was_there", [True, False])
def test_a_run_that_cannot_be_launched_is_as_if_it_had_never_begun(
    tmp_path: Path, *, was_there: bool
) -> None:
    if was_there:
        (tmp_path / "run").mkdir()
    missing = config(parallel={"worker": "nowhere:Nothing"})
    for _ in range(2):
        with pytest.raises(ConfigError, match='"nowhere:Nothing" cannot be found'):
            Trainer(missing, data=(X, Y), run_dir=tmp_path / "run").fit()
    assert not (tmp_path / "run").exists()
    assert Trainer(config(), data=(X, Y), run_dir=tmp_path / "run").fit().metrics["steps"] == 3


def test_a_run_that_has_made_steps_is_kept_when_it_cannot_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "going_worker.py").write_text(
        "from distsgd_workers.gradient_worker import GradientWorker as Here"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    run, own = tmp_path / "run", config(parallel={"worker": "going_worker:Here"})
    Trainer(own, data=(X, Y), run_dir=run).fit()
    (run / "result.json").unlink()
    (tmp_path / "going_worker.py").unlink()
    monkeypatch.delitem(sys.modules, "going_worker")
    importlib.invalidate_caches()
    with pytest.raises(ConfigError, match="cannot be found"):
        Trainer(own, data=(X, Y), run_dir=run).fit(resume="auto")
    assert Run.open(run).checkpoint.step == 3


def test_a_run_goes_on_with_its_own_rows_only(tmp_path: Path) -> None:
    run = tmp_path / "run"
    Trainer(config(), data=(X, Y), run_dir=run).fit()
    (run / "result.json").unlink()
    before = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(RunError, match="was made with other data"):
        Trainer(config(), data=(X + 1, Y), run_dir=run).fit(resume="auto")
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    assert Trainer(config(), data=(X, Y), run_dir=run).fit(resume="auto").metrics["steps"] == 3


def test_what_a_killed_start_left_does_not_stand_in_the_way(tmp_path: Path) -> None:
    run = tmp_path / "run"
    Trainer(config(), data=(X + 1, Y), run_dir=run).fit()
    # All but what makes it a run: as if it had been killed while it began, with other rows.
    for path in (*run.iterdir(), *(run / "checkpoints").iterdir(), *(run / "history").iterdir()):
        if path.is_file() and path.name not in {"lock", "model.json"}:
            path.unlink()
    for step in (run / "checkpoints").iterdir():
        for file in step.iterdir():
            file.unlink()
        step.rmdir()
    result = Trainer(config(), data=(X, Y), run_dir=run).fit()
    fresh = Trainer(config(), data=(X, Y), run_dir=tmp_path / "fresh").fit()
    assert result.metrics["weights_digest"] == fresh.metrics["weights_digest"]
