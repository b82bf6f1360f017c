"""Whoever looks on while a run is made, and the one place where the package meets its worker."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Protocol

from distsgd.errors import ClusterError
from distsgd.parallel.messages import WorkerSpec
from distsgd.parallel.server.spec import Status
from distsgd.parallel.transport.interface import OwnWorker

LOOK_S = 0.1  # How often a run is looked at.


class Watch(Protocol):
    """Whoever looks on; each message of the server is shown to it once."""

    def __call__(self, status: Status) -> bool:
        """Show `status`; should the run stop now?"""


def worker_maker(path: str) -> Callable[[WorkerSpec], OwnWorker]:
    """The worker class named ``module:class``: the only place where the package meets its worker.

    Raises:
        ClusterError: There is no such class.
    """
    module, _, name = path.partition(":")
    try:
        return getattr(importlib.import_module(module), name)  # type: ignore[no-any-return]
    except (ImportError, AttributeError) as error:
        raise ClusterError(
            f'the worker "{path}" cannot be loaded: {error}; is another '
            f'"{module.split(".")[0]}" first on the path?'
        ) from None
