"""The weights of a run as a file that the library of its model loads."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from safetensors.numpy import save

from distsgd.base.files import as_disk_error, staging_path
from distsgd.base.settings import path_argument
from distsgd.errors import DataError

if TYPE_CHECKING:
    from distsgd.run.run import Run


def save_weights(saved: Run, out: Path | str) -> int:
    """Write the newest weights to the file `out`, whole or not at all: see `Run.save_weights`."""
    out = _free_file(out)
    state = saved.model.state_dict(saved.weights_P)
    data = save({name: np.ascontiguousarray(it) for name, it in state.items()})
    staging = staging_path(out)
    try:
        with as_disk_error(out, "make room, or name another file"):
            staging.write_bytes(data)
            staging.rename(out)
    finally:
        staging.unlink(missing_ok=True)
    return len(state)


def _free_file(out: Path | str) -> Path:
    out = path_argument("out", out)
    if out.suffix != ".safetensors":
        raise DataError(out, "is no name for weights; --out must end in .safetensors")
    if out.exists():
        raise DataError(out, "exists already; name a new file for the weights")
    if not out.parent.is_dir():
        raise DataError(out, "its directory does not exist; make it, or name another file")
    return out
