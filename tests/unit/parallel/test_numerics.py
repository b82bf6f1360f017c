from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from threadpoolctl import ThreadpoolController

from distsgd.errors import NumericsError
from distsgd.nn.layers import Dense
from distsgd.nn.network import Network
from distsgd.parallel.numerics import check_same, environment, one_blas_thread, probe, profile


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


class Own:
    """The part of a model that a profile asks."""

    def __init__(self, **said: str) -> None:
        self.said = said

    def arithmetic(self, dtype: np.dtype[np.float32]) -> dict[str, str]:
        return self.said | {"dtype": dtype.name}


def test_profile_of_a_model_of_ones_own_has_its_arithmetic() -> None:
    plain, own = profile("float32"), profile("float32", Own(capability="AVX512"))  # type: ignore[arg-type]
    assert own.to_dict() == plain.to_dict() | {
        "model": {"capability": "AVX512", "dtype": "float32"}
    }
    assert str(own) == f"{plain}, capability AVX512, dtype float32"
    assert own.bits.startswith(f"{plain.bits}-")
    other = profile("float32", Own(capability="AVX2"))  # type: ignore[arg-type]
    assert other.bits != own.bits
    with pytest.raises(NumericsError, match=r"capability AVX2.*that one .*capability AVX512"):
        check_same(own, "float32", Own(capability="AVX2"))  # type: ignore[arg-type]


def test_profile_of_a_network_of_layers_is_as_it_always_was() -> None:
    network = Network([Dense(1)], "quadratic", (1,))
    found = profile("float32", network)
    assert found == profile("float32")
    assert list(found.to_dict()) == [
        *("numpy", "blas", "kernel", "features", "machine", "probe", "operations")
    ]
    assert found.bits == f"{found.probe}-{found.operations}"
