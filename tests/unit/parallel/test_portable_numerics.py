"""Kernels and features are chosen while numpy is imported, so each is tried in a process."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest

from distsgd.errors import NumericsError
from distsgd.parallel import numerics
from distsgd.parallel.numerics import check_same, lacking, profile, require
from tests.processors import needs_avx2

CODE = """
import json
from distsgd.errors import NumericsError
from distsgd.parallel.numerics import environment, lacking, profile
try:
    variables = lacking("portable")
except NumericsError as error:
    variables = str(error)
found = {dtype: profile(dtype).to_dict() for dtype in ("float32", "float64")}
print(json.dumps([found, variables, environment()]))
"""
CHOSEN = ("OPENBLAS_CORETYPE", "NPY_DISABLE_CPU_FEATURES", "NPY_ENABLE_CPU_FEATURES")


@cache
def process(**chosen: str) -> Any:
    """Profiles, what is lacking and the environment of a process with `chosen` variables."""
    inherited = {name: value for name, value in os.environ.items() if name not in CHOSEN}
    done = subprocess.run(
        [sys.executable, "-c", CODE],
        env={**inherited, **chosen, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return json.loads(done.stdout)


def wanted() -> dict[str, str]:
    variables: dict[str, str] = process(OPENBLAS_CORETYPE="Prescott")[1]
    return variables


@needs_avx2
def test_processes_that_set_what_is_lacking_are_portable_and_have_the_same_bits() -> None:
    found, variables, _ = process(**wanted())
    assert variables == {}
    assert {each["kernel"] for each in found.values()} == {"Haswell"}
    again, _, _ = process(**wanted() | {"OPENBLAS_CORETYPE": "Zen"})
    assert [each["probe"] for each in again.values()] == [each["probe"] for each in found.values()]


@needs_avx2
@pytest.mark.parametrize("kernel", ["Prescott", "Nehalem"])
def test_processes_with_another_kernel_are_not_portable(kernel: str) -> None:
    portable, other = process(**wanted())[0], process(OPENBLAS_CORETYPE=kernel)
    assert other[1] == wanted()
    assert other[0]["float32"]["probe"] != portable["float32"]["probe"]


@needs_avx2
def test_bits_that_only_features_decide_are_seen() -> None:
    found, variables, _ = process(OPENBLAS_CORETYPE="Haswell")
    if not variables:
        pytest.skip("this processor has no AVX-512")
    portable, _, _ = process(**wanted())
    assert variables == wanted()
    assert found["float32"]["probe"] == portable["float32"]["probe"]
    for dtype in ("float32", "float64"):
        assert found[dtype]["operations"] != portable[dtype]["operations"]


@needs_avx2
@pytest.mark.parametrize("chosen", ["portable", "Nehalem"])
def test_environment_gives_kernel_and_features_to_other_processes(chosen: str) -> None:
    variables = wanted() if chosen == "portable" else {"OPENBLAS_CORETYPE": chosen}
    found, _, handed_on = process(**variables)
    assert process(**handed_on)[0] == found


@needs_avx2
def test_features_that_the_user_enabled_are_handed_on() -> None:
    found, _, handed_on = process(NPY_ENABLE_CPU_FEATURES="X86_V3")
    assert process(**{"NPY_ENABLE_CPU_FEATURES": "X86_V3"} | handed_on)[0] == found


@needs_avx2
def test_what_is_lacking_holds_where_the_user_enabled_features() -> None:
    enabled = {"NPY_ENABLE_CPU_FEATURES": "X86_V3", "OPENBLAS_CORETYPE": "Nehalem"}
    _, variables, _ = process(**enabled)
    assert process(**enabled | variables)[1] == {}


@needs_avx2
def test_processor_without_avx2_is_refused_with_the_reason() -> None:
    _, said, _ = process(NPY_DISABLE_CPU_FEATURES="X86_V3 X86_V4 AVX512_ICL AVX512_SPR")
    assert 'train.numerics is "portable", but numpy finds no AVX2 here' in said
    assert 'set [train] numerics = "native"' in said


def test_other_machine_is_refused_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    with pytest.raises(NumericsError, match="this machine is aarch64"):
        lacking("portable")
    assert lacking("native") == {}


@needs_avx2
def test_process_that_is_not_portable_says_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numerics, "_simd", lambda what: ("X86_V3", "X86_V4") * (what == "found"))
    with pytest.raises(NumericsError) as raised:
        require("portable")
    assert "features X86_V3 X86_V4" in str(raised.value)
    assert 'OPENBLAS_CORETYPE="Haswell" and NPY_DISABLE_CPU_FEATURES="X86_V4"' in str(raised.value)
    require("native")


def test_process_with_other_bits_than_the_one_that_started_the_run_is_refused_by_name() -> None:
    own = profile("float32")
    check_same(own, "float32")
    for other in (replace(own, probe="other"), replace(own, operations="other", kernel="Zen")):
        with pytest.raises(
            NumericsError, match=f"node {platform.node()} computes other bits"
        ) as it:
            check_same(other, "float32")
        assert f"that one {other}" in str(it.value)


def test_profile_for_people_names_kernel_and_features() -> None:
    shown = str(profile("float32"))
    assert f"numpy {np.__version__}" in shown
    assert "kernel" in shown
    assert "features" in shown
