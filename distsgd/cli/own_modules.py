"""Where a command looks for the code that its configuration names."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

from distsgd.errors import ConfigError

if TYPE_CHECKING:
    from distsgd.config import TrainConfig

_KEYS = {
    "model": "model.factory",
    "worker": "parallel.worker",
    "rule": "optimizer.type",
    "sampler": "batch.sampler",
}


def refuse_elsewhere(config: TrainConfig, path: Path, here: Path | None = None) -> None:
    """Refuse code that lies next to the configuration at `path`, and is not found from here.

    Code is found where the command is started, by every process of a run alike, by resume and by
    verify, which have no configuration next to them.

    Args:
        config: Names the code.
        path: Of `config`.
        here: Where the run is started; the current directory unless given.

    Raises:
        ConfigError: Names the file, and where to start the command.
    """
    from distsgd.run.own_code import named_code

    problems = []
    for what, name in named_code(config):
        package = name.partition(":")[0].partition(".")[0]
        if what in _KEYS and (file := _beside(path.parent, package, here or Path.cwd())):
            where = path.parent
            problems.append(
                f'{_KEYS[what]} is "{name}", and {file.name} lies in {where}; code is found where '
                f"the command is started, or where it is installed (start it there: cd {where}, "
                f"and name {path.name})"
            )
    if problems:
        raise ConfigError(problems)


def _beside(directory: Path, package: str, here: Path) -> Path | None:
    """The file or folder of `package` in `directory`; None where it is found from `here`."""
    found = next(iter(_files(directory, package)), None)
    if found is None or directory.resolve() == here.resolve() or _files(here, package):
        return None
    return found if importlib.util.find_spec(package) is None else None


def _files(directory: Path, package: str) -> list[Path]:
    places = (directory / f"{package}.py", directory / package)
    return [place for place in places if place.exists()]
