"""The command line: what it loads, how it ends, where it writes."""

import json
import os
import resource
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from rich.text import Text

from distsgd.cli.app import app

EXAMPLES = Path(__file__).parents[3] / "distsgd" / "examples"
HEAVY = ("ray", "pyarrow", "numpy", "distsgd.config", "distsgd.run", "distsgd.data.manifest")


Command = Callable[..., tuple[int, str, str]]


@pytest.mark.parametrize(
    "words",
    [
        "--help",
        "train --help",
        "data prepare --help",
        "verify --help",
        "job submit --help",
        "--version",
    ],
)
def test_help_loads_nothing_heavy(words: str) -> None:
    program = (
        "import sys\nfrom distsgd.cli.app import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        f"print([name for name in {HEAVY} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *words.split()],
        capture_output=True,
        text=True,
        check=True,
        cwd=EXAMPLES.parents[1],
    )
    assert done.stderr == "[]\n"
    assert done.stdout


def test_program_runs_as_a_module() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "distsgd", "--version"],
        capture_output=True,
        text=True,
        check=True,
        cwd=EXAMPLES.parents[1],
    )
    assert done.stdout == "distsgd 0.6.0\n"


def test_help_is_shown_as_it_is_written() -> None:
    """Brackets are not taken for markup."""
    commands: list[Any] = [typer.main.get_command(app)]
    for command in commands:  # Grows meanwhile.
        commands += getattr(command, "commands", {}).values()
        for text in (command.help, *(getattr(it, "help", None) for it in command.params)):
            written = (text or "").replace("\\[", "[")
            assert Text.from_markup(text or "").plain == written, command.name


@pytest.mark.parametrize("words", ["train", "nothing", "init letters", "train x --resume maybe"])
def test_wrong_usage_ends_with_two(command: Command, words: str) -> None:
    code, out, err = command(*words.split())
    assert (code, out) == (2, "")
    assert "Error" in err


@pytest.mark.parametrize(
    "words",
    [
        ["show", ""],
        ["train", ""],
        ["train", "x.toml", "--run-dir", ""],
        ["train", "x.toml", "--cache-dir="],
        ["cache", "clear", "--cache-dir", ""],
        ["predict", "run", "--data", "", "--out", "p.parquet"],
        ["predict", "run", "--data", "x", "--out", ""],
        ["evaluate", "run", "--data", ""],
        ["init", "digits", "--dir", ""],
        ["data", "check", ""],
    ],
)
def test_empty_path_is_not_the_current_directory(command: Command, words: list[str]) -> None:
    code, out, err = command(*words)
    assert (code, out) == (2, "")
    assert "it is empty; must be a path" in err


@pytest.mark.parametrize(
    "words",
    [
        "train nothing.toml --json",
        "train nothing.toml --dry-run --json",
        "soak nothing.toml --json",
        "bench --layers x --json",
        "cache clear nothing --json",
        "show nothing --json",
        "verify nothing --json",
        "evaluate nothing --json",
    ],
)
def test_failure_is_the_one_object_of_json(
    command: Command, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    code, out, err = command(*words.split())
    (line,) = out.splitlines()
    told = json.loads(line)
    assert (told["status"], told["exit_code"]) == ("failed", code)
    assert told["error"] in err.replace("error: ", "")


def test_init_writes_the_shipped_bytes_and_says_what_is_next(
    command: Command, tmp_path: Path
) -> None:
    code, out, err = command("init", "digits", "--dir", "new/place")
    assert (code, out) == (0, "")
    for name in ("digits.toml", "digits.parquet"):
        assert (tmp_path / "new/place" / name).read_bytes() == (EXAMPLES / name).read_bytes()
    assert "next: distsgd train new/place/digits.toml" in err


def test_init_twice_changes_nothing(command: Command) -> None:
    assert command("init", "digits")[0] == 0
    code, _, err = command("init", "digits")
    assert code == 0
    assert "kept digits.toml" in err


def test_init_overwrites_nothing_that_differs(command: Command, tmp_path: Path) -> None:
    (tmp_path / "digits.parquet").write_text("mine")
    code, _, err = command("init", "digits")
    assert code == 2
    assert "digits.parquet exists already and differs" in err
    assert (tmp_path / "digits.parquet").read_text() == "mine"
    assert not (tmp_path / "digits.toml").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_init_into_a_directory_without_rights_is_a_clear_error(
    command: Command, tmp_path: Path
) -> None:
    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    assert command("init", "digits")[0] == 4


def test_init_on_a_full_disk_leaves_no_half_of_a_file(command: Command, tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    on_excess = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    try:
        code, _, err = command("init", "digits")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, on_excess)
    assert code == 4
    assert "cannot be written: File too large (make room" in err
    assert [path.name for path in tmp_path.iterdir()] == ["digits.toml"]
    assert command("init", "digits")[0] == 0


def test_init_where_a_file_stands_in_the_way_is_a_clear_error(
    command: Command, tmp_path: Path
) -> None:
    (tmp_path / "place").write_text("")
    code, _, err = command("init", "digits", "--dir", "place")
    assert code == 2
    assert "place: cannot be written" in err


def test_train_shows_all_problems_without_a_traceback(command: Command) -> None:
    command("init", "digits")
    code, out, err = command(
        "train", "digits.toml", "--set", "batch.size=0", "--set", "batch.lanes=[]"
    )
    assert (code, out) == (2, "")
    assert 'error: batch.size is 0; must be 1 to the number of rows or "full"' in err
    assert "error: batch.lanes is not known; did you mean [parallel] lanes?" in err
    assert "Traceback" not in err


@pytest.mark.parametrize("words", [["--dry-run"], ["--json"], []])
def test_train_without_a_configuration_ends_with_two(command: Command, words: list[str]) -> None:
    code, _, err = command("train", "none.toml", *words)
    assert code == 2
    assert "none.toml: no such file" in err


@pytest.mark.parametrize("workers", ["-1", "two", "1.5", ""])
def test_train_with_impossible_workers_ends_with_two(command: Command, workers: str) -> None:
    command("init", "digits")
    code, _, err = command("train", "digits.toml", f"--workers={workers}")
    assert code == 2
    assert "--workers is" in err


def test_show_of_no_run_ends_with_two(command: Command, tmp_path: Path) -> None:
    code, _, err = command("show", str(tmp_path))
    assert code == 2
    assert "error:" in err


@pytest.mark.parametrize(
    ("words", "near"),
    [
        ("trian digits.toml", "train"),
        ("data prepar a", "prepare"),
        ("draw histroies a", "histories"),
        ("train digits.toml --worker 0", "--workers"),
        ("verify run --jsn", "--json"),
        ("train digits.toml --resume atuo", "'auto'"),
        ("data prepare a --label b --out c --label-kind clas", "'class'"),
        ("data prepare a --label b --out c --standardise MinMax", "'min_max'"),
        ("init digit", "'digits'"),
        ("bench --statistics norm", "'norms'"),
        ("train digits.toml --set batch.sise=3", '"size"'),
        ("train digits.toml --set optimiser.type=sgd", '"optimizer"'),
        ("train digits.toml --set optimizer.type=momentun", 'did you mean "momentum"'),
        ("train digits.toml --set schedule.type=Cosin", 'did you mean "cosine"'),
        ("train digits.toml --set model.loss=softmax_crossentropy", 'mean "softmax_cross_entropy"'),
        ("train digits.toml --set parallel.transport=sharedmemory", 'mean "shared_memory"'),
        ('train digits.toml --set model.layers=[{type="dens",units=10}]', 'did you mean "dense"'),
    ],
)
def test_near_word_is_offered_for_a_wrong_one(command: Command, words: str, near: str) -> None:
    command("init", "digits")
    code, _, err = command(*words.split())
    assert code == 2
    said = " ".join(err.replace("\u2502", " ").split())
    assert near in said
    assert "mean" in said.lower() or "possible" in said.lower()


def test_word_that_is_near_nothing_is_answered_by_the_rule_alone(command: Command) -> None:
    command("init", "digits")
    _, _, err = command("train", "digits.toml", "--set", "optimizer.type=zzz")
    assert "did you mean" not in err
    assert 'must be "sgd"' in err


COMPLETE = {"_DISTSGD_COMPLETE": "complete_bash"}


def completed(words: str, where: Path) -> list[str]:
    count = len(words.split(" ")) - 1
    asked = {**COMPLETE, "COMP_WORDS": words, "COMP_CWORD": str(count)}
    program = "from distsgd.cli.app import app; app(prog_name='distsgd')"
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        cwd=where,
        env={**os.environ, **asked, "PYTHONPATH": str(EXAMPLES.parents[1])},
    )
    return done.stdout.split()


def test_shell_completes_commands_options_runs_and_configurations(tmp_path: Path) -> None:
    for name in ("runs/digits-1", "runs/digits-2", "other", "first"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("runs/digits-1", "runs/digits-2", "first"):
        (tmp_path / name / "config.json").write_text("{}")
    for name in ("a.toml", "other/b.toml", "c.txt"):
        (tmp_path / name).write_text("")
    assert completed("distsgd ver", tmp_path) == ["verify"]
    assert "--run-dir" in completed("distsgd train --", tmp_path)
    assert completed("distsgd train x --resume a", tmp_path) == ["auto"]
    runs = ["first", "runs/digits-1", "runs/digits-2"]
    assert completed("distsgd show ", tmp_path) == runs
    assert completed("distsgd verify runs/digits-1", tmp_path) == ["runs/digits-1"]
    assert completed("distsgd train x --run-dir r", tmp_path) == runs[1:]
    assert completed("distsgd train ", tmp_path) == ["a.toml", "other/b.toml"]
    assert completed("distsgd draw weights f", tmp_path) == ["first"]
    assert completed("distsgd show nowhere/", tmp_path) == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_shown_for_a_shell(shell: str, tmp_path: Path) -> None:
    program = "from distsgd.cli.app import app; app(prog_name='distsgd')"
    done = subprocess.run(
        [sys.executable, "-c", program, "--show-completion", shell],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        env={
            **os.environ,
            "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1",
            "PYTHONPATH": str(EXAMPLES.parents[1]),
        },
    )
    assert f"_DISTSGD_COMPLETE=complete_{shell}" in done.stdout


def test_want_of_memory_ends_with_four_and_no_traceback(
    capsys: pytest.CaptureFixture[str],
) -> None:
    from distsgd.cli.app import errors_shown

    with pytest.raises(SystemExit) as end, errors_shown():
        raise MemoryError("Unable to allocate 8 TiB")
    assert end.value.code == 4
    assert "not enough memory here for this (Unable to allocate 8 TiB)" in capsys.readouterr().err


def test_warning_of_named_code_is_said_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text("import warnings\n\nwarnings.warn('mind', FutureWarning)\n")
    (tmp_path / "c.toml").write_text("[parallel]\nobserver = 'own:Observer'\n")
    done = subprocess.run(
        [sys.executable, "-m", "distsgd", "train", "c.toml", "--dry-run"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert "warning: mind\n" in done.stderr
    assert "FutureWarning" not in done.stderr
