"""What ``doctor`` says in words, from findings of any machine."""

from __future__ import annotations

from typing import Any

import pytest

from distsgd.cli.doctor import rows
from distsgd.lab.doctor import kernel_advice

FACTS: dict[str, Any] = {
    "distsgd": "0.1.0",
    "python": "3.11.7",
    "cores": 2,
    "memory_gib": 23.5,
    "packages": {"ray": "2.60.0", "numpy": "2.4.6"},
    "blas": "openblas 0.3.31",
    "kernel": "SkylakeX",
    "gflops_a_core": 100.0,
    "inherited_kernel": None,
    "detected_kernel": "SkylakeX",
    "gflops_by_kernel": {"SkylakeX": 100.0, "Haswell": 109.0},
    "fastest_kernel": "Haswell",
    "ray_start_s": 3.8,
    "worker_niceness": 0,
    "shared_memory": True,
    "empty_step_us": 130.0,
}
INHERITED = {
    "kernel": "Haswell",
    "gflops_a_core": 120.0,
    "inherited_kernel": "Haswell",
    "gflops_without_it": 240.0,
    "gflops_by_kernel": {"Haswell": 120.0, "SkylakeX": 240.0},
    "fastest_kernel": "SkylakeX",
}
UNKNOWN: dict[str, Any] = {
    "gflops_a_core": None,
    "detected_kernel": None,
    "gflops_by_kernel": {},
    "fastest_kernel": None,
}


@pytest.mark.parametrize("others", [{}, INHERITED, UNKNOWN, {"ray_error": "no room"}])
def test_doctor_says_everything_in_words(others: dict[str, Any]) -> None:
    said = dict(rows(FACTS | others))
    assert all(said.values())
    assert not any(mark in text for text in said.values() for mark in ("None", "{", "'"))


def test_doctor_names_the_faster_kernel_and_what_it_means_for_runs() -> None:
    (advice,) = kernel_advice(FACTS)
    assert "Haswell reaches 109.0: set OPENBLAS_CORETYPE=Haswell" in advice
    assert "a run that was begun" in advice


def test_doctor_says_what_an_inherited_kernel_costs() -> None:
    (advice,) = kernel_advice(FACTS | INHERITED)
    assert "OPENBLAS_CORETYPE=Haswell in the environment costs 50% of the speed" in advice
    assert dict(rows(FACTS | INHERITED))["OPENBLAS_CORETYPE"].startswith("Haswell: -50%")


@pytest.mark.parametrize(
    "others", [UNKNOWN, {"gflops_by_kernel": {"SkylakeX": 100.0, "Haswell": 103.0}}]
)
def test_doctor_advises_nothing_for_nothing(others: dict[str, Any]) -> None:
    assert not list(kernel_advice(FACTS | others))
