"""PyTorch as a run computes; and as the user had it, afterwards."""

from __future__ import annotations

from contextlib import ExitStack
from threading import RLock
from types import TracebackType
from typing import TypeAlias

import torch
from torch.utils import deterministic

from distsgd.base.random_keys import GOLDEN
from distsgd.errors import ModelError

_ERROR = 2  # Of `torch.set_deterministic_debug_mode`: what is not deterministic raises.
_NO_SUCH = "does not have a deterministic implementation"

# Threads, deterministic mode, default dtype, precision of products, whether gradients are recorded,
# whether new memory is filled.
_Settings: TypeAlias = tuple[int, int, torch.dtype, str, bool, bool]
_TURN = RLock()


class Computing:
    """Inside the block: one thread, deterministic algorithms, chance by a key, the run's dtype.

    Nothing is set that is so already: a block of one row takes 60 µs, and comes here twice. The
    settings are those of the process: other threads wait where they begin such a block.

    Args:
        key: What draws numbers, draws them by it, up to 64 bits of it. PyTorch's generator
            (mt19937) is seeded by the lower 32 alone, so the upper ones are mixed in: two keys
            draw the same numbers with a chance of 2**-32, and some two of 77,000 keys with 1/2.
            Of a key below 2**32 they are those of ``torch.manual_seed(key)``.
        dtype: Of tensors that are made without one.
        grad: Whether operations are recorded for a gradient.

    Raises:
        ModelError: An operation has no deterministic algorithm.
    """

    __slots__ = ("_before", "_inside", "_key", "_modes", "_state")

    def __init__(
        self, key: int = 0, dtype: torch.dtype = torch.float32, *, grad: bool = False
    ) -> None:
        self._key = key
        self._inside: _Settings = (1, _ERROR, dtype, "highest", grad, False)

    def __enter__(self) -> None:
        _TURN.acquire()
        try:
            self._begin()
        except BaseException:
            _TURN.release()
            raise

    def _begin(self) -> None:
        self._modes = _modes_left()
        self._before = _settings()
        _set(self._inside, self._before)
        generator = torch.default_generator
        # Not `torch.manual_seed`: it sees to every device, for 70 µs.
        self._state = generator.get_state()
        generator.manual_seed(_folded(self._key))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            torch.default_generator.set_state(self._state)
            _set(self._before, _settings())  # A factory may have set them otherwise inside.
            if self._modes is not None:
                self._modes.close()
        finally:
            _TURN.release()
        if kind is RuntimeError and _NO_SUCH in str(error):
            operation = str(error).partition(_NO_SUCH)[0].strip()
            raise ModelError(
                f"{operation} has no deterministic algorithm in PyTorch, so that a block would not "
                "have the same bits twice; use another operation in the model"
            ) from error


def _folded(key: int) -> int:
    """All 64 bits of a key in 32; the key itself where it has no more (Knuth, TAOCP 6.4)."""
    return (key ^ (((key >> 32) * GOLDEN) >> 32)) & 0xFFFFFFFF


def _modes_left() -> ExitStack | None:
    """Leave the modes of the user's thread in which PyTorch computes otherwise, if it is in one."""
    if not (torch.is_inference_mode_enabled() or torch.is_autocast_enabled("cpu")):
        return None
    left = ExitStack()
    left.enter_context(torch.inference_mode(mode=False))
    left.enter_context(torch.autocast("cpu", enabled=False))
    return left


def _settings() -> _Settings:
    return (
        torch.get_num_threads(),
        torch.get_deterministic_debug_mode(),
        torch.get_default_dtype(),
        torch.get_float32_matmul_precision(),
        torch.is_grad_enabled(),
        deterministic.fill_uninitialized_memory,
    )


def _set(wanted: _Settings, now: _Settings) -> None:
    threads, mode, dtype, precision, grad, fills = wanted
    if threads != now[0]:
        torch.set_num_threads(threads)
    if mode != now[1]:
        torch.set_deterministic_debug_mode(mode)
    if dtype is not now[2]:
        torch.set_default_dtype(dtype)
    if precision != now[3]:
        torch.set_float32_matmul_precision(precision)
    if grad is not now[4]:
        torch.set_grad_enabled(grad)
    if fills is not now[5]:  # New memory, to show who reads it unwritten: a tenth of a step.
        deterministic.fill_uninitialized_memory = fills
