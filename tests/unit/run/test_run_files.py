"""What a run begins with: where it lies, and who may write there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distsgd.config import TrainConfig
from distsgd.errors import ConfigError, RunError
from distsgd.run import run_files
from distsgd.run.source import manifest_of, prepared_arrays
from distsgd.run.spec import make_run_spec
from distsgd.store.run_directory import RunDirectory


def config(**sections: Any) -> TrainConfig:
    values: dict[str, Any] = {
        "data": {"path": "rows", "label": "y"},
        "model": {"layers": [{"type": "dense", "units": 1}], "loss": "quadratic"},
        "batch": {"size": 2},
    }
    return TrainConfig.from_dict(values | sections)


@pytest.mark.parametrize(
    ("stem", "name"), [("digits", "digits"), ("*", "run"), ("part-*", "part"), ("a b", "a_b")]
)
def test_find_run_makes_a_name_that_a_shell_takes_plainly(stem: str, name: str) -> None:
    path, is_there = run_files.find_run(config(), stem, None, "never")
    assert not is_there
    assert path.name.rsplit("-", 3)[0] == name


def test_write_beginning_leaves_the_configuration_of_whoever_was_first(tmp_path: Path) -> None:
    rows = np.arange(8.0).reshape(4, 2), np.arange(4.0)
    data = prepared_arrays(config(), rows, tmp_path / "data")
    run = RunDirectory.create(tmp_path / "run")
    first, second = (
        make_run_spec(config(train={"seed": seed}), data, manifest_of(data)) for seed in (1, 2)
    )
    run_files.write_beginning(run, first, None)
    with pytest.raises(RunError, match="holds a run already"):
        run_files.write_beginning(run, second, None)
    assert run_files.recorded_config(run) == first.config


def test_recorded_config_names_the_file_that_cannot_be_run(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path / "run")
    run.write_json(run.environment_path, {"format": run_files.RUN_FORMAT})
    run.write_json(run.config_path, config().to_dict() | {"new_section": {}})
    with pytest.raises(RunError, match=r"config\.json: cannot be run \(new_section is not known"):
        run_files.recorded_config(run)


def test_run_of_another_format_is_refused_by_version(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path / "run")
    run.write_json(run.config_path, config().to_dict())
    run.write_json(run.environment_path, {"distsgd": "0.1.0"})
    says = r"made by distsgd 0\.1\.0 \(run format 1\); distsgd .* reads run format"
    with pytest.raises(RunError, match=says):
        run_files.recorded_config(run)
    with pytest.raises(RunError, match="train anew into another --run-dir"):
        run_files.find_run(config(), "stem", run.path, "auto")


def test_a_directory_is_no_file_of_weights_and_the_file_of_a_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"directory; .* checkpoints/step-\.\.\./weights"):
        run_files.read_weights(tmp_path)
