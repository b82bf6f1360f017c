"""What this machine can do, measured, and what stands in its way. Starts short processes."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
from threadpoolctl import threadpool_info

from distsgd import __version__
from distsgd.errors import ClusterError
from distsgd.lab.transport_time import transport_us
from distsgd.parallel.numerics import num_cores, profile
from distsgd.parallel.transport.shared_memory import is_available

PACKAGES = ("ray", "numpy", "pyarrow", "pydantic", "pyzmq", "safetensors", "blake3")
FRAMEWORKS = ("torch", "jax", "flax")  # Of models of one's own; each where it is installed.
TIMEOUT_S = 60.0
SLOW_STEP_US = 500.0
# Kernels of OpenBLAS worth trying: what it detects is not always what is fastest.
KERNELS = {
    "x86_64": ("Haswell", "Zen", "SkylakeX", "Cooperlake", "Sapphirerapids"),
    "aarch64": ("ARMV8", "NeoverseN1", "NeoverseV1"),
}
WORTH_A_CHANGE = 1.05  # Less is noise of the machine.
_KERNEL = "OPENBLAS_CORETYPE"
_THREADS = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}


@dataclass(frozen=True, slots=True)
class Findings:
    """What was found, and what should be done about it."""

    facts: dict[str, Any]
    advice: tuple[str, ...]


def examine() -> Findings:
    """Look at cores, memory, arithmetic, Ray and the transport; blocks for some seconds."""
    facts: dict[str, Any] = {
        "distsgd": __version__,
        "python": platform.python_version(),
        "cores": num_cores(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "packages": {name: version(name) for name in PACKAGES} | _frameworks(),
    }
    numerics = profile("float32")
    facts |= {"blas": numerics.blas, "kernel": numerics.kernel, **_arithmetic(), **_ray()}
    facts |= {"shared_memory": is_available(), "empty_step_us": transport_us(num_workers=2)}
    return Findings(facts, tuple(_advice(facts)))


def _frameworks() -> dict[str, str]:
    found = {}
    for name in FRAMEWORKS:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def gemm_gflops(size: int = 768) -> float:
    """Best of several float32 matrix products of this process, in GFLOP/s."""
    a = np.ones((size, size), np.float32)
    out = np.empty_like(a)
    best_s = float("inf")
    for _ in range(12):
        started = time.perf_counter()
        np.matmul(a, a, out=out)
        best_s = min(best_s, time.perf_counter() - started)
    return 2 * size**3 / best_s / 1e9


def print_gemm() -> None:
    """The kernel of this process and what it reaches, as JSON on standard output."""
    blas = [info for info in threadpool_info() if info["user_api"] == "blas"]
    kernel = blas[0].get("architecture", "unknown") if blas else "unknown"
    print(json.dumps([kernel, gemm_gflops()]))  # noqa: T201 -- read by the process that started it.


def _gflops(kernel: str | None) -> tuple[str, float] | None:
    """Kernel and speed of a process with one thread; `kernel` None: as OpenBLAS detects it.

    None where the processor cannot run that kernel.
    """
    environment = {**os.environ, **_THREADS}
    environment.pop(_KERNEL, None)
    if kernel is not None:
        environment[_KERNEL] = kernel
    code = "from distsgd.lab.doctor import print_gemm; print_gemm()"
    done = subprocess.run(  # noqa: S603 -- our own code, in another environment.
        [sys.executable, "-c", code],
        env=environment,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    if done.returncode:
        return None
    found, gflops = json.loads(done.stdout)
    return found, round(gflops, 1)


def _arithmetic() -> dict[str, Any]:
    """What a core reaches as things are, without an inherited kernel, and with every other one."""
    inherited = os.environ.get(_KERNEL)
    own, detected = _gflops(inherited), _gflops(None)
    tried = [_gflops(kernel) for kernel in KERNELS.get(platform.machine(), ())]
    by_kernel: dict[str, float] = {}
    for kernel, gflops in [found for found in (own, detected, *tried) if found]:
        by_kernel[kernel] = max(gflops, by_kernel.get(kernel, 0.0))
    return {
        "gflops_a_core": by_kernel[own[0]] if own else None,
        "inherited_kernel": inherited,
        **({"gflops_without_it": by_kernel[detected[0]]} if inherited and detected else {}),
        "detected_kernel": detected[0] if detected else None,
        "gflops_by_kernel": by_kernel,
        "fastest_kernel": max(by_kernel, key=by_kernel.__getitem__) if by_kernel else None,
    }


def _ray() -> dict[str, Any]:
    from distsgd.parallel.launch.nodes.check import examine_ray  # noqa: PLC0415 -- loads Ray.

    try:
        return examine_ray()
    except ClusterError as error:
        return {"ray_error": str(error)}


def _advice(facts: dict[str, Any]) -> Iterator[str]:
    yield from kernel_advice(facts)
    if "ray_error" in facts:
        yield f"Ray does not start: {facts['ray_error']}"
    if facts.get("worker_niceness"):
        yield f"Ray's workers run at nice {facts['worker_niceness']}; set RAY_worker_niceness=0"
    if not facts["shared_memory"]:
        yield "no shared memory here; the slower ZeroMQ transport is used"
    elif facts["empty_step_us"] > SLOW_STEP_US:
        yield f"an empty step takes {facts['empty_step_us']} us; other programs use the cores"
    if facts["cores"] == 1:
        yield "one core only; train with --workers 0"


def kernel_advice(facts: dict[str, Any]) -> Iterator[str]:
    """What to do about ``OPENBLAS_CORETYPE``: away with it, or set it, or nothing."""
    own, fastest, inherited = (
        facts[name] for name in ("gflops_a_core", "fastest_kernel", "inherited_kernel")
    )
    if not own or facts["gflops_by_kernel"][fastest] < WORTH_A_CHANGE * own:
        return
    most = facts["gflops_by_kernel"][fastest]
    if fastest == facts["detected_kernel"]:
        cost = f"{_KERNEL}={inherited} in the environment costs {1 - own / most:.0%} of the speed"
        yield f"{cost}; unset it before you train"
        return
    yield (
        f"OpenBLAS computes with its kernel {facts['kernel']}, {own} GFLOP/s a core; {fastest} "
        f"reaches {most}: set {_KERNEL}={fastest} before you train (other bits than before; a run "
        "that was begun needs the kernel it was begun with)"
    )
