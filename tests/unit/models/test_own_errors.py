"""Errors in the user's code are told once, with his own traceback, from whichever process."""

from __future__ import annotations

import importlib
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from distsgd.base.random_keys import permutation
from distsgd.errors import ConfigError, DataError, ModelError
from distsgd.models import Recipe, RowSpec
from distsgd.models.factory import model_again
from distsgd.models.own_errors import OwnCodeError, own_code

SOURCE = """
def inner(x):
    raise ValueError("no such x: %s\\nsee line two" % x)


def outer(x):
    return inner(x)


def calls(function):
    return function()
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """A module of a user's."""
    (tmp_path / "code_of_user.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("code_of_user")
    sys.modules.pop("code_of_user", None)


def raised(function: Any, *arguments: Any) -> OwnCodeError:
    with pytest.raises(OwnCodeError) as found, own_code("code_of_user:make"):
        function(*arguments)
    return found.value


def test_error_has_the_users_traceback_and_says_each_thing_once(own: ModuleType) -> None:
    error = raised(own.outer, 3)
    assert isinstance(error, ModelError)
    lines = str(error).splitlines()
    assert lines[0] == "code_of_user:make raises ValueError: no such x: 3 (mend it):"
    assert lines[-2:] == ["ValueError: no such x: 3", "see line two"]
    assert str(error).count("in outer") == str(error).count("in inner") == 1


def test_frames_of_ours_are_left_out(own: ModuleType) -> None:
    error = raised(own.calls, lambda: permutation(0, 1, size=-1))  # type: ignore[arg-type]
    assert "in calls" in str(error)
    assert "random_keys" not in str(error)


def test_note_on_an_error_is_told_below_it() -> None:
    error = ValueError("first\nsecond")
    error.add_note("a hint")

    def raises() -> None:
        raise error

    found = raised(raises)
    assert found.reason == "ValueError: first"
    assert found.frames.endswith("ValueError: first\nsecond\na hint\n")


def test_step_is_added_and_all_survives_pickling(own: ModuleType) -> None:
    error = pickle.loads(pickle.dumps(raised(own.outer, 3).at(7)))  # noqa: S301 -- our own.
    assert (error.name, error.step) == ("code_of_user:make", 7)
    assert "ValueError: no such x: 3 at step 7 (mend it)" in str(error)
    assert error.exit_code == ModelError.exit_code


@pytest.mark.parametrize("error", [MemoryError(), KeyboardInterrupt(), DataError("x", "is bad")])
def test_what_is_no_fault_of_the_code_passes_as_it_is(error: BaseException) -> None:
    def raises() -> None:
        raise error

    with pytest.raises(type(error)) as found, own_code("m:make"):
        raises()
    assert found.value is error


def test_error_without_a_frame_of_the_users_shows_the_last_of_the_library() -> None:
    def rows() -> None:
        np.linalg.cholesky(-np.eye(2))

    with pytest.raises(OwnCodeError) as found, own_code("m:make"):
        rows()
    assert "in cholesky" in found.value.frames


def test_model_that_another_node_lacks_is_named_with_the_node_and_the_way_out() -> None:
    recipe = Recipe("no_such_module_here:make", {}, RowSpec((2,), "class", 2))
    with pytest.raises(ConfigError) as found:
        model_again(recipe)
    text = str(found.value)
    assert text.startswith("node ")
    assert 'model.factory: "no_such_module_here:make" cannot be found' in text
    assert "distsgd job submit takes the working directory there" in text
    assert "py_modules" in text


def test_model_reaches_no_process_whose_path_lacks_its_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a worker of another node does with a model that comes to it."""
    pytest.importorskip("torch", reason="PyTorch is not installed")
    (tmp_path / "only_here.py").write_text(
        "import torch\n\n\ndef make(inputs, outputs):\n"
        "    return torch.nn.Linear(inputs, outputs), torch.nn.CrossEntropyLoss(reduction='none')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    model = model_again(Recipe("only_here:make", {}, RowSpec((2,), "class", 2)))
    (tmp_path / "model.pickle").write_bytes(pickle.dumps(model))
    sys.modules.pop("only_here", None)
    (tmp_path / "elsewhere").mkdir()
    without = [path for path in sys.path if path != str(tmp_path)]
    said = _loaded(tmp_path, without)
    assert "distsgd.errors.ConfigError: node " in said
    assert '"only_here:make" cannot be found' in said
    assert _loaded(tmp_path, [*without, str(tmp_path)]) == "6\n"


def _loaded(directory: Path, paths: list[str]) -> str:
    """What a process with these on its path says of the model that is pickled there."""
    code = "import pickle, sys; print(pickle.load(open(sys.argv[1], 'rb')).num_parameters)"
    done = subprocess.run(
        [sys.executable, "-c", code, str(directory / "model.pickle")],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        cwd=directory / "elsewhere",
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    return done.stdout or done.stderr
