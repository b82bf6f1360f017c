"""What PyTorch uses of a processor is pinned by variables, which other processes of a run get."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from typing import Any

import pytest

from distsgd.errors import NumericsError
from distsgd.models import portable
from distsgd.parallel import numerics
from tests.processors import needs_avx2

NAMES = ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "MKL_CBWR", "XLA_FLAGS")
CODE = """
import json
import torch
from distsgd.models import Recipe, RowSpec, model_of, torch_model
from distsgd.parallel.numerics import environment, lacking, profile
def make():
    return torch.nn.Linear(40, 10), torch.nn.CrossEntropyLoss(reduction="none")
model = model_of(Recipe(torch_model(make), {}, RowSpec((40,), "class", 10)))
found = profile("float32", model)
print(json.dumps([dict(found.model), environment(), lacking("portable", has_own_model=True)]))
"""


@pytest.fixture(autouse=True)
def unpinned(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)


def process(**chosen: str) -> Any:
    """What a model computes with there, what is handed on, and what it lacks to be portable."""
    done = subprocess.run(
        [sys.executable, "-c", CODE],
        env={**os.environ, **chosen, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
    )
    return json.loads(done.stdout)


@needs_avx2
@pytest.mark.skipif(not importlib.util.find_spec("torch"), reason="PyTorch is not installed")
def test_pinned_process_is_portable_and_hands_its_variables_on() -> None:
    native, _, variables = process()
    assert set(NAMES) <= variables.keys()
    pinned, handed_on, lacks = process(**variables)
    assert lacks == {}
    assert pinned["capability"] == "AVX2"
    assert {name: handed_on[name] for name in NAMES} == {name: variables[name] for name in NAMES}
    assert process(**handed_on)[0] == pinned
    if native["capability"] != "AVX2":
        assert native["probe"] != pinned["probe"]


def test_flags_of_the_users_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XLA_FLAGS", "--xla_dump_to=x")
    flags = portable.lacking()["XLA_FLAGS"]
    assert flags == "--xla_dump_to=x --xla_cpu_max_isa=AVX2"
    monkeypatch.setenv("XLA_FLAGS", flags)
    assert "XLA_FLAGS" not in portable.lacking()
    assert portable.pinned() == {"XLA_FLAGS": flags}


@needs_avx2
def test_run_of_a_network_of_layers_needs_none_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    own = numerics.lacking("portable", has_own_model=True)
    plain = numerics.lacking("portable")
    assert own == plain | portable.lacking()
    assert not plain.keys() & set(NAMES)
    for name, value in plain.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(NumericsError, match='ATEN_CPU_CAPABILITY="avx2"'):
        numerics.require("portable", has_own_model=True)
