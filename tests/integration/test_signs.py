"""The loop stands once, in the code; the README and the openings of modules quote that one."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from pathlib import Path

import pytest

from distsgd.parallel.pool.pool import WorkerPool
from distsgd.parallel.server import step_runner
from distsgd.parallel.server.run_logger import RunLogger
from distsgd.parallel.server.step_runner import StepRunner
from distsgd.parallel.server.training import Training

ROOT = Path(__file__).parents[2]
LOOP = re.search(r"step_runner\.py`\):\n\n((?:    .*\n)+)", (ROOT / "README.md").read_text("utf-8"))
CALL = re.compile(r"\b([a-z_]+\.[a-z_]+)\(")
# Other tellings of the loop that once were.
FORMER = re.compile(r"lines? of the step loop|four lines|tree_sum|root\.mean|transport\.gather")
OPENINGS = {
    path.relative_to(ROOT).as_posix(): ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""
    for room in ("distsgd", "workers")
    for path in sorted((ROOT / room).rglob("*.py"))
}


def calls_of_a_step() -> list[str]:
    """What `run_step` calls on the objects of the loop, first to last, each once."""
    (function,) = (
        node
        for node in ast.walk(ast.parse(inspect.getsource(step_runner)))
        if isinstance(node, ast.FunctionDef) and node.name == "run_step"
    )
    calls = [
        node.func
        for node in ast.walk(function)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
    ]
    named = [
        (call.end_lineno, call.end_col_offset, f"{call.value.id}.{call.attr}")
        for call in calls
        if isinstance(call.value, ast.Name) and call.value.id != "self"
    ]
    return list(dict.fromkeys(name for _, _, name in sorted(named)))


def test_loop_of_the_readme_is_the_loop_of_the_code() -> None:
    assert LOOP is not None
    quoted = CALL.findall(LOOP[1])
    assert len(quoted) == 4
    # The step of a rule that asks for losses only is no line of its own.
    assert [name for name in calls_of_a_step() if name != "training.apply_search"] == quoted


@pytest.mark.parametrize(
    ("owner", "method"),
    [
        (WorkerPool, "gather"),
        (Training, "apply"),
        (RunLogger, "step_done"),
        (StepRunner, "run_step"),
    ],
)
def test_call_of_the_loop_exists(owner: type, method: str) -> None:
    assert callable(getattr(owner, method))


def test_no_opening_of_a_module_tells_another_loop() -> None:
    told = {path: FORMER.findall(" ".join(text.split())) for path, text in OPENINGS.items()}
    assert {path: found for path, found in told.items() if found} == {}


def test_each_call_that_an_opening_places_in_the_loop_is_in_it() -> None:
    sign = re.compile(r"In the loop \(`([\w.]+)`\), `([\w.]+)`")
    signs = [
        sign.search(" ".join(text.split()))
        for text in OPENINGS.values()
        if "In the loop" in " ".join(text.split())
    ]
    assert len(signs) >= 6
    assert LOOP is not None
    for found in signs:
        assert found is not None
        assert importlib.import_module(f"distsgd.parallel.{found[1]}") is step_runner
        assert found[2] in CALL.findall(LOOP[1])
