"""distsgd: distributed data-parallel mini-batch SGD, the same bits for any number of workers.

Public names are loaded when they are first used: importing the package loads neither numpy nor Ray
nor Arrow.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from distsgd.autodiff.tape import GradientTape, Variable
    from distsgd.config import TrainConfig
    from distsgd.errors import DistSGDError
    from distsgd.nn.model import Model
    from distsgd.parallel.server.step_view import StepView
    from distsgd.run.progress import Progress
    from distsgd.run.run import Result
    from distsgd.run.trainer import Trainer

__version__ = "0.2.0"
__all__ = [
    "DistSGDError",
    "GradientTape",
    "Model",
    "Progress",
    "Result",
    "StepView",
    "TrainConfig",
    "Trainer",
    "Variable",
]

_HOMES = {
    "DistSGDError": "distsgd.errors",
    "GradientTape": "distsgd.autodiff.tape",
    "Model": "distsgd.nn.model",
    "Progress": "distsgd.run.progress",
    "Result": "distsgd.run.run",
    "StepView": "distsgd.parallel.server.step_view",
    "TrainConfig": "distsgd.config",
    "Trainer": "distsgd.run.trainer",
    "Variable": "distsgd.autodiff.tape",
}


def __dir__() -> list[str]:
    return [*globals(), *_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
