"""The environment that a comparison runs in."""

import os
import sys

KERNEL = "OPENBLAS_CORETYPE"


def without_inherited_kernel() -> None:
    """Start this program again where an inherited kernel would be used: it is no property of here.

    numpy reads it when it is loaded, and every process that is started inherits it.
    """
    if KERNEL in os.environ:
        rest = {name: value for name, value in os.environ.items() if name != KERNEL}
        os.execve(sys.executable, [sys.executable, *sys.argv], rest)  # noqa: S606 -- ourselves.
