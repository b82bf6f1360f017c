from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from distsgd.errors import ConfigError
from distsgd.statistics import Cell, StepTimeFit, crossover, fit_step_time, left_out_errors

GRID = [
    (rows, processes, workers)
    for rows, (processes, workers) in itertools.product(
        (16, 64, 256, 1024), ((1, 0), (1, 1), (2, 2), (4, 4))
    )
]
TRUE = StepTimeFit(90e-6, 1.7e-6, 40e-6, cores=2)
CONSTANT = st.floats(1e-7, 1e-3)


def cells(model: StepTimeFit, noise: float = 0.0, seed: int = 0) -> list[Cell]:
    chance = np.random.default_rng(seed)
    return [
        Cell(*it, model.seconds(*it) * float(np.exp(noise * chance.standard_normal())))
        for it in GRID
    ]


def model_of(constants_3: NDArray[np.float64]) -> StepTimeFit:
    fixed, row, worker = constants_3.tolist()
    return StepTimeFit(fixed, row, worker, cores=2)


def constants(model: StepTimeFit) -> tuple[float, float, float]:
    return model.fixed_s, model.row_s, model.worker_s


@given(fixed=CONSTANT, row=CONSTANT, worker=CONSTANT, cores=st.integers(1, 5))
def test_fit_finds_planted_constants(fixed: float, row: float, worker: float, cores: int) -> None:
    model = StepTimeFit(fixed, row, worker, cores=cores)
    found = fit_step_time(cells(model), cores=cores)
    assert constants(found) == pytest.approx(constants(model), rel=1e-6, abs=1e-12)


def test_fit_finds_them_through_noise() -> None:
    found = fit_step_time(cells(TRUE, 0.03), cores=2)
    assert constants(found) == pytest.approx(constants(TRUE), rel=0.15)


@pytest.mark.parametrize("missing", [0, 1, 2])
def test_a_constant_that_is_zero_is_found_to_be_about_zero_and_never_negative(missing: int) -> None:
    planted = np.where(np.arange(3) == missing, 0.0, constants(TRUE))
    model = model_of(planted)
    for seed in range(20):
        found = constants(fit_step_time(cells(model, 0.05, seed), cores=2))
        assert min(found) >= 0.0
        assert found[missing] < 0.3 * constants(TRUE)[missing]


def test_fit_is_better_than_all_around_it_that_are_not_negative() -> None:
    measured = cells(StepTimeFit(0.0, 1.7e-6, 40e-6, cores=2), 0.1, seed=3)

    def error(model: StepTimeFit) -> float:
        return sum((model.seconds(*c[:3]) / c.seconds - 1) ** 2 for c in measured)

    best = fit_step_time(measured, cores=2)
    at = np.array(constants(best))
    for moves in itertools.product((-1.0, 0.0, 1.0), repeat=3):
        moved = np.maximum(0.0, at + np.array(moves) * 1e-3 * np.array(constants(TRUE)))
        assert error(model_of(moved)) >= error(best) - 1e-12


def test_workers_beyond_the_cores_add_exchange_only() -> None:
    assert TRUE.seconds(256, 4, 4) - TRUE.seconds(256, 2, 2) == pytest.approx(2 * TRUE.worker_s)
    assert TRUE.seconds(256, 1, 0) == pytest.approx(TRUE.fixed_s + 256 * TRUE.row_s)


def test_the_server_computes_its_share_without_an_exchange() -> None:
    saved = TRUE.seconds(256, 2, 2) - TRUE.seconds(256, 2, 1)
    assert saved == pytest.approx(TRUE.worker_s)
    grid = [(rows, p, k) for rows in (64, 256) for p, k in ((1, 0), (2, 1), (2, 2))]
    found = fit_step_time([Cell(*it, TRUE.seconds(*it)) for it in grid], cores=2)
    assert constants(found) == pytest.approx(constants(TRUE))


def test_left_out_errors_are_those_of_the_noise_and_grow_where_the_model_is_wrong() -> None:
    assert max(left_out_errors(cells(TRUE), cores=2)) < 1e-9
    median, worst = left_out_errors(cells(TRUE, 0.03), cores=2)
    assert 0.005 < median < 0.04
    assert median <= worst < 0.15
    odd = [c._replace(seconds=5 * c.seconds) if c[:3] == (64, 2, 2) else c for c in cells(TRUE)]
    assert left_out_errors(odd, cores=2)[1] > 0.5


@pytest.mark.parametrize(
    "grid",
    [
        [],
        [(64, 1, 0)],
        [(64, 1, 0), (64, 1, 1), (64, 2, 2)],
        [(16, 1, 0), (64, 1, 0), (256, 1, 0)],
    ],
)
def test_cells_that_do_not_tell_the_constants_apart_are_refused(
    grid: list[tuple[int, int, int]],
) -> None:
    measured = [Cell(*it, TRUE.seconds(*it)) for it in grid]
    if len(grid) == 3 and grid[2][1] == 2:
        # The three differ: rows shared by two, and not.
        assert constants(fit_step_time(measured, cores=2)) == pytest.approx(constants(TRUE))
        return
    with pytest.raises(ConfigError, match="do not tell its three constants apart"):
        fit_step_time(measured, cores=2)


def test_text_has_the_constants_in_microseconds() -> None:
    text = str(StepTimeFit(1.23456e-3, 1.7e-9, 0.0, cores=3))
    assert (
        text == "fixed 1230 µs + row 0.0017 µs x rows / min(processes, 3) + worker 0 µs x workers"
    )


def test_crossover_is_the_fewest_workers_below_the_peer() -> None:
    predicted = {k: TRUE.seconds(1024, k, k) for k in (4, 2, 1)}
    assert crossover(predicted, TRUE.seconds(1024, 1, 0)) == 2
    assert crossover(predicted, predicted[2]) is None
    assert crossover({}, 1.0) is None
