"""Bytes from a file or a socket of ours never become code."""

from __future__ import annotations

import ast
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hostile.runs import KilledRun

ROOT = Path(__file__).parents[2]
FILES = sorted([*ROOT.glob("distsgd/**/*.py"), *ROOT.glob("workers/**/*.py")])
MODULES = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
CHANNELS = {"multiprocessing.connection", "multiprocessing.managers"}
CALLS = {"eval", "exec", "compile", "__import__", "read_pickle", "allow_pickle", "recv_pyobj"}
# These unpickle, or may be told to: (what they are an attribute of, or None for anything; name).
METHODS = {("torch", "load"), ("np", "load"), ("numpy", "load"), (None, "recv_pyobj")}
METHODS |= {(None, "read_pickle"), (None, "deserialize_pandas"), ("yaml", "load")}


def forbidden(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names if name.name.split(".")[0] in MODULES)
            yield from (name.name for name in node.names if name.name in CHANNELS)
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if module.split(".")[0] in MODULES or module in CHANNELS:
                yield module
        elif isinstance(node, ast.keyword) and node.arg == "allow_pickle":
            yield "allow_pickle"
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            if node.func.id in CALLS:
                yield node.func.id
        elif isinstance(node, ast.Attribute):
            owner = node.value.id if isinstance(node.value, ast.Name) else None
            if (owner, node.attr) in METHODS or (None, node.attr) in METHODS:
                yield f"{owner}.{node.attr}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_source_has_no_way_to_unpickle(path: Path) -> None:
    assert list(forbidden(ast.parse(path.read_text("utf-8")))) == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from pickle import loads",
        "import cloudpickle.compat",
        "np.load(file)",
        "torch.load(file)",
        "numpy.fromfile(x, allow_pickle=True)",
        "socket.recv_pyobj()",
        "eval(text)",
        "from multiprocessing.connection import Client",
    ],
)
def test_what_unpickles_is_found(source: str) -> None:
    assert list(forbidden(ast.parse(source)))


def test_run_and_cache_are_private(tmp_path: Path) -> None:
    killed = KilledRun.make(tmp_path)
    for root in (killed.place / "whole", killed.place / "cache"):
        paths = [root, *root.rglob("*")]
        assert len(paths) > 5
        for path in paths:
            mode = stat.S_IMODE(path.stat().st_mode)
            if path.is_dir():
                assert mode == 0o700, path
            else:
                # Within a private directory nobody else comes so far.
                assert not mode & 0o022, path
    for path in (killed.place / "whole").rglob("*"):
        assert not stat.S_IMODE(path.stat().st_mode) & 0o077, path
