"""Every block of the README's chapter on models of one's own runs as it stands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.integration.test_readme import run
from tests.readme import OWN_MODEL_BLOCKS

pytestmark = pytest.mark.timeout(240)
PYTHON = [text for language, text in OWN_MODEL_BLOCKS if language == "python"]
TOML = [text for language, text in OWN_MODEL_BLOCKS if language == "toml"]
SHELL = [text for language, text in OWN_MODEL_BLOCKS if language == "sh"]
TORCH_MODEL, IN_PYTHON = PYTHON
(CONFIG,) = TOML
NEEDS = "needs {}: scripts/env --with torch,jax"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """The files of the chapter, where the commands are started."""
    (tmp_path / "my_model.py").write_text(TORCH_MODEL)
    (tmp_path / "my_model.toml").write_text(CONFIG)
    return tmp_path


def digest(run_directory: Path) -> Any:
    return json.loads((run_directory / "result.json").read_text())["weights_digest"]


def test_every_block_is_one_that_runs() -> None:
    assert len(OWN_MODEL_BLOCKS) == len(PYTHON) + len(TOML) + len(SHELL) == 4


def test_the_commands_run_and_workers_change_no_bit(place: Path) -> None:
    pytest.importorskip("torch", reason=NEEDS.format("PyTorch"))
    (commands,) = SHELL
    said = run(commands, place)
    assert "model        my_model:make(width=64); 64 features, 10 outputs" in said
    assert digest(place / "alone") == digest(place / "shared") != digest(place / "narrow")


def test_the_function_is_handed_in(place: Path) -> None:
    pytest.importorskip("torch", reason=NEEDS.format("PyTorch"))
    (place / "script.py").write_text(IN_PYTHON)
    said = run("distsgd init digits && python script.py", place).splitlines()
    accuracy, _, shapes = said[:3]  # Standard output comes first.
    assert float(accuracy) > 0.95
    assert shapes.startswith("{'0.weight': (64, 64), '0.bias': (64,), '2.weight': (10, 64), ")
