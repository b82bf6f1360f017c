"""What this machine can do, measured, and what stands in its way. Starts short processes."""

from __future__ import annotations

import multiprocessing
import os
import platform
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from statistics import median
from typing import Any

import numpy as np

from distsgd import __version__
from distsgd.errors import ClusterError, ExchangeTimeoutError
from distsgd.parallel.exchange import open_exchange
from distsgd.parallel.exchange.contract import Address, Array, Joined, Layout, Reported
from distsgd.parallel.exchange.service import serve
from distsgd.parallel.exchange.shared_memory import is_available
from distsgd.parallel.messages import Description, Kind, Order, Report
from distsgd.parallel.numerics import profile
from distsgd.parallel.tree import Sums
from distsgd.run.blueprint import num_cores

PACKAGES = ("ray", "numpy", "pyarrow", "pydantic", "pyzmq", "safetensors", "blake3")
TIMEOUT_S = 60.0
NUM_PARAMETERS = 100_000
NUM_STEPS = 400
SLOW_STEP_US = 500.0
_KERNEL = "OPENBLAS_CORETYPE"
_THREADS = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}


@dataclass(frozen=True, slots=True)
class Findings:
    """What was found, and what should be done about it."""

    facts: dict[str, Any]
    advice: tuple[str, ...]


def examine() -> Findings:
    """Look at cores, memory, arithmetic, Ray and the exchange; blocks for some seconds."""
    facts: dict[str, Any] = {
        "distsgd": __version__,
        "python": platform.python_version(),
        "cores": num_cores(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "packages": {name: version(name) for name in PACKAGES},
    }
    numerics = profile("float32")
    facts |= {"blas": numerics.blas, "kernel": numerics.kernel}
    facts |= {"gflops_a_core": _gflops(inherited=True), **_inherited_kernel(), **_ray()}
    facts |= {"shared_memory": is_available(), "empty_step_us": _empty_step_us(num_workers=2)}
    return Findings(facts, tuple(_advice(facts)))


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


def _gflops(*, inherited: bool) -> float:
    """What a process reaches with one thread, under the inherited kernel or the detected one."""
    environment = {**os.environ, **_THREADS}
    if not inherited:
        environment.pop(_KERNEL, None)
    code = "from distsgd.run.doctor import gemm_gflops; print(gemm_gflops())"
    done = subprocess.run(  # noqa: S603 -- our own code, in another environment.
        [sys.executable, "-c", code],
        env=environment,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=True,
    )
    return round(float(done.stdout), 1)


def _inherited_kernel() -> dict[str, Any]:
    """What an inherited OPENBLAS_CORETYPE costs; nothing is measured where there is none."""
    inherited = os.environ.get(_KERNEL)
    if inherited is None:
        return {"inherited_kernel": None}
    return {"inherited_kernel": inherited, "gflops_without_it": _gflops(inherited=False)}


def _ray() -> dict[str, Any]:
    from distsgd.parallel.cluster.cluster import examine_ray  # noqa: PLC0415 -- loads Ray.

    try:
        return examine_ray()
    except ClusterError as error:
        return {"ray_error": str(error)}


def _empty_step_us(*, num_workers: int) -> float:
    """Microseconds of a step without computing: weights out, 100,000 gradients back, summed."""
    layout = Layout(NUM_PARAMETERS, 2, "float32")
    exchange = open_exchange(
        "auto", layout, secret=secrets.token_bytes(32), incarnation=0, host="127.0.0.1"
    )
    spawn = multiprocessing.get_context("spawn")
    workers = [
        spawn.Process(target=_serve_nothing, args=(exchange.address, number), daemon=True)
        for number in range(num_workers)
    ]
    try:
        for worker in workers:
            worker.start()
        _gather(exchange, Joined, num_workers)
        times = [_empty_step(exchange, step, num_workers) for step in range(NUM_STEPS)]
    finally:
        exchange.close()
        for worker in workers:
            worker.join(TIMEOUT_S)
    return round(median(times[NUM_STEPS // 4 :]) * 1e6, 1)


def _empty_step(exchange: Any, step: int, num_workers: int) -> float:
    started = time.perf_counter()
    for worker in range(num_workers):
        exchange.send(worker, Order(0, Kind.GRADIENT, step, worker, worker + 1, 0, 0))
    _gather(exchange, Reported, num_workers)
    total = exchange.partials(0)[0]
    for worker in range(1, num_workers):
        np.add(total, exchange.partials(worker)[0], out=total)
    np.add(exchange.weights, total, out=exchange.weights)
    return time.perf_counter() - started


def _gather(exchange: Any, kind: type, count: int) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while count:
        if time.monotonic() > deadline:
            raise ExchangeTimeoutError(f"{count} workers of the empty step", TIMEOUT_S)
        count -= sum(isinstance(event, kind) for event in exchange.wait(1.0))


class _EmptyWorker:
    """A worker whose partials cost nothing but being written."""

    def describe(self, worker: int) -> Description:
        return Description(worker, __version__, os.getpid(), "", "")

    def attach(self, weights_P: Array, slots_SP: Array) -> None:
        self._weights_P, self._slots_SP = weights_P, slots_SP

    def compute(self, order: Order) -> Report:
        np.copyto(self._slots_SP[0], self._weights_P)
        return Report(*order[:5], 0.0, 0.0, (Sums(1, 0.0, 0, 0.0, 0.0),))

    def read_ahead(self, order: Order) -> None:
        """Nothing to read."""


def _serve_nothing(address: Address, number: int) -> None:
    serve(_EmptyWorker(), address, number)


def _advice(facts: dict[str, Any]) -> Iterator[str]:
    without = facts.get("gflops_without_it")
    if without and without > 1.1 * facts["gflops_a_core"]:
        yield (
            f"{_KERNEL}={facts['inherited_kernel']} in the environment costs "
            f"{1 - facts['gflops_a_core'] / without:.0%} of the speed; unset it before you train"
        )
    if "ray_error" in facts:
        yield f"Ray does not start: {facts['ray_error']}"
    if facts.get("worker_niceness"):
        yield f"Ray's workers run at nice {facts['worker_niceness']}; set RAY_worker_niceness=0"
    if not facts["shared_memory"]:
        yield "no shared memory here; the slower ZeroMQ exchange is used"
    elif facts["empty_step_us"] > SLOW_STEP_US:
        yield f"an empty step takes {facts['empty_step_us']} us; other programs use the cores"
    if facts["cores"] == 1:
        yield "one core only; train with --workers 0"
