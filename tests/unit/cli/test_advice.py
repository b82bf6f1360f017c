"""Every command that a message advises is whole: a shell and the command line take it as it is."""

from __future__ import annotations

import ast
import inspect
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from distsgd.cli.app import app
from distsgd.cli.show import resume_command
from distsgd.cli.train import Request, next_commands, train
from distsgd.config import TrainConfig
from distsgd.run.run_files import RUN_FORMAT
from distsgd.store import RunDirectory

Command = Callable[..., tuple[int, str, str]]
PACKAGE = Path(__file__).parents[3] / "distsgd"
EXAMPLE = PACKAGE / "examples" / "digits.toml"


def parsed(line: str) -> tuple[str, dict[str, Any]]:
    """The name and the parameters of a command line; fails where it is none."""
    program, *words = shlex.split(line)
    assert program == "distsgd"
    group = typer.main.get_command(app)
    context = group.make_context(program, words)
    while True:
        name, command, rest = group.resolve_command(context, context._protected_args + context.args)  # type: ignore[attr-defined]
        assert command is not None
        context = command.make_context(name, rest, parent=context)
        if not hasattr(command, "commands"):
            return str(name), context.params
        group = command


WISHES: list[dict[str, Any]] = [
    {},
    {"overrides": ["batch.size=64", 'data.label=["a b", "c\'d"]', "data.path=$HOME/`x`"]},
    {"workers": "1-4", "run_dir": Path("runs/my run"), "as_json": True, "quiet": True},
    {"inject": ["kill worker every 50 steps", "kill server at step 3"], "accept_numerics": True},
    {"cache_dir": Path("my cache")},
    {"config": Path("-odd name.toml"), "run_dir": Path("/tmp/ü;rm")},  # noqa: S108 -- never made.
]


@pytest.mark.parametrize("wish", WISHES)
def test_command_that_goes_on_says_all_that_was_typed(wish: dict[str, Any]) -> None:
    config = wish.get("config", Path("my digits.toml"))
    request = Request(**{key: value for key, value in wish.items() if key != "config"})
    name, found = parsed(request.command(config, Path("runs/found")))
    assert name == "train"
    assert found["config"].resolve() == config.resolve()
    assert list(found["overrides"] or ()) == list(request.overrides or ())
    assert found["workers"] == request.workers
    assert found["run_dir"] == (request.run_dir or Path("runs/found"))
    assert list(found["inject"] or ()) == list(request.inject or ())
    assert found["cache_dir"] == request.cache_dir
    for flag in ("accept_numerics", "as_json", "quiet"):
        assert found[flag] == getattr(request, flag)
    assert found["resume"] == "auto"
    assert found["dry_run"] is False


def test_request_holds_every_option_of_train() -> None:
    fields = set(inspect.signature(Request).parameters)
    assert set(inspect.signature(train).parameters) == fields | {"config", "dry_run", "chaos"}
    shown = inspect.getsource(Request.command)
    assert [name for name in fields - {"resume", "take_over"} if f"self.{name}" not in shown] == []


def test_finished_run_advises_commands_that_run(command: Command, tmp_path: Path) -> None:
    command("init", "digits", "--dir", "a place")
    config = "a place/digits.toml"
    words = ["--workers", "0", "--run-dir", "my run", "--set", "train.epochs=1"]
    _, _, err = command("train", config, *words, "--cache-dir", "a cache")
    advised = re.findall(r"^\s*(distsgd .*)$", err, re.MULTILINE)
    assert [line.split()[1] for line in advised] == ["show", "verify", "predict"]
    assert shlex.split(advised[1])[-2:] == ["--cache-dir", str(Path.cwd() / "a cache")]
    for line in advised:
        assert command(*shlex.split(line)[1:])[0] == 0
    assert next_commands(tmp_path / "my run", "a place/digits.parquet")[-1].endswith(
        "predictions1.parquet"
    )
    for source in ("s3://bucket/a.parquet", "a place/*.parquet", "a place"):
        assert len(next_commands(tmp_path / "my run", source)) == 2


def test_init_advises_a_command_that_runs(command: Command) -> None:
    _, _, err = command("init", "digits", "--dir", "a place")
    line = err.partition("next: ")[2].strip()
    assert command(*shlex.split(line)[1:], "--dry-run")[0] == 0


def test_show_of_an_unfinished_run_advises_a_command_that_goes_on(
    command: Command, tmp_path: Path
) -> None:
    config = TrainConfig.from_toml(EXAMPLE)
    config = config.with_overrides(["train.epochs=1", "parallel.workers=0"])
    run = RunDirectory.create(tmp_path / "my run")
    run.write_json(run.config_path, config.to_dict())
    run.write_json(run.environment_path, {"format": RUN_FORMAT})
    line = resume_command(run, config.to_dict())
    name, found = parsed(line)
    assert (name, found["run_dir"], found["resume"]) == ("train", run.path, "auto")
    # Only its configuration is there, so that it is begun under another name.
    words = shlex.split(line)[1:]
    words[words.index("--run-dir") + 1] = "other"
    assert command(*words)[0] == 0
    code, _, err = command(*words)
    assert code == 0
    assert "is finished; nothing to do" in err


def test_run_of_arrays_advises_python(tmp_path: Path) -> None:
    config = TrainConfig.from_dict({"model": TrainConfig.from_toml(EXAMPLE).model.model_dump()})
    line = resume_command(RunDirectory(tmp_path), config.to_dict())
    assert "Trainer(config, data=(x, y)" in line
    assert "distsgd train" not in line


def advised_in_source() -> Iterator[tuple[Path, str]]:
    """Commands with their arguments in the texts of the package; docstrings are no messages."""
    for path in PACKAGE.rglob("*.py"):
        tree = ast.parse(path.read_text())
        docstrings = {
            id(node.body[0].value)
            for node in ast.walk(tree)
            if isinstance(node, ast.Module | ast.FunctionDef | ast.ClassDef)
            and node.body
            and isinstance(node.body[0], ast.Expr)
        }
        for node in ast.walk(tree):
            if (
                isinstance(node, ast.Constant)
                and isinstance(node.value, str)
                and id(node) not in docstrings
            ):
                for found in re.findall(r"\bdistsgd [a-z][\w-]*[^`\n)]*", node.value):
                    yield path.relative_to(PACKAGE), found


def test_commands_written_out_in_messages_are_whole() -> None:
    names = {
        command.name or str(getattr(command.callback, "__name__", "")).replace("_", "-")
        for command in app.registered_commands
    }
    found = [(path, line) for path, line in advised_in_source() if line.split()[1] in names]
    assert found
    for path, line in found:
        assert parsed(line.strip())[0] in names, path
