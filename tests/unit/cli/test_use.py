"""The commands that use a run: ``evaluate``, ``predict`` and ``verify``."""

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def trained(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run of 46 steps in the directory ``run``."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    command("init", "digits")
    words = ["--workers", "0", "--run-dir", "run", "--quiet", "--set", "train.epochs=2"]
    code, _, err = command("train", "digits.toml", *words, "--set", "train.digest_every=10")
    assert (code, err) == (0, "")


def test_evaluate_gives_what_training_measured_at_its_end(command: Command) -> None:
    code, out, _ = command("evaluate", "run", "--json")
    assert code == 0
    recorded = json.loads(Path("run/result.json").read_text())
    values = json.loads(out)
    assert values["rows"] == 359
    for key in ("test_loss", "test_accuracy"):
        assert values[key] == recorded[key]
    assert command("evaluate", "run")[1].splitlines()[0].split() == ["rows", "359"]


def test_evaluate_takes_new_rows(command: Command) -> None:
    code, out, _ = command("evaluate", "run", "--data", "digits.parquet", "--json")
    assert (code, json.loads(out)["rows"]) == (0, 1797)


def test_predict_writes_a_row_for_each_row_and_overwrites_nothing(command: Command) -> None:
    words = ("predict", "run", "--data", "digits.parquet", "--out", "said.parquet")
    code, _, err = command(*words)
    assert code == 0
    assert "wrote 1,797 rows to said.parquet" in err
    assert pq.read_table("said.parquet").num_rows == 1797
    assert command(*words)[0] == 3


def test_verify_holds_and_names_the_first_wrong_step(command: Command) -> None:
    code, out, _ = command("verify", "run", "--workers", "0")
    assert code == 0
    assert "over 46 steps hold" in out
    log = Path("run/digests.jsonl")
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    lines[1]["digest"] = "0" * 64
    log.write_text("".join(json.dumps(line) + "\n" for line in lines))
    code, _, err = command("verify", "run", "--workers", "0")
    assert code == 3
    assert "step 20 " in err
