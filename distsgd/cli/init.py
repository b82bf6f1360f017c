"""``init``: an example, its configuration and its data."""

import shlex
from collections.abc import Iterator
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Literal

import typer

from distsgd.cli.options import given_path
from distsgd.cli.terminal.messages import command_line, say
from distsgd.errors import ConfigError, DiskError

Example = Literal["digits", "gpt"]

_SHIPPED = {
    "digits": ("digits.toml", "digits.parquet"),
    "gpt": ("gpt.toml", "gpt_model.py", "gpt_sample.py"),
}


def init(
    example: Annotated[
        Example,
        typer.Argument(
            help="Which example: handwritten digits, or a transformer on Python's help topics."
        ),
    ],
    *,
    directory: Annotated[
        Path, typer.Option("--dir", metavar="DIR", parser=given_path, help="Where to write it.")
    ] = Path(),
) -> None:
    """Write an example configuration and its data, ready to run and to edit.

    A file that differs is never overwritten.
    """
    contents = {directory / name: content for name, content in _contents(example).items()}
    try:
        directory.mkdir(parents=True, exist_ok=True)
        missing = [path for path in contents if not path.exists()]
        problems = [
            f"{path} exists already and differs; it is not overwritten"
            " (move it away, or choose another --dir)"
            for path, content in contents.items()
            if path not in missing and not (path.is_file() and path.read_bytes() == content)
        ]
        if problems:
            raise ConfigError(problems)
        for path in missing:
            _write_new(path, contents[path])
    except (FileExistsError, NotADirectoryError) as error:
        raise ConfigError([f"{directory}: cannot be written: {error.strerror} (--dir)"]) from None
    except OSError as error:
        reason = f"cannot be written: {error.strerror} (make room or rights there, or name --dir)"
        raise DiskError(directory, reason) from None
    for path in contents:
        say(f"wrote {path}" if path in missing else f"kept {path}, which is this example already")
    for line in _next_lines(example, directory):
        say(line)


def _contents(example: Example) -> dict[str, bytes]:
    """The files by name: shipped, or made of what is on this machine."""
    shipped = files("distsgd") / "examples"
    contents = {name: (shipped / name).read_bytes() for name in _SHIPPED[example]}
    if example == "digits":
        return contents
    from distsgd.cli.help_text import character_tables, help_text, parquet_bytes

    training, held_out = map(parquet_bytes, character_tables(help_text()))
    return contents | {"gpt.parquet": training, "gpt_test.parquet": held_out}


def _next_lines(example: Example, directory: Path) -> Iterator[str]:
    if example == "digits":
        yield f"next: {command_line('train', directory / 'digits.toml')}"
        return
    if find_spec("torch") is None:
        yield "this example needs PyTorch, which is not installed (pip install 'distsgd[torch]')"
    yield "next:"
    if directory != Path():  # The model is imported from where a run is started.
        yield f"  cd {shlex.quote(str(directory))}"
    yield f"  {command_line('train', 'gpt.toml', '--run-dir', 'gpt')}"
    yield "  python gpt_sample.py gpt"


def _write_new(path: Path, content: bytes) -> None:
    """The whole file, or none."""
    with path.open("xb") as file:
        try:
            file.write(content)
            file.flush()
        except BaseException:
            path.unlink()
            raise
