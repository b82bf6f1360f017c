"""A model of one's own is admitted before its run begins: tried on the first rows, once.

What was admitted is kept in the cache of this node, by all that decides about it: the bits of one
block in training and in evaluation, and the sources of all modules of the user's own, among it.
"""

from __future__ import annotations

import math
import sys
import sysconfig
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from blake3 import blake3

from distsgd import __version__
from distsgd.base.files import encode_json, make_private_directory, read_json, write_bytes_atomic
from distsgd.data.dataset import DataSet
from distsgd.errors import DistSGDError
from distsgd.models import Recipe
from distsgd.models.admission import Admission
from distsgd.models.rehearsal import Block, Rehearsal
from distsgd.run.own_code import source_digest
from distsgd.run.spec import RunSpec

Say = Callable[[str], None]
ADMITTED = "admitted"  # A directory of the cache.
_NAMING = ("factory", "options", "loss", "loss_options", "rows", "per_sample")
_FRAMEWORKS = ("numpy", "torch", "jax", "jaxlib", "flax")
_OURS = ("distsgd", "distsgd_workers")
_INSTALLED = {"site-packages", "dist-packages"}  # Directories.
FEWEST_ROWS, MOST_ROWS, MOST_NUMBERS = 16, 64, 1 << 24


def admit(run_spec: RunSpec, cache_dir: Path, say: Say) -> None:
    """Try a model that a factory makes; nothing for a network of layers. Says one line.

    Args:
        run_spec: The run.
        cache_dir: Of this node.
        say: Takes the line.

    Raises:
        ModelError: It cannot be trained so that the bits are the same for any number of workers;
            names what is to blame, and the way out.
        DataError: The rows cannot be read.
    """
    recipe = getattr(run_spec.model, "recipe", None)
    if not isinstance(recipe, Recipe):
        return
    started = perf_counter()
    config = run_spec.config
    weights_P = run_spec.model.initialise(
        config.model.init or "", config.train.seed, np.dtype(config.train.dtype)
    )
    rehearsal = Rehearsal(run_spec.model, _first_rows(run_spec), weights_P, run_spec.is_per_sample)
    admission = Admission(recipe, rehearsal)
    first = admission.first()
    asked = _asked(recipe, run_spec, first.digest)
    file = cache_dir / ADMITTED / f"{_key(asked)}.json"
    if is_known := asked["source"] is not None and _read(file) == asked:
        what = "as before"
    else:
        admission.check(first)
        norms = ", norms exact" if run_spec.is_per_sample else ""
        rows = len(rehearsal.block)
        what = f"the same bits twice, no row in another's loss{norms} (on {rows} rows)"
    say(f"admitted {recipe.name} in {perf_counter() - started:.1f} s: {what}")
    if not is_known and asked["source"] is not None:
        _write(file, asked, say)


def _first_rows(run_spec: RunSpec) -> Block:
    """The first training rows: at least 16 if there are so many, at most 64 or a block."""
    rows, model = DataSet.open(run_spec.data, verify=False).train, run_spec.model
    most = MOST_NUMBERS // max(1, model.numbers_per_sample)  # 0 where nothing is held.
    most = min(run_spec.sampler.blocking.block_rows, most)
    count = min(rows.num_rows, max(FEWEST_ROWS, min(MOST_ROWS, most)))
    dtype = run_spec.config.train.dtype
    x_NI = np.zeros((count, math.prod(model.input_shape)), dtype)
    is_class = model.target_kind == "class"
    target = np.zeros((count, *model.target_shape), np.int64 if is_class else dtype)
    rows.gather_range_inplace(0, count, x_NI=x_NI, target=target, squared_norms_N=None)
    return Block(x_NI.reshape(count, *model.input_shape), target)


def _asked(recipe: Recipe, run_spec: RunSpec, block_digest: str) -> dict[str, Any]:
    """All that an admission rests on, as JSON values."""
    dtype = run_spec.config.train.dtype
    is_named = isinstance(recipe.factory, str)
    rows = asdict(recipe.rows)
    return {
        "distsgd": __version__,
        "factory": recipe.name,
        "source": source_digest(recipe.name) if is_named else None,
        "modules": _own_modules(),
        "versions": _versions(),
        "options": dict(recipe.options),
        "loss": recipe.loss,
        "loss_options": dict(recipe.loss_options),
        "rows": {key: list(it) if isinstance(it, tuple) else it for key, it in rows.items()},
        "arithmetic": dict(run_spec.model.arithmetic(np.dtype(dtype))),
        "dtype": dtype,
        "per_sample": run_spec.is_per_sample,
        "block": block_digest,
    }


def _own_modules() -> dict[str, str]:
    """Digests of the sources of loaded modules, but for Python's, installed ones and ours."""
    libraries = [Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib")]
    digests: dict[str, str] = {}
    for name, module in sorted(sys.modules.items()):
        file = getattr(module, "__dict__", {}).get("__file__")
        if not isinstance(file, str) or name.partition(".")[0] in _OURS:
            continue
        path = Path(file)
        if _INSTALLED.isdisjoint(path.parts) and not any(map(path.is_relative_to, libraries)):
            with suppress(OSError):  # Of some modules it is a name of no file.
                digests[name] = blake3(path.read_bytes()).hexdigest()
    return digests


def _versions() -> dict[str, str]:
    """Of the frameworks that are loaded."""
    return {
        name: str(getattr(sys.modules[name], "__version__", ""))
        for name in _FRAMEWORKS
        if name in sys.modules
    }


def _key(asked: dict[str, Any]) -> str:
    """One file for each factory with its options and rows: the last admission alone is kept."""
    named = {key: asked[key] for key in _NAMING}
    return str(blake3(encode_json(Path(ADMITTED), named)).hexdigest()[:32])


def _read(file: Path) -> dict[str, Any]:
    """What was admitted; of a file that is missing or damaged, nothing."""
    with suppress(DistSGDError):
        return read_json(file)
    return {}


def _write(file: Path, asked: dict[str, Any], say: Say) -> None:
    try:
        make_private_directory(file.parent)
        write_bytes_atomic(file, encode_json(file, asked, indent=2))
    except DistSGDError as error:
        say(f"it will be tried again at the next start: {error}")
