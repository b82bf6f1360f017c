"""``init``: a shipped example, its configuration and its data."""

from importlib.resources import files
from pathlib import Path
from typing import Annotated, Literal

import typer

from distsgd.cli.options import given_path
from distsgd.cli.terminal.messages import command_line, say
from distsgd.errors import ConfigError, DiskError

_SUFFIXES = (".toml", ".parquet")


def init(
    example: Annotated[Literal["digits"], typer.Argument(help="Which example.")],
    *,
    directory: Annotated[
        Path, typer.Option("--dir", metavar="DIR", parser=given_path, help="Where to write it.")
    ] = Path(),
) -> None:
    """Write an example configuration and its data, ready to run and to edit.

    A file that differs is never overwritten.
    """
    shipped = files("distsgd") / "examples"
    contents = {
        directory / f"{example}{end}": (shipped / f"{example}{end}").read_bytes()
        for end in _SUFFIXES
    }
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
    say(f"next: {command_line('train', directory / f'{example}.toml')}")


def _write_new(path: Path, content: bytes) -> None:
    """The whole file, or none."""
    with path.open("xb") as file:
        try:
            file.write(content)
            file.flush()
        except BaseException:
            path.unlink()
            raise
