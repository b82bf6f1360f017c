"""A worker of one's own in processes that Ray starts: found by its name, with the same bits."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.program import Program, digest_alone, settings

pytestmark = pytest.mark.timeout(240)

OWN_WORKER = '''
from distsgd_workers.gradient_worker import GradientWorker


class Halved(GradientWorker):
    """Its gradients are half as long, so that its runs cannot be taken for the built-in ones."""

    def compute_block(self, batch, weights_P, gradient_P):
        result = super().compute_block(batch, weights_P, gradient_P)
        if gradient_P is not None:
            gradient_P *= 0.5
        return result
'''


FAILING = '''
from distsgd_workers.gradient_worker import GradientWorker


class Failing(GradientWorker):
    """Fails in a step."""

    def compute_block(self, batch, weights_P, gradient_P):
        if gradient_P is not None:
            raise ValueError("no gradient today")
        return super().compute_block(batch, weights_P, gradient_P)

'''


def test_error_of_ones_own_code_comes_with_its_place(place: Path) -> None:
    (place / "failing.py").write_text(FAILING)
    own = settings("parallel.worker=failing:Failing", "parallel.assignment=all")
    code, found, _ = Program(place, "--workers", "1", *own).result()
    place_of_it = f"({place}/failing.py, line 10, in compute_block)"
    assert code == 4
    assert f"raised ValueError: no gradient today {place_of_it}; what the run" in found["error"]


def test_own_worker_gives_the_same_bits_in_processes_of_ray(place: Path) -> None:
    (place / "own_worker.py").write_text(OWN_WORKER)
    own = ("parallel.worker=own_worker:Halved", "parallel.assignment=all", "train.epochs=1")
    alone = digest_alone(place, *own)
    assert alone != digest_alone(place, "parallel.assignment=all", "train.epochs=1")
    code, found, said = Program(place, "--workers", "2", *settings(*own)).result()
    assert code == 0, said
    assert (found["num_workers"], found["weights_digest"]) == (2, alone)
