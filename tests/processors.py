"""What some tests need of the processor. No tests here."""

from __future__ import annotations

import platform

import numpy as np
import pytest

needs_avx2 = pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64")
    or "X86_V3" not in np.show_config(mode="dicts")["SIMD Extensions"].get("found", []),
    reason="portable numerics are those of x86-64 processors with AVX2",
)
