"""What Ray's processes would import under the names that they need. No Ray is imported here.

Ray puts the driver's current directory, and the directory of its script, first on the path of each
process it starts: a file of the user's there would be loaded in place of ours.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.util
import os
import sys
from pathlib import Path

from distsgd.errors import ClusterError

# What a process of ours imports besides, after Ray has put the user's directories first.
_NEEDED = ("numpy", "pyarrow", "safetensors", "blake3", "threadpoolctl", "zmq")


def refuse_shadowing(worker: str) -> None:
    """Refuse to start processes that would import other code than this process has.

    A plain folder of the same name hides nothing: Python prefers a module or package of any later
    place to it.

    Args:
        worker: The worker class, as ``module:class``.

    Raises:
        ClusterError: Names the file that hides a package, and both places.
    """
    importlib.invalidate_caches()
    module = worker.partition(":")[0]
    package = module.partition(".")[0]
    if not _is_found(module):  # This process, too, has another package than ours.
        found = _file(importlib.util.find_spec(package))
        raise ClusterError(
            f"the worker's module {module} is not found: "
            + (f"{found} hides it; rename that" if found else f"{package} is not installed")
        )
    for name in ("distsgd", package, *_NEEDED):
        here = importlib.util.find_spec(name)
        there = importlib.machinery.PathFinder.find_spec(name, _path_in_ray_processes())
        ours, other = _file(here), _file(there)
        if ours and other and ours != other:
            raise ClusterError(
                f"{other} would hide the package {name} in {ours.parent} from the workers, since "
                "Ray looks in the current directory and that of the script first; rename it, or "
                "take its directory off the path (start elsewhere, or change PYTHONPATH)"
            )


def _is_found(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def _path_in_ray_processes() -> list[str]:
    """The places where a process that Ray starts looks for modules, first to last, or sooner."""
    script = os.path.dirname(os.path.realpath(sys.argv[0])) if sys.argv else ""  # noqa: PTH120 -- as Ray does.
    return [*([script] if script in sys.path else []), str(Path.cwd()), *sys.path]


def _file(spec: importlib.machinery.ModuleSpec | None) -> Path | None:
    return Path(spec.origin).resolve() if spec and spec.has_location and spec.origin else None
