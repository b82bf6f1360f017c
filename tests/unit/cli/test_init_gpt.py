"""``init gpt``: what it writes, and what it says of what is missing."""

import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from distsgd.config import TrainConfig

EXAMPLES = Path(__file__).parents[3] / "distsgd" / "examples"
SHIPPED = ("gpt.toml", "gpt_model.py", "gpt_sample.py")
MADE = ("gpt.parquet", "gpt_test.parquet")

Command = Callable[..., tuple[int, str, str]]


def test_init_gpt_writes_code_and_text_and_says_what_is_next(
    command: Command, tmp_path: Path
) -> None:
    code, out, err = command("init", "gpt", "--dir", "my gpt")
    assert (code, out) == (0, "")
    place = tmp_path / "my gpt"
    assert {path.name for path in place.iterdir()} == {*SHIPPED, *MADE}
    for name in SHIPPED:
        assert (place / name).read_bytes() == (EXAMPLES / name).read_bytes()
    assert err.endswith(
        "next:\n  cd 'my gpt'\n  distsgd train gpt.toml --run-dir gpt\n  python gpt_sample.py gpt\n"
    )


def test_init_gpt_makes_the_rows_that_its_configuration_names(
    command: Command, tmp_path: Path
) -> None:
    assert command("init", "gpt")[0] == 0
    data = TrainConfig.from_toml(tmp_path / "gpt.toml").data
    tables = [pq.read_table(path) for path in (data.paths[0], data.test_paths[0])]
    for table in tables:
        assert table.column_names == [*data.features, *data.labels]
    assert tables[0].num_rows > 8 * tables[1].num_rows > 0


def test_init_gpt_twice_changes_nothing(command: Command) -> None:
    assert command("init", "gpt")[0] == 0
    code, _, err = command("init", "gpt")
    assert code == 0
    assert err.count("which is this example already") == len((*SHIPPED, *MADE))
    assert "wrote" not in err


@pytest.mark.parametrize("name", ["gpt_model.py", "gpt.parquet"])
def test_init_gpt_overwrites_nothing_that_differs(
    command: Command, tmp_path: Path, name: str
) -> None:
    (tmp_path / name).write_text("mine")
    code, _, err = command("init", "gpt")
    assert code == 2
    assert f"{name} exists already and differs" in err
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_init_gpt_says_where_pytorch_is_missing(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    code, _, err = command("init", "gpt")
    assert code == 0
    assert (
        "this example needs PyTorch, which is not installed (pip install 'distsgd[torch]')" in err
    )


def test_init_gpt_under_a_python_without_help_topics_writes_nothing(
    command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)
    code, _, err = command("init", "gpt")
    assert code == 2
    assert "pydoc_data must be installed (install it, or use another Python)" in err
    assert not list(tmp_path.iterdir())
