"""The commands that use a run: ``evaluate``, ``predict``, ``weights`` and ``verify``."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file

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


def test_verify_as_json_says_verified_wrong_or_failed(command: Command) -> None:
    code, out, _ = command("verify", "run", "--json")
    values = json.loads(out.splitlines()[-1])
    assert (code, values["status"], values["steps"], values["digests"]) == (0, "verified", 46, 4)
    log = Path("run/digests.jsonl")
    log.write_text(log.read_text().replace('"digest": "', '"digest": "0000', 1))
    log.write_text(re.sub(r'("0000[0-9a-f]{60})[0-9a-f]{4}"', r'\1"', log.read_text()))
    code, out, _ = command("verify", "run", "--json")
    again = json.loads(out.splitlines()[-1])
    assert (code, again["status"], again["first_wrong_step"]) == (3, "wrong", 10)
    assert again["exit_code"] == 3
    assert values.keys() < again.keys()
    code, out, _ = command("verify", "nothing", "--json")
    failed = json.loads(out.splitlines()[-1])
    assert (code, failed["status"], failed["first_wrong_step"]) == (2, "failed", None)
    assert failed.keys() == again.keys()


def test_evaluate_as_json_says_what_is_wrong(command: Command) -> None:
    code, out, err = command("evaluate", "nothing", "--json")
    values = json.loads(out.splitlines()[-1])
    assert code == values["exit_code"] == 2
    assert values["error"] in err


def test_run_on_a_prepared_directory_is_verified_whatever_the_defaults_are(
    command: Command,
) -> None:
    words = ["--label", "digit", "--test-fraction", "0.2", "--standardise", "none"]
    assert command("data", "prepare", "digits.parquet", *words, "--out", "prepared")[0] == 0
    short = Path("digits.toml").read_text()
    short = re.sub(r"(?m)^(test_fraction|standardise).*$", "", short)
    Path("short.toml").write_text(re.sub(r"(?m)^path = .*$", 'path = "prepared"', short))
    words = ["--workers", "0", "--run-dir", "other", "--quiet", "--set", "train.epochs=1"]
    assert command("train", "short.toml", *words)[0] == 0
    code, _, err = command("verify", "other")
    assert (code, "error" in err) == (0, False)
    again = command("train", "other/config.json", "--run-dir", "again", "--quiet")
    assert again[0] == 0
    digests = [
        json.loads(Path(run, "result.json").read_text())["weights_digest"]
        for run in ("other", "again")
    ]
    assert digests[0] == digests[1]


def test_weights_go_into_a_new_file(command: Command) -> None:
    code, _, err = command("weights", "run", "--out", "w.safetensors")
    assert code == 0
    assert "wrote 4 arrays to w.safetensors" in err
    assert sorted(load_file("w.safetensors")) == [
        *("layers.0.bias", "layers.0.weight", "layers.1.bias", "layers.1.weight")
    ]
    assert command("weights", "run", "--out", "w.safetensors")[0] == 3
