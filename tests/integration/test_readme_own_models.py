"""Every block of the README's chapter on models of one's own runs as it stands."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tests.integration.test_readme import run
from tests.readme import OWN_MODEL_BLOCKS

pytestmark = pytest.mark.timeout(240)
PYTHON = [text for language, text in OWN_MODEL_BLOCKS if language == "python"]
TOML = [text for language, text in OWN_MODEL_BLOCKS if language == "toml"]
SHELL = [text for language, text in OWN_MODEL_BLOCKS if language == "sh"]
TORCH_MODEL, IN_PYTHON, WEIGHTS_OUT, JAX_MODEL = PYTHON
CONFIG, OF_A_PACKAGE = TOML
NEEDS = "needs {}: scripts/env --with torch,jax"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """The files of the chapter, where the commands are started."""
    (tmp_path / "my_model.py").write_text(TORCH_MODEL)
    (tmp_path / "my_model.toml").write_text(CONFIG)
    (tmp_path / "my_jax_model.py").write_text(JAX_MODEL)
    return tmp_path


def digest(run_directory: Path) -> Any:
    return json.loads((run_directory / "result.json").read_text())["weights_digest"]


def test_every_block_is_one_that_runs() -> None:
    assert len(OWN_MODEL_BLOCKS) == len(PYTHON) + len(TOML) + len(SHELL) == 7


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


def test_plain_torch_loads_the_weights_and_predicts_the_same(place: Path) -> None:
    pytest.importorskip("torch", reason=NEEDS.format("PyTorch"))
    train = "distsgd init digits && distsgd train my_model.toml --workers 0 --run-dir alone"
    (place / "script.py").write_text(WEIGHTS_OUT)
    said = run(f"{train} && python script.py", place).splitlines()
    assert "1.0" in said
    run("distsgd weights alone --out again.safetensors", place)
    assert (place / "again.safetensors").read_bytes() == (
        place / "my_model.safetensors"
    ).read_bytes()


def test_a_module_of_a_package_needs_no_file(place: Path) -> None:
    pytest.importorskip("torch", reason=NEEDS.format("PyTorch"))
    values = tomllib.loads(CONFIG) | tomllib.loads(OF_A_PACKAGE)
    _trains(place, values["model"])


def test_functions_of_jax_train(place: Path) -> None:
    pytest.importorskip("jax", reason=NEEDS.format("JAX"))
    _trains(place, {"factory": "my_jax_model:make"})


def _trains(place: Path, model: dict[str, Any]) -> None:
    (place / "config.json").write_text(json.dumps(model))
    script = (
        "import json, tomllib\n"
        "from distsgd import Trainer\n"
        "config = tomllib.load(open('my_model.toml', 'rb'))\n"
        "config |= {'model': json.load(open('config.json')), 'parallel': {'workers': 0}}\n"
        "run = Trainer(config).fit()\n"
        "assert run.metrics['test_accuracy'] > 0.9, run\n"
        "assert run.metrics['weights_digest'] and run.verify().steps\n"
    )
    (place / "script.py").write_text(script)
    run("distsgd init digits && python script.py", place)
