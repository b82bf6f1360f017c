"""What is written into a run before it trains, and which run a configuration resumes."""

from __future__ import annotations

import platform
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

from safetensors import SafetensorError
from safetensors.numpy import load, load_file, save

from distsgd import __version__
from distsgd.base.arrays import Array
from distsgd.base.files import (
    STAGING,
    as_run_error,
    make_private_directory,
    write_bytes_atomic,
)
from distsgd.base.locations import Location
from distsgd.config import TrainConfig
from distsgd.data.manifest import MANIFEST_FILE
from distsgd.errors import ConfigError, DistSGDError, RunError
from distsgd.models.weights import weights_vector
from distsgd.parallel import numerics
from distsgd.run import own_code
from distsgd.run.spec import RunSpec
from distsgd.store.beginning import BEGINNING, INITIAL_WEIGHTS
from distsgd.store.run_directory import RunDirectory

Resume = Literal["never", "auto"]
RUNS = "runs"
# What a run's files mean, and its bits: 1 drew mini-batches from fixed shares of the rows.
RUN_FORMAT = 3
CHECKPOINTS_GONE = "its checkpoints are gone; restore them, or train into another --run-dir"
_HOLDS_A_RUN = "holds a run already; resume it (--resume auto), or choose another --run-dir"
_NOT_READ_AGAIN = {"parallel": ("observer", "observer_options")}
LOCK_TIMEOUT_S = 30.0  # Another process that begins the same run writes a few small files.
_PACKAGES = ("numpy", "pyarrow", "ray", "safetensors", "pyzmq", "blake3")


def find_run(
    config: TrainConfig, stem: str, wanted: Path | Location | None, resume: Resume
) -> tuple[Path | Location, bool]:
    """The directory of this run, and whether it exists already.

    Without a directory of one's own, a resume finds the newest run of the same configuration under
    ``runs/``.

    Args:
        config: Of the run.
        stem: What its data are called; what no shell takes plainly (a glob's ``*``) is left out.
        wanted: The directory or the address that was asked for.
        resume: "auto" resumes a run that exists.

    Raises:
        RunError: The directory holds a run, and is not to be resumed, or belongs to another
            configuration.
    """
    if wanted is not None:
        if not RunDirectory.is_run(wanted):
            return wanted, False
        if resume == "never":
            raise RunError(wanted, _HOLDS_A_RUN)
        _check_same_configuration(wanted, config)
        return wanted, True
    stem = re.sub(r"[^\w.-]+", "_", stem).strip("_.-") or "run"
    if resume == "auto":
        for path in sorted(Path(RUNS).glob(f"{stem}-*"), reverse=True):
            if RunDirectory.is_run(path) and _same_configuration(path, config):
                return path, True
    now = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    return Path(RUNS) / f"{stem}-{now}-{uuid4().hex[:4]}", False


@contextmanager
def staging_beside(path: Path) -> Iterator[Path]:
    """A private directory next to that of a run; removed in the end, with what was made for it."""
    made = [parent for parent in path.parents if not parent.exists()]
    try:
        with as_run_error(path.parent):
            path.parent.mkdir(parents=True, exist_ok=True)
            staging = Path(tempfile.mkdtemp(prefix=f"{STAGING}{path.name}-", dir=path.parent))
        try:
            yield staging
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    finally:
        for parent in made:
            with suppress(OSError):  # The run itself may lie there by now.
                parent.rmdir()


def begin(
    path: Path | Location,
    run_spec: RunSpec,
    initial_weights: Array | None,
    rows: Path | None = None,
) -> RunDirectory:
    """A new run at `path`, with what it is made of (`write_beginning`), or nothing at all there.

    Raises:
        RunError: There is something else, no right to write, or another process was first.
    """
    was_there = isinstance(path, Path) and path.exists()
    run = RunDirectory.create(path)
    try:
        write_beginning(run, run_spec, initial_weights, rows)
        run.begin()
    except BaseException:
        if run.copy is None and not RunDirectory.is_run(path):
            _remove_beginning(run, keep_directory=was_there)
        raise
    return run


def withdraw(run: RunDirectory) -> None:
    """Remove a run that has written down nothing but its beginning, unless a process has it."""
    if run.copy is not None:
        with suppress(DistSGDError):
            run.copy.withdraw(BEGINNING)
        return
    with suppress(RunError), run.driver_lock(0.0), run.lock(0.0):
        files = {entry.name for entry in run.path.iterdir()}
        is_empty = not any(any(place.iterdir()) for place in (run.checkpoints, run.history))
        if is_empty and files <= BEGINNING:
            _remove_beginning(run, keep_directory=False)


def _remove_beginning(run: RunDirectory, *, keep_directory: bool) -> None:
    run.config_path.unlink(missing_ok=True)  # First: without it there is no run.
    for name in BEGINNING:
        place = run.path / name
        if place.is_dir():
            shutil.rmtree(place, ignore_errors=True)
        else:
            place.unlink(missing_ok=True)
    if not keep_directory:
        with suppress(OSError):
            run.path.rmdir()


def write_beginning(
    run: RunDirectory,
    run_spec: RunSpec,
    initial_weights: Array | None,
    rows: Path | None = None,
) -> None:
    """Write down what the run is made of.

    Data, network, environment, start weights if they were given; `rows` is a prepared directory
    that becomes the run's own.

    The configuration comes last, since a directory with one is a run. Blocks while another process
    writes there.

    Raises:
        RunError: Another process was first.
    """
    # Two that start at once into one directory must not leave one's configuration over the other's.
    # A working copy is nobody else's, and becomes a run as a whole.
    with nullcontext() if run.copy else run.lock(LOCK_TIMEOUT_S):
        if RunDirectory.is_run(run.path):
            raise RunError(run.place, _HOLDS_A_RUN)
        manifest_copy = run.path / "data" / MANIFEST_FILE
        make_private_directory(manifest_copy.parent)
        if rows is not None:
            with as_run_error(manifest_copy.parent):
                shutil.rmtree(manifest_copy.parent)  # What was there was never begun.
                rows.rename(manifest_copy.parent)
        elif manifest_copy.parent != run_spec.data:
            write_bytes_atomic(manifest_copy, (run_spec.data / MANIFEST_FILE).read_bytes())
        if initial_weights is not None:
            named = run_spec.model.views(initial_weights)
            write_bytes_atomic(run.path / INITIAL_WEIGHTS, save(named))
        run.write_json(run.model_path, own_code.described(run_spec.model))
        run.write_json(run.environment_path, environment(run_spec))
        run.write_json(run.config_path, run_spec.config.to_dict())


def recorded_config(run: RunDirectory) -> TrainConfig:
    """The configuration that `run` was begun with, but for its observer.

    That one watched processes which have ended; a reader of the run need not have its module.

    Raises:
        RunError: It is damaged, or of a version that drew other mini-batches or knew other keys.
    """
    _check_format(run)
    values = run.read_json(run.config_path)
    for section, keys in _NOT_READ_AGAIN.items():
        if isinstance(table := values.get(section), dict):
            values[section] = {key: it for key, it in table.items() if key not in keys}
    try:
        return TrainConfig.from_dict(values)
    except ConfigError as error:
        reason = f"cannot be run ({'; '.join(error.problems)}); restore it, or train anew"
        raise RunError(run.config_path, reason) from None


def read_initial_weights(run: RunDirectory, run_spec: RunSpec) -> Array | None:
    """The start weights that were given to `run`, as one vector; None for random ones."""
    file = run.path / INITIAL_WEIGHTS
    if not file.exists():
        return None
    return weights_vector(run_spec.model, read_weights(file), run_spec.config.train.dtype)


def read_weights(file: Path | Location) -> dict[str, Array]:
    """The arrays of a safetensors file. Raises ConfigError; StorageError where that refuses."""
    try:
        return load_file(file) if isinstance(file, Path) else load(file.read_bytes())
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        reason = (
            "this is a directory; a run's weights are checkpoints/step-.../weights.safetensors"
            if isinstance(file, Path) and file.is_dir()
            else error
        )
        raise ConfigError(
            [f"model.initial_weights is {file}; must be a safetensors file ({reason})"]
        ) from None


def environment(run_spec: RunSpec) -> dict[str, Any]:
    """What decides about the bits besides the configuration, and what helps to read the record."""
    return {
        "format": RUN_FORMAT,
        "distsgd": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "numerics": numerics.profile(run_spec.config.train.dtype, run_spec.model).to_dict(),
        "data": str(run_spec.data),
        "data_digest": run_spec.manifest.digest,
        "sampler": run_spec.sampler.describe(),
        "command": sys.argv,
        own_code.RECORD: own_code.record(run_spec.config, run_spec.own),
    }


def _version(package: str) -> str | None:
    """None where it is not installed: without workers, Ray need not be."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _check_format(run: RunDirectory) -> None:
    recorded = run.read_json(run.environment_path)
    found = recorded.get("format", 1)
    if found != RUN_FORMAT:
        raise RunError(
            run.path,
            f"was made by distsgd {recorded.get('distsgd')} (run format {found}); distsgd "
            f"{__version__} reads run format {RUN_FORMAT} only; use the run with the version that "
            "made it, or train anew into another --run-dir",
        )


def _same_configuration(path: Path | Location, config: TrainConfig) -> bool:
    try:
        recorded = recorded_config(RunDirectory.open(path))
    except RunError:
        return False
    return recorded.canonical() == config.canonical()


def _check_same_configuration(path: Path | Location, config: TrainConfig) -> None:
    recorded = recorded_config(RunDirectory.open(path))
    then, now = _flat(recorded.canonical()), _flat(config.canonical())
    changed = [
        f"{key} is {now.get(key)!r}, was {then.get(key)!r}"
        for key in sorted(then | now)
        if then.get(key) != now.get(key)
    ]
    if changed:
        raise RunError(
            path,
            f"belongs to another configuration ({'; '.join(changed)}); use that one, or "
            "another --run-dir",
        )


def _flat(canonical: dict[str, Any]) -> dict[str, Any]:
    return {
        f"{section}.{key}": value
        for section, table in canonical.items()
        for key, value in table.items()
    }
