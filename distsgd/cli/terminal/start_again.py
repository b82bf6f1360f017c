"""The command started again in its place, where numpy is loaded otherwise than its run needs it.

Kernel and features are chosen while numpy is imported, and which ones a run needs is known only
when its configuration was read.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from distsgd.base.locations import Location

if TYPE_CHECKING:
    from distsgd.config import TrainConfig
    from distsgd.run.run import Run


class StartAgain(BaseException):
    """All that was begun is put back; then `replace_process`."""

    def __init__(self, variables: dict[str, str]) -> None:
        super().__init__(variables)
        self.variables = variables

    def replace_process(self) -> NoReturn:
        """The same command line in this process, with `variables` in its environment."""
        # What its frames hold, a working copy of a run among it, is put away by its owner's end,
        # and after the exec nothing ends any more.
        self.__traceback__ = None
        command = [sys.executable, *sys.orig_argv[1:]]
        os.execve(sys.executable, command, os.environ | self.variables)  # noqa: S606 -- no shell.


def compute_as(config: TrainConfig) -> None:
    """Have this command compute as ``[train] numerics`` says.

    Call it before anything is done or said.

    Raises:
        StartAgain: It does not, and would in a new process.
        NumericsError: No process here does.
    """
    numerics, has_own_model = config.train.numerics, config.model.has_factory
    if numerics == "native":
        return
    from distsgd.parallel.numerics import lacking, require

    variables = lacking(numerics, has_own_model=has_own_model)
    if any(os.environ.get(name) != value for name, value in variables.items()):
        raise StartAgain(variables)
    require(numerics, has_own_model=has_own_model)  # A process that was started so must be so.


def open_run(run: Path | Location, say: Callable[[str], None]) -> Run:
    """The run at `run`, in a process that computes as it did. Raises as `Run.open`."""
    from distsgd.run.run import Run

    saved = Run.open(run, on_message=say)
    compute_as(saved.config)
    return saved
