"""Modules of Ray are loaded in two rooms only, and never while a module of ours is imported."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import distsgd

PACKAGE = Path(distsgd.__file__).parent
ROOMS = ("parallel/launch/", "jobs/")


def loads_of_ray(tree: ast.AST) -> Iterator[ast.AST]:
    """Where a tree imports Ray, or a module of its."""
    for node in ast.walk(tree):
        names: list[object] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names = [node.module]
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            names = [it.value for it in node.args if isinstance(it, ast.Constant)]
        if any(str(name).partition(".")[0] == "ray" for name in names):
            yield node


def inside_functions(tree: ast.AST) -> set[ast.AST]:
    functions = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
    return {it for node in ast.walk(tree) if isinstance(node, functions) for it in ast.walk(node)}


@pytest.mark.parametrize(
    ("text", "is_seen"),
    [
        ("import ray", True),
        ("from ray.util import metrics", True),
        ('importlib.import_module("ray._private.state")', True),
        ("from rays import ray", False),
        ("from . import ray_metrics", False),
        ('importlib.import_module("numpy")', False),
    ],
)
def test_a_load_of_ray_is_seen(text: str, *, is_seen: bool) -> None:
    assert bool(list(loads_of_ray(ast.parse(text)))) is is_seen


def test_ray_is_loaded_in_its_rooms_and_by_calls_only() -> None:
    found = {}
    for path in PACKAGE.rglob("*.py"):
        tree = ast.parse(path.read_text("utf-8"))
        if loads := set(loads_of_ray(tree)):
            found[path.relative_to(PACKAGE).as_posix()] = loads - inside_functions(tree)
    assert found, "nothing loads Ray: the test looks at the wrong place"
    assert not [name for name in found if not name.startswith(ROOMS)]
    assert not [name for name, at_import in found.items() if at_import]
