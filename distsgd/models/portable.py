"""Variables by which PyTorch and JAX use no more of a processor than every x86-64 with AVX2 has.

They are read when a library is loaded or first computes. No I/O here but the environment.
"""

from __future__ import annotations

import os

# ATen's own kernels; those of oneDNN, in PyTorch and in JAX; those of MKL.
_VARIABLES = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_CBWR": "AVX2"}
_FLAGS, _FLAG = "XLA_FLAGS", "--xla_cpu_max_isa=AVX2"


def lacking() -> dict[str, str]:
    """Those that the environment of this process lacks, or has with another value."""
    found = {name: it for name, it in _VARIABLES.items() if os.environ.get(name) != it}
    flags = os.environ.get(_FLAGS, "")
    return found if _FLAG in flags.split() else found | {_FLAGS: f"{flags} {_FLAG}".strip()}


def pinned() -> dict[str, str]:
    """Those that it has, with whatever value: other processes of the run are to have them too."""
    names = (*_VARIABLES, _FLAGS)
    return {name: os.environ[name] for name in names if name in os.environ}
