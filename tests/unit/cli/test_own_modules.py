"""Code that lies next to a configuration, where the command is started elsewhere."""

from collections.abc import Callable
from pathlib import Path

import pytest

from distsgd.cli.own_modules import refuse_elsewhere
from distsgd.config import TrainConfig
from distsgd.errors import ConfigError

Command = Callable[..., tuple[int, str, str]]
CONFIG = """
[data]
path = "rows.csv"
label = "y"
[model]
factory = "model_nearby:make"
[optimizer]
type = "model_nearby:Rule"
"""


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with a configuration, below the current one."""
    monkeypatch.chdir(tmp_path)
    place = tmp_path / "some" / "where"
    place.mkdir(parents=True)
    (place / "own.toml").write_text(CONFIG)
    return place


def test_code_next_to_the_configuration_is_refused_with_where_to_start(
    elsewhere: Path, command: Command
) -> None:
    (elsewhere / "model_nearby.py").write_text("raise RuntimeError")
    for words in (("train", "--dry-run"), ("soak",), ("train",)):
        code, _, said = command(words[0], "some/where/own.toml", *words[1:])
        assert code == 2
        assert (
            'model.factory is "model_nearby:make", and model_nearby.py lies in some/where' in said
        )
        assert 'optimizer.type is "model_nearby:Rule"' in said
        assert "start it there: cd some/where, and name own.toml" in " ".join(said.split())


def test_code_that_is_found_from_here_is_not_refused(elsewhere: Path, tmp_path: Path) -> None:
    config, path = TrainConfig.from_toml(elsewhere / "own.toml"), elsewhere / "own.toml"
    refuse_elsewhere(config, path)  # There is none: it may be installed where the run is made.
    (elsewhere / "model_nearby").mkdir()
    with pytest.raises(ConfigError, match="model_nearby lies in"):
        refuse_elsewhere(config, path)
    refuse_elsewhere(config, path, here=elsewhere)
    (tmp_path / "model_nearby.py").write_text("")
    refuse_elsewhere(config, path)
