"""What PyTorch computes with inside a run, and that it is the user's again afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from threading import Event, Thread
from typing import Any

import pytest

from distsgd.errors import ModelError

torch: Any = pytest.importorskip("torch", reason="needs the extra 'torch'")


def now() -> tuple[Any, ...]:
    """All that a block could change of a process."""
    return (
        torch.get_num_threads(),
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.get_default_dtype(),
        torch.is_grad_enabled(),
        torch.get_float32_matmul_precision(),
        torch.is_inference_mode_enabled(),
        torch.is_autocast_enabled("cpu"),
        torch.get_rng_state().tolist(),
    )


@pytest.fixture(params=["as at first", "all other"])
def _users_own(request: pytest.FixtureRequest) -> Iterator[None]:
    """A process of a user who set nothing, and one who set everything."""
    before = now()
    if request.param == "all other":
        torch.set_num_threads(2)
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.set_default_dtype(torch.float64)
        torch.set_grad_enabled(False)
        torch.set_float32_matmul_precision("medium")
        torch.manual_seed(9)
        with torch.inference_mode(), torch.autocast("cpu"):
            yield
    else:
        yield
    torch.set_num_threads(before[0])
    torch.use_deterministic_algorithms(before[1], warn_only=before[2])
    torch.set_default_dtype(before[3])
    torch.set_grad_enabled(before[4])
    torch.set_float32_matmul_precision(before[5])


@pytest.mark.usefixtures("_users_own")
@pytest.mark.parametrize("fails", [False, True])
def test_block_computes_as_runs_do_and_leaves_everything_as_it_was(*, fails: bool) -> None:
    from distsgd.models.torch.settings import Computing

    before = now()
    with suppress(KeyError), Computing(7, torch.float32, grad=True):
        inside, drawn = now(), torch.rand(3).tolist()
        if fails:
            raise KeyError
    assert inside[:6] == (1, True, False, torch.float32, True, "highest")
    assert inside[6:8] == (False, False)
    assert now() == before
    with Computing(7):
        assert torch.rand(3).tolist() == drawn
        assert not torch.is_grad_enabled()


def test_blocks_may_lie_in_one_another() -> None:
    from distsgd.models.torch.settings import Computing

    before = now()
    with Computing(1, torch.float64):
        first = torch.rand(2).tolist()
        with Computing(2, torch.float32, grad=True):
            torch.rand(5)
        assert torch.get_default_dtype() == torch.float64
        second = torch.rand(2).tolist()
    with Computing(1, torch.float64):
        assert torch.rand(4).tolist() == first + second
    assert now() == before


def test_operation_without_a_deterministic_algorithm_is_refused_by_its_name() -> None:
    from distsgd.models.torch.settings import Computing

    before = now()
    with (
        pytest.raises(ModelError, match=r"^put_ .*has no deterministic algorithm.*another oper"),
        Computing(),
    ):
        torch.zeros(3).put_(torch.tensor([0, 0]), torch.tensor([1.0, 2.0]))
    assert now() == before


def drawn(key: int) -> list[float]:
    from distsgd.models.torch.settings import Computing

    with Computing(key):
        found: list[float] = torch.rand(4).tolist()
    return found


def test_every_bit_of_a_key_counts() -> None:
    keys = [5, *(5 + 2**bit for bit in range(3, 63)), 2**32 + 4, 2**63 - 1]
    assert len({tuple(drawn(key)) for key in keys}) == len(keys)
    torch.manual_seed(5)
    assert torch.rand(4).tolist() == drawn(5)


def test_what_is_set_inside_of_a_block_is_as_before_outside() -> None:
    from distsgd.models.torch.settings import Computing

    before = now()
    with Computing():
        torch.set_default_dtype(torch.float64)
        torch.use_deterministic_algorithms(False)
        torch.set_grad_enabled(True)
    assert now() == before


def test_blocks_of_other_threads_wait() -> None:
    from distsgd.models.torch.settings import Computing

    before, inside, ready = now(), [], Event()

    def other() -> None:
        ready.set()
        with Computing(2, torch.float64):
            inside.append((torch.get_default_dtype(), torch.rand(3).tolist()))

    thread = Thread(target=other)
    with Computing(1, torch.float32):
        first = torch.rand(2).tolist()
        thread.start()
        assert ready.wait(10)
        thread.join(0.2)
        assert not inside
        second = torch.rand(2).tolist()
        assert torch.get_default_dtype() == torch.float32
    thread.join(10)
    assert now() == before
    with Computing(1):
        assert torch.rand(4).tolist() == first + second
    with Computing(2, torch.float64):
        assert inside == [(torch.float64, torch.rand(3).tolist())]


def test_block_that_cannot_begin_keeps_no_other_thread_waiting() -> None:
    from distsgd.models.torch.settings import Computing

    with pytest.raises(TypeError), Computing(dtype=torch.int64):
        pass
    found: list[list[float]] = []
    thread = Thread(target=lambda: found.append(drawn(5)), daemon=True)
    thread.start()
    thread.join(10)
    assert found == [drawn(5)]
