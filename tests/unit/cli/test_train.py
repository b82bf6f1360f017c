"""The command ``train``, in this process: what it prints, how it ends, what a stop leaves."""

import fcntl
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from distsgd.parallel.server.spec import KEYS

Command = Callable[..., tuple[int, str, str]]
ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def digits(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The example in the current directory, and a home of its own for the cache."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert command("init", "digits")[0] == 0


def trained(command: Command, *words: str) -> tuple[int, dict[str, Any], str]:
    code, out, err = command("train", "digits.toml", "--workers", "0", "--json", *words)
    values: dict[str, Any] = json.loads(out.splitlines()[-1])
    return code, values, err


def test_train_ends_with_a_result_and_says_what_is_next(command: Command) -> None:
    code, values, err = trained(command, "--run-dir", "run", "--set", "train.epochs=2")
    assert code == 0
    assert set(KEYS) <= values.keys()
    assert (values["status"], values["steps"], values["num_workers"]) == ("done", 46, 0)
    assert values["test_accuracy"] > 0.9
    assert "test accuracy" in err
    assert f"distsgd show {values['run']}" in err


def test_quiet_train_writes_nothing_but_the_object(command: Command) -> None:
    code, values, err = trained(command, "--quiet", "--run-dir", "run", "--set", "train.steps=3")
    assert (code, values["steps"], err) == (0, 3, "")


LATE = "kill server at step 100000"


@pytest.mark.parametrize("option", ["--inject", "--chaos"])
def test_injected_faults_are_told_at_the_end_and_the_old_option_says_the_new_one(
    command: Command, option: str
) -> None:
    code, values, err = trained(command, "--set", "train.steps=3", option, LATE)
    assert (code, values["steps"], values["faults"]) == (0, 3, [])
    assert "injected faults: none" in err
    assert ("--chaos is now --inject" in err) == (option == "--chaos")


def test_fault_that_is_none_is_refused_before_a_run_is_there(
    command: Command, tmp_path: Path
) -> None:
    words = ("--run-dir", "run", "--inject", "kill everybody", "--inject", LATE)
    code, _, err = trained(command, *words)
    assert code == 2
    assert 'faults has "kill everybody", which cannot be read' in err
    assert not (tmp_path / "run").exists()


def test_dry_run_prints_the_plan_and_leaves_no_run(command: Command, tmp_path: Path) -> None:
    code, out, _ = command("train", "digits.toml", "--dry-run", "--run-dir", "run")
    assert code == 0
    assert "1,438 to train, 359 to test" in out
    assert "4,810" in out
    assert not (tmp_path / "run").exists()
    code, out, _ = command("train", "digits.toml", "--dry-run", "--json")
    assert (code, json.loads(out)["steps"]) == (0, 460)


@pytest.mark.parametrize(
    ("settings", "said", "values"),
    [
        ([], "every 23 steps and at the end", ("23 steps", None)),
        (
            ["train.evaluate_every_samples=1000", "train.target=test_accuracy>=0.95"],
            "every 1,000 samples and at the end, until test_accuracy >= 0.95",
            ("1,000 samples", "test_accuracy >= 0.95"),
        ),
        (["data.test_fraction=0"], "none: no rows are held out", (None, None)),
    ],
)
def test_dry_run_says_when_the_run_is_evaluated(
    command: Command, settings: list[str], said: str, values: tuple[str | None, str | None]
) -> None:
    words = [word for setting in settings for word in ("--set", setting)]
    _, out, _ = command("train", "digits.toml", "--dry-run", *words)
    assert said in " ".join(out.split())
    _, out, _ = command("train", "digits.toml", "--dry-run", "--json", *words)
    plan = json.loads(out)
    assert (plan["evaluate_every"], plan["target"]) == values


def test_train_says_that_its_target_ended_it(command: Command) -> None:
    settings = ("--set", "train.evaluate_every_steps=10", "--set", "train.target=test_loss<=0.5")
    code, values, err = trained(command, "--run-dir", "run", *settings)
    assert (code, values["status"], values["stopped_by"]) == (0, "done", "target")
    assert f"done (test_loss <= 0.5): {values['steps']} steps" in err
    code, out, _ = command("show", "run")
    shown = " ".join(out.split())
    assert "batch 64, 20 epochs or test_loss <= 0.5, seed 0" in shown
    assert "stopped by target" in shown
    code, values, err = trained(command, "--run-dir", "run", "--resume", "auto", *settings)
    assert (code, values["stopped_by"]) == (0, "target")
    assert "is finished; nothing to do" in err


def test_dry_run_loads_no_ray() -> None:
    program = (
        "import sys\nsys.argv = ['distsgd', 'train', 'digits.toml', '--dry-run']\n"
        "from distsgd.cli.app import main\n"
        "try: main()\nfinally: print('ray' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "HOME": str(Path.cwd() / "home")},
    )
    assert done.stdout.endswith("False\n")


@pytest.mark.parametrize(
    ("override", "code", "words"),
    [
        ("batch.size=100000", 2, "batch.size"),
        ("data.path=none.parquet", 3, "none.parquet"),
        ("data.label=letter", 3, "letter"),
        ("data.one_hot=true", 2, "data.one_hot"),
    ],
)
def test_what_cannot_be_trained_has_its_exit_code_and_leaves_no_run(
    command: Command, tmp_path: Path, override: str, code: int, words: str
) -> None:
    ended, values, err = trained(command, "--run-dir", "run", "--set", override)
    assert (ended, values["status"], values["exit_code"]) == (code, "failed", code)
    assert words in err
    assert words in values["error"]
    assert not (tmp_path / "run").exists()


def test_divergence_ends_with_five_and_names_the_step(command: Command) -> None:
    words = ["--run-dir", "run", "--set", "optimizer.learning_rate=1e30"]
    code, values, err = trained(command, *words)
    assert (code, values["status"]) == (5, "diverged")
    assert f"step {values['steps']}" in err


def test_run_directory_of_another_configuration_is_refused(command: Command) -> None:
    trained(command, "--run-dir", "run", "--set", "train.steps=3")
    again = ["--run-dir", "run", "--resume", "auto", "--set", "train.steps=4"]
    code, _, err = trained(command, *again)
    assert code == 2
    assert "another configuration" in err


def test_ctrl_c_leaves_a_run_that_resumes_to_the_same_bits(command: Command) -> None:
    length = ("--set", "train.epochs=120", "--set", "schedule.type=constant")
    # Without a pause between lines, so that the first comes early in the run.
    program = (
        "from distsgd.cli import app; from distsgd.cli.terminal import progress; "
        "progress.EVALUATION_EVERY_S = 0.0; app.main()"
    )
    words = ["train", "digits.toml", "--workers", "0", "--json", "--run-dir", "stopped", *length]
    with subprocess.Popen(
        [sys.executable, "-c", program, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "HOME": str(Path.cwd() / "home")},
    ) as process:
        assert process.stderr is not None
        assert process.stdout is not None
        assert any(line.startswith("step ") for line in process.stderr)
        process.send_signal(signal.SIGINT)
        out, said = process.stdout.read(), process.stderr.read()
    assert process.returncode == 6, said
    values = json.loads(out.splitlines()[-1])
    assert values["status"] == "interrupted"
    assert values["run"] == str(Path.cwd() / "stopped")
    assert "--resume auto" in said
    assert 0 < values["steps"] < 120 * 23
    code, resumed, _ = trained(command, "--run-dir", "stopped", "--resume", "auto", *length)
    assert (code, resumed["status"], resumed["steps"]) == (0, "done", 120 * 23)
    _, whole, _ = trained(command, "--run-dir", "whole", *length)
    assert resumed["weights_digest"] == whole["weights_digest"]


def test_ctrl_c_before_training_begins_ends_as_one_after_it() -> None:
    home = Path.cwd() / "home"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HOME": str(home)}
    words = [sys.executable, "-m", "distsgd", "train", "digits.toml", "--workers", "0"]
    prepared = [*words, "--dry-run"]
    subprocess.run(prepared, env=environment, check=True, capture_output=True, timeout=60)
    (lock,) = (home / ".cache" / "distsgd").glob("*.lock")
    with lock.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with subprocess.Popen(
            [*words, "--json", "--run-dir", "run"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        ) as process:
            assert process.stderr is not None
            assert process.stdout is not None
            assert any("waiting" in line for line in process.stderr)
            process.send_signal(signal.SIGINT)
            out, said = process.stdout.read(), process.stderr.read()
    assert process.returncode == 6, said
    assert "stopped before training began: no step was made" in said
    assert "Traceback" not in said
    values = json.loads(out.splitlines()[-1])
    assert (values["status"], values["exit_code"], values["steps"]) == ("interrupted", 6, None)
    assert not (Path.cwd() / "run").exists()
