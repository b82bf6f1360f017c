"""A scaling experiment with worker processes on a real Ray."""

from __future__ import annotations

import pytest

from distsgd.experiments.findings import Findings
from distsgd.experiments.scale import Scale, write
from distsgd.parallel.launch.session.session import session
from tests.unit.experiments.rows import plan_of, write_rows

pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Findings:
    place = tmp_path_factory.mktemp("experiment")
    with session("local", num_cpus=1):  # A process that had a Ray before joins the next one too.
        pass
    plan = plan_of(
        write_rows(place),
        batches=(48,),
        workers=(2,),
        rates=None,
        seeds=1,
        timed_s=0.05,
        target="test_accuracy>=0.7",
    )
    experiment = Scale(place / "experiment", plan, place / "cache", lambda _: None)
    experiment.begin()
    findings = experiment.run()
    write(findings, place / "experiment")
    return findings


def test_workers_are_timed_next_to_one_core(found: Findings) -> None:
    timed = {(cell.batch, cell.workers): cell for cell in found.timings}
    assert set(timed) == {(48, 0), (48, 2)}
    with_workers = timed[48, 2]
    assert with_workers.num_pairs == 5
    assert with_workers.step_s is not None
    assert with_workers.speed_up is not None
    assert with_workers.phases_s["compute"] > 0


def test_runs_with_workers_have_the_bits_of_the_learning_run(found: Findings) -> None:
    # A run in full and a check in which both workers compute in every step.
    assert found.num_digests >= 2
    assert found.digests_equal


def test_the_grid_is_the_product_of_learning_and_time(found: Findings) -> None:
    for cell in found.cells:
        assert cell.steps is not None
        assert cell.step_s is not None
        assert cell.time_s is not None
        assert cell.time_s.mid == pytest.approx(cell.steps.mid * cell.step_s.mid)
        assert cell.time_s.low <= cell.time_s.mid <= cell.time_s.high
