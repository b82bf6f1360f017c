from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from threadpoolctl import ThreadpoolController

from distsgd.parallel.numerics import environment, one_blas_thread, probe, profile


def blas_threads() -> list[int]:
    return [
        info["num_threads"] for info in ThreadpoolController().info() if info["user_api"] == "blas"
    ]


def test_one_blas_thread_is_for_its_time_only() -> None:
    with ThreadpoolController().limit(limits=2):
        before = blas_threads()
        with one_blas_thread():
            assert set(blas_threads()) <= {1}
        assert blas_threads() == before


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_probe_is_the_same_whatever_the_number_of_threads(dtype: str) -> None:
    with ThreadpoolController().limit(limits=2):
        assert probe.__wrapped__(dtype) == probe(dtype)
    assert len(probe(dtype)) == 32


def test_probes_of_other_dtypes_differ() -> None:
    assert probe("float32") != probe("float64")


def test_profile_names_what_decides_about_the_bits() -> None:
    found = profile("float32").to_dict()
    assert found["numpy"] == np.__version__
    assert found["probe"] == probe("float32")
    assert all(found.values())
    assert json.loads(json.dumps(found)) == found


def test_process_with_this_environment_computes_the_same_bits() -> None:
    code = (
        "from distsgd.parallel.numerics import probe, _blas;"
        "print(probe('float32'), _blas()['num_threads'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment(), "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.split() == [probe("float32"), "1"]
