"""What ``show`` says of a run directory, finished or not."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from distsgd.cli.show import sparkline
from distsgd.config import TrainConfig
from distsgd.store import (
    CheckpointStore,
    EvaluationLog,
    EvaluationRow,
    HistoryRow,
    HistoryWriter,
    RunDirectory,
)

Command = Callable[..., tuple[int, str, str]]
EXAMPLE = Path(__file__).parents[3] / "distsgd" / "examples" / "digits.toml"


def made_run(path: Path, *, num_rows: int) -> RunDirectory:
    run = RunDirectory.create(path)
    run.write_json(run.config_path, TrainConfig.from_toml(EXAMPLE).to_dict())
    run.write_json(run.environment_path, {"numpy": "2.4.6", "numerics": {"kernel": "SkylakeX"}})
    history = HistoryWriter(run.history)
    for step in range(1, num_rows + 1):
        history.append(
            HistoryRow(
                step, step / 23, step * 64, 0.1, 2.0 / step, None, 1.0, 2.0, 3.0, 40.0, step * 0.1
            )
        )
    history.flush()
    return run


def test_show_of_a_finished_run_says_what_it_is_and_how_it_went(
    command: Command, tmp_path: Path
) -> None:
    run = made_run(tmp_path / "run", num_rows=100)
    evaluations = EvaluationLog(run.evaluations_path)
    evaluations.append(EvaluationRow(100, 4.3, 0.25, 0.9625, 332))
    evaluations.flush()
    weights = {"weights": {"w": np.zeros(3, np.float32)}}
    CheckpointStore(run.checkpoints).save(100, arrays=weights, state={}, best=True)
    run.write_json(run.result_path, {"status": "done", "steps": 100, "seconds": 200.0})
    code, out, _ = command("show", str(run.path))
    assert code == 0
    for words in (
        "dense 64 relu > dense 10, softmax_cross_entropy",
        "momentum, learning rate 0.1, cosine schedule",
        "batch 64, 20 epochs, seed 0",
        "numpy 2.4.6, kernel SkylakeX",
        "100 (best)",
        "0.9625",
        "3 min 20 s",
        "█",
    ):
        assert words in out


def test_show_names_the_code_of_ones_own_and_portable_numerics(
    command: Command, tmp_path: Path
) -> None:
    run = made_run(tmp_path / "run", num_rows=1)
    config = TrainConfig.from_toml(EXAMPLE).with_overrides(["train.numerics=portable"])
    run.write_json(run.config_path, config.to_dict())
    entries = [
        {"what": "worker", "name": "mine:Worker", "shown": "mine:Worker", "source": "ab"},
        {"what": "sampler", "name": "mine:Sampler.of", "shown": "mine:Sampler.of", "source": None},
        {"what": "rule", "name": None, "shown": "__main__.Rule", "source": None},
    ]
    run.write_json(run.environment_path, {"own_code": entries})
    code, out, _ = command("show", str(run.path))
    assert code == 0
    own = "worker mine:Worker, sampler mine:Sampler.of, rule __main__.Rule (without a name)"
    assert own in " ".join(out.split())
    assert "seed 0, portable numerics" in out
    run.write_json(run.environment_path, {"own_code": "damaged"})
    assert command("show", str(run.path))[0] == 0


def test_show_keeps_every_fact_on_one_line_where_no_terminal_is(
    command: Command, tmp_path: Path
) -> None:
    run = made_run(tmp_path / ("long name " * 20), num_rows=3)
    code, out, _ = command("show", str(run.path))
    lines = out.splitlines()
    assert code == 0
    assert next(line for line in lines if line.startswith("run ")).endswith(str(run.path).rstrip())
    assert [line for line in lines if line != line.rstrip()] == []
    assert "to step 3, epoch 0.1" in out


def test_show_of_a_run_without_a_step_says_that_it_is_not_finished(
    command: Command, tmp_path: Path
) -> None:
    run = made_run(tmp_path / "run", num_rows=0)
    code, out, _ = command("show", str(run.path))
    assert code == 0
    assert "not finished" in out
    (line,) = (line for line in out.splitlines() if line.startswith("resume with"))
    assert "distsgd train" in line


def test_show_of_a_damaged_history_ends_with_three(command: Command, tmp_path: Path) -> None:
    run = made_run(tmp_path / "run", num_rows=10)
    (part,) = run.history.iterdir()
    part.write_bytes(part.read_bytes()[:-20])
    code, _, err = command("show", str(run.path))
    assert code == 3
    assert "Traceback" not in err


def test_sparkline_is_at_most_as_wide_as_asked() -> None:
    assert sparkline([]) == ""
    assert sparkline([1.0]) == "▁"
    assert sparkline([1.0] * 9) == "▁" * 9
    assert len(sparkline([float(step) for step in range(1000)], width=48)) == 48


def test_sparkline_of_infinite_losses_leaves_them_out() -> None:
    assert sparkline([float("nan"), 1.0, float("inf"), 0.0]) == "█▁"


def test_show_of_a_run_that_trains_says_so_and_not_how_it_once_ended(
    command: Command, tmp_path: Path
) -> None:
    run = made_run(tmp_path / "run", num_rows=10)
    run.write_json(run.result_path, {"status": "interrupted", "steps": 5, "train_loss": 3.5e17})
    weights = {"weights": {"w": np.zeros(3, np.float32)}}
    CheckpointStore(run.checkpoints).save(1234, arrays=weights, state={}, best=False)
    with run.lock(1.0):
        code, out, _ = command("show", str(run.path))
    assert code == 0
    assert f"training in process {os.getpid()} on" in out
    assert "saved up to step 1,234" in out
    assert "interrupted" not in out
    _, out, _ = command("show", str(run.path))
    assert "interrupted" in out
    assert "3.5e+17" in out
    assert run.holder() is None


def test_show_as_json_is_one_object_with_all_that_is_printed(
    command: Command, tmp_path: Path
) -> None:
    run = made_run(tmp_path / "run", num_rows=100)
    evaluations = EvaluationLog(run.evaluations_path)
    evaluations.append(EvaluationRow(100, 4.3, float("inf"), 0.9625, 332))
    evaluations.flush()
    weights = {"weights": {"w": np.zeros(3, np.float32)}}
    CheckpointStore(run.checkpoints).save(100, arrays=weights, state={}, best=True)
    code, out, err = command("show", str(run.path), "--json")
    (line,) = out.splitlines()
    values = json.loads(line, parse_constant=pytest.fail)
    assert (code, err) == (0, "")
    assert values["run"] == str(run.path)
    assert values["status"] == "not finished"
    assert values["resume_with"].startswith("distsgd train ")
    assert values["config"]["batch"]["size"] == 64
    assert values["environment"]["numerics"]["kernel"] == "SkylakeX"
    assert values["history"][0]["step"] == 100
    assert values["train_loss"][0] > values["train_loss"][-1]
    assert (values["checkpoints"], values["best_checkpoint"]) == ([100], 100)
    assert values["evaluations"] == [
        {"step": 100, "epoch": 4.3, "test_loss": None, "test_accuracy": 0.9625, "rows": 332}
    ]
    assert (values["result"], values["process"], values["plots"]) == (None, None, [])
    run.write_json(run.result_path, {"status": "done", "steps": 100})
    _, out, _ = command("show", str(run.path), "--json")
    values = json.loads(out)
    assert (values["status"], values["resume_with"]) == ("done", None)
    assert values["result"] == {"status": "done", "steps": 100}


def test_show_of_a_run_without_a_step_is_an_object_too(command: Command, tmp_path: Path) -> None:
    run = made_run(tmp_path / "run", num_rows=0)
    code, out, _ = command("show", str(run.path), "--json")
    values = json.loads(out)
    assert (code, values["history"], values["train_loss"], values["evaluations"]) == (0, [], [], [])


def test_show_as_json_of_no_run_says_what_is_wrong(command: Command, tmp_path: Path) -> None:
    code, out, err = command("show", str(tmp_path), "--json")
    values = json.loads(out)
    assert (code, values["status"], values["exit_code"]) == (2, "failed", 2)
    assert values["error"] in err
