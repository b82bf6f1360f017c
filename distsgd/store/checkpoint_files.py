"""The files inside one checkpoint: written with a manifest, and checked against it when read."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from blake3 import blake3
from safetensors import SafetensorError
from safetensors import numpy as safetensors_numpy

from distsgd.base.arrays import Array
from distsgd.base.files import (
    decode_json,
    encode_json,
    read_json,
    sync_directory,
    write_new_file,
)
from distsgd.errors import CheckpointError

_MANIFEST = "MANIFEST.json"
_STATE = "state.json"
_SUFFIX = ".safetensors"
_FORMAT = 1
_GROUP = re.compile(r"[a-z][a-z0-9_]*\Z")
_HEX = re.compile(r"[0-9a-f]{64}\Z")


def write_files(
    directory: Path,
    *,
    step: int,
    arrays: Mapping[str, Mapping[str, Array]],
    state: Mapping[str, Any],
    best: bool,
) -> None:
    """Fill the empty `directory` and sync it. `OSError` passes through."""
    entries = {}
    for group, named in arrays.items():
        assert _GROUP.match(group), f"a group becomes the name of a file; {group!r} cannot"
        # safetensors writes the bytes behind the first element, whatever the strides: they have to
        # lie in order.
        contiguous = {name: np.asarray(array, order="C") for name, array in named.items()}
        entries[group + _SUFFIX] = _write_file(
            directory / (group + _SUFFIX), safetensors_numpy.save(contiguous)
        )
    entries[_STATE] = _write_file(
        directory / _STATE, encode_json(directory / _STATE, state, indent=2)
    )
    manifest = {"format": _FORMAT, "step": step, "best": best, "files": entries}
    _write_file(directory / _MANIFEST, encode_json(directory / _MANIFEST, manifest, indent=2))
    sync_directory(directory)


def read_files(directory: Path, *, step: int) -> tuple[dict[str, dict[str, Array]], dict[str, Any]]:
    """What `write_files` wrote: arrays by group and name, and the state.

    Raises:
        CheckpointError: A file is missing, has another size or checksum, or the manifest is damaged
            or another step's.
    """
    entries = _read_manifest(directory / _MANIFEST, step=step)["files"]
    arrays: dict[str, dict[str, Array]] = {}
    state: dict[str, Any] = {}
    for name, entry in entries.items():
        data = _read_checked(directory / name, entry)
        if name == _STATE:
            state = _state_of(directory / name, data)
            continue
        try:
            arrays[name.removesuffix(_SUFFIX)] = safetensors_numpy.load(data)
        except (SafetensorError, KeyError, TypeError, ValueError) as error:
            raise CheckpointError(directory / name, f"is no safetensors file: {error}") from error
    return arrays, state


def is_marked_best(directory: Path, *, step: int) -> bool:
    """Was it the best so far when it was written?

    Raises:
        CheckpointError: The manifest is damaged or another step's.
    """
    return bool(_read_manifest(directory / _MANIFEST, step=step)["best"])


def _state_of(path: Path, data: bytes) -> dict[str, Any]:
    try:
        state = decode_json(data)
    except ValueError as error:
        raise CheckpointError(path, f"is not JSON: {error}") from error
    if not isinstance(state, dict):
        raise CheckpointError(path, f"holds a JSON {type(state).__name__}; must hold an object")
    return state


def _write_file(path: Path, data: bytes) -> dict[str, Any]:
    write_new_file(path, data)
    return {"size_bytes": len(data), "blake3": blake3(data).hexdigest()}


def _read_manifest(path: Path, *, step: int) -> dict[str, Any]:
    manifest = read_json(path, error=CheckpointError)
    if manifest.get("format") != _FORMAT:
        raise CheckpointError(
            path,
            f"format is {manifest.get('format')!r}; must be {_FORMAT} "
            "(use the distsgd that wrote it)",
        )
    if manifest.get("step") != step:
        raise CheckpointError(
            path, f"step is {manifest.get('step')!r}; must be {step}, as the directory is named"
        )
    if type(manifest.get("best")) is not bool:
        raise CheckpointError(path, f"best is {manifest.get('best')!r}; must be true or false")
    entries = manifest.get("files")
    if not isinstance(entries, dict) or _STATE not in entries:
        raise CheckpointError(path, f"files is {entries!r}; must be an object that names {_STATE}")
    for name, entry in entries.items():
        _check_entry(path, name, entry)
    return manifest


def _check_entry(path: Path, name: str, entry: Any) -> None:
    # A name from a file is never a way out of its directory.
    if name != _STATE and not (name.endswith(_SUFFIX) and _GROUP.match(name.removesuffix(_SUFFIX))):
        raise CheckpointError(
            path, f"names the file {name!r}; must be a plain name, {_STATE} or <group>{_SUFFIX}"
        )
    if not isinstance(entry, dict) or type(entry.get("size_bytes")) is not int:
        raise CheckpointError(path, f"says {entry!r} of {name}; must give size_bytes and blake3")
    if not isinstance(entry.get("blake3"), str) or not _HEX.match(entry["blake3"]):
        raise CheckpointError(
            path, f"blake3 of {name} is {entry.get('blake3')!r}; must be 64 hexadecimal digits"
        )


def _read_checked(path: Path, entry: Mapping[str, Any]) -> bytes:
    try:
        size_bytes = path.stat().st_size
        if size_bytes != entry["size_bytes"]:
            raise CheckpointError(
                path,
                f"has {size_bytes} bytes; must have {entry['size_bytes']} (cut off or exchanged)",
            )
        data = path.read_bytes()
    except FileNotFoundError:
        raise CheckpointError(path, "is missing") from None
    except OSError as error:
        raise CheckpointError(path, f"cannot be read: {error.strerror}") from error
    digest = blake3(data).hexdigest()
    if digest != entry["blake3"]:
        raise CheckpointError(path, f"its blake3 is {digest}; must be {entry['blake3']} (damaged)")
    return data
