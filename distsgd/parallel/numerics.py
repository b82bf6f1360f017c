"""The numerics profile: what decides about the bits besides configuration, data and seed.

numpy's version, the BLAS, the kernel it chose for this processor, the processor's features that
numpy uses, and one thread. It is fixed once a run: every process of the run gets the same
environment, and proves by a probe, not by names, that it computes the same bits.

Kernel and features are those that a process finds ("native"), or pinned to what every x86-64
processor with AVX2 has ("portable"), so that machines of different makes compute the same bits.
Both are chosen while numpy is imported: a process can be asked, not changed.
"""

from __future__ import annotations

import os
import platform
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import cache
from typing import Any, Literal

import numpy as np
from blake3 import blake3
from threadpoolctl import ThreadpoolController

from distsgd.base.arrays import Array
from distsgd.base.random_keys import Purpose, uniform
from distsgd.errors import NumericsError
from distsgd.models import portable
from distsgd.models.protocol import Model
from distsgd.nn.layers import Dense
from distsgd.nn.network import Network

Numerics = Literal["native", "portable"]
PIN = (
    'set [train] numerics = "portable", which pins kernel and features, and have the same numpy, '
    "and the same PyTorch or JAX if the model needs one, on every node"
)

_KERNEL, _DISABLED, _ENABLED = (
    "OPENBLAS_CORETYPE",
    "NPY_DISABLE_CPU_FEATURES",
    "NPY_ENABLE_CPU_FEATURES",
)
_PORTABLE_KERNEL, _PORTABLE_FEATURE = "Haswell", "X86_V3"  # AVX2 and FMA, and no AVX-512.
_MACHINES = ("x86_64", "AMD64")
# Element by element; some have other bits with AVX2 than with AVX-512.
_FUNCTIONS: tuple[np.ufunc, ...] = (
    np.exp,
    np.log,
    np.tanh,
    np.sin,
    np.cos,
    np.sqrt,
    np.log1p,
    np.expm1,
)
# Odd, and larger than what a kernel takes at once.
_PRODUCTS = ((1, 785, 33), (37, 1031, 129), (130, 259, 515))


@dataclass(frozen=True, slots=True)
class Profile:
    """What a run's record says of the arithmetic.

    Attributes:
        numpy: Its version.
        blas: What numpy multiplies matrices with, and its version.
        kernel: Of the BLAS, for one kind of processor.
        features: Of the processor, as far as numpy uses them.
        machine: System and processor architecture.
        probe: A seeded block through small networks, forward and backward, hashed.
        operations: Functions element by element and odd matrix products, hashed.
        model: What a model of one's own computes with besides: see `Model.arithmetic`; often empty.
    """

    numpy: str
    blas: str
    kernel: str
    features: str
    machine: str
    probe: str
    operations: str
    model: Mapping[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values; without a model that has nothing to add, as before there were."""
        found = asdict(self)
        return found if self.model else {key: it for key, it in found.items() if key != "model"}

    @property
    def bits(self) -> str:
        """Two processes in which these are equal compute equal bits."""
        parts = [self.probe, self.operations]
        if self.model:
            said = "\n".join(f"{key} {it}" for key, it in sorted(self.model.items()))
            parts.append(str(blake3(said.encode()).hexdigest()[:32]))
        return "-".join(parts)

    def __str__(self) -> str:
        own = "".join(f", {key} {it}" for key, it in self.model.items())
        return (
            f"numpy {self.numpy}, {self.blas}, kernel {self.kernel}, features {self.features}{own}"
        )


def profile(dtype: str, model: Model | None = None) -> Profile:
    """The profile of this process, with what `model` computes with besides numpy."""
    blas = _blas()
    return Profile(
        numpy=np.__version__,
        blas=f"{blas.get('internal_api', 'unknown')} {blas.get('version', '')}".strip(),
        kernel=str(blas.get("architecture", "unknown")),
        features=" ".join(_simd("baseline") + _simd("found")) or "unknown",
        machine=f"{platform.system()} {platform.machine()}",
        probe=probe(dtype),
        operations=operations(dtype),
        model={} if model is None else dict(model.arithmetic(np.dtype(dtype))),
    )


def environment() -> dict[str, str]:
    """Environment variables that make another process of the run compute like this one."""
    variables = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    kernel = _blas().get("architecture")
    if kernel:
        variables[_KERNEL] = str(kernel)
    return variables | _without(_simd("not found")) | portable.pinned()


def _without(features: Sequence[str]) -> dict[str, str]:
    """Variables by which numpy uses none of these features of the processor."""
    variables = {_DISABLED: " ".join(features)} if features else {}
    if _ENABLED in os.environ:  # numpy takes one of the two only; what is empty is not there.
        variables[_ENABLED] = ""
    return variables


def lacking(numerics: str, *, has_own_model: bool = False) -> dict[str, str]:
    """Environment variables with which a new process computes as `numerics` says.

    Empty where this one does. `has_own_model`: so does a model that a factory makes.

    Raises:
        NumericsError: No process on this machine can.
    """
    if numerics == "native":
        return {}
    features, blas = _simd("found"), _blas()
    if reason := _never_portable(features, blas):
        raise NumericsError(
            f'train.numerics is "portable", but {reason} (set [train] numerics = "native", or use '
            "another machine)"
        )
    own = portable.lacking() if has_own_model else {}
    if blas.get("architecture") == _PORTABLE_KERNEL and features == (_PORTABLE_FEATURE,):
        return own
    beyond = [it for it in (*features, *_simd("not found")) if it != _PORTABLE_FEATURE]
    return {_KERNEL: _PORTABLE_KERNEL} | _without(beyond) | own


def require(numerics: str, *, has_own_model: bool = False) -> None:
    """Raises NumericsError where this process does not compute as `numerics` says."""
    if variables := lacking(numerics, has_own_model=has_own_model):
        words = " and ".join(f'{name}="{value}"' for name, value in variables.items())
        found = "the model's framework uses all that this processor has"
        if _KERNEL in variables:
            found = f"numpy is loaded with the kernel {_blas().get('architecture')}"
            found += f" and the features {' '.join(_simd('found'))}"
        raise NumericsError(
            f'train.numerics is "{numerics}", but {found}; set {words} before Python starts (the '
            "command distsgd does so itself)"
        )


def check_same(started: Profile, dtype: str, model: Model | None = None) -> None:
    """Raises NumericsError where this process computes other bits than the one with `started`."""
    own = profile(dtype, model)
    if own.bits != started.bits:
        raise NumericsError(
            f"node {socket.gethostname()} computes other bits than the process that started the "
            f"run: it has {own}, that one {started}; {PIN}"
        )


def _never_portable(features: tuple[str, ...], blas: dict[str, Any]) -> str:
    """Why no process on this machine can be portable; "" where one can."""
    if (machine := platform.machine()) not in _MACHINES:
        return f"this machine is {machine}; the portable kernel is that of x86-64 processors"
    if _PORTABLE_FEATURE not in features:
        return f"numpy finds no AVX2 here ({_PORTABLE_FEATURE}: an older processor, or {_DISABLED})"
    if (found := blas.get("internal_api")) != "openblas":
        return f"numpy multiplies with {found or 'an unknown BLAS'} here, not with OpenBLAS"
    return ""


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Have the BLAS of this process use one thread.

    Their number may change bits, and workers share the cores.
    """
    with ThreadpoolController().limit(limits=1):
        yield


@cache
def probe(dtype: str) -> str:
    """A seeded block, forward and backward, hashed.

    Two processes with equal probes compute equal bits.
    """
    digest = blake3()
    with one_blas_thread():
        _probe_into(digest, dtype)
    return str(digest.hexdigest()[:32])


def _probe_into(digest: blake3, dtype: str) -> None:
    for activation in ("relu", "sigmoid", "tanh"):
        model = Network(
            [Dense(48, activation=activation), Dense(10)], "softmax_cross_entropy", (200,)
        )
        weights = model.initialise("glorot", 0, np.dtype(dtype))
        program = model.program(96, np.dtype(dtype), per_sample=True)
        for rows in (1, 31, 96):
            x = uniform(0, Purpose.PROBE, rows, count=rows * 200).reshape(rows, 200).astype(dtype)
            gradients = np.zeros_like(weights)
            bound = program.bind(
                x, np.arange(rows) % 10, weights=weights, gradients=gradients, x_squared_norms=None
            )
            bound.forward()
            bound.backward()
            for array in (gradients, bound.losses_N, bound.squared_norms_N):
                digest.update(np.ascontiguousarray(array).tobytes())


@cache
def operations(dtype: str) -> str:
    """What a network of one's own may use besides, on seeded numbers, hashed."""
    digest = blake3()
    with one_blas_thread():
        for result in _operations(np.dtype(dtype)):
            digest.update(np.ascontiguousarray(result).tobytes())
    return str(digest.hexdigest()[:32])


def _operations(dtype: np.dtype[Any]) -> Iterator[Array]:
    x = 16 * uniform(0, Purpose.PROBE, 0, count=4099).astype(dtype)
    yield from (function(x) for function in _FUNCTIONS)
    yield np.power(x, x[::-1] / 4)
    for rows, inner, columns in _PRODUCTS:
        a, b = (
            uniform(0, Purpose.PROBE, inner, count=count * inner).astype(dtype)
            for count in (rows, columns)
        )
        yield a.reshape(rows, inner) @ b.reshape(inner, columns)


def _simd(what: Literal["baseline", "found", "not found"]) -> tuple[str, ...]:
    """Features of processors that this numpy is built for: always, used here, not used here."""
    extensions: Any = np.show_config(mode="dicts")["SIMD Extensions"]
    return tuple(extensions.get(what, ()))


def _blas() -> dict[str, Any]:
    """What threadpoolctl says of numpy's BLAS; empty when it does not know it."""
    found = [info for info in ThreadpoolController().info() if info["user_api"] == "blas"]
    return dict(found[0]) if found else {}


def num_cores() -> int:
    """The cores that this process may run on; all of the machine where the system does not say."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
