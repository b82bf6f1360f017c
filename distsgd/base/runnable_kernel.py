"""A kernel of OpenBLAS that this processor cannot run is let go of, before numpy is imported.

A run hands its kernel to the processes on all nodes. On a processor that lacks its instructions a
process would end by a signal, without a word; with its own kernel it can say what it computes with.
To import this module does it.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import MutableMapping
from contextlib import suppress
from pathlib import Path

_KERNEL = "OPENBLAS_CORETYPE"
_NEEDS = {
    "sandybridge": "avx",
    "haswell": "avx2",
    "zen": "avx2",
    "skylakex": "avx512vl",
    "cooperlake": "avx512_bf16",
    "sapphirerapids": "avx512_bf16",
}
_FLAGS = re.compile(r"^flags\s*:(.*)$", re.MULTILINE)


def let_go_of_foreign(variables: MutableMapping[str, str], cpuinfo: str) -> None:
    """Remove the kernel from environment `variables` where `cpuinfo` says it cannot run.

    >>> variables = {"OPENBLAS_CORETYPE": "SkylakeX"}
    >>> let_go_of_foreign(variables, "flags : fma avx avx2 avx512f avx512vl")
    >>> variables
    {'OPENBLAS_CORETYPE': 'SkylakeX'}
    >>> let_go_of_foreign(variables, "flags : fma avx avx2")
    >>> variables
    {}
    """
    needed, flags = _NEEDS.get(variables.get(_KERNEL, "").lower()), _FLAGS.search(cpuinfo)
    if needed and flags and needed not in flags[1].split():
        del variables[_KERNEL]


if "numpy" not in sys.modules:
    with suppress(OSError):  # Not Linux.
        let_go_of_foreign(os.environ, Path("/proc/cpuinfo").read_text(encoding="utf-8"))
