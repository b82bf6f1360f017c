"""Standardising inputs, and what it does to the largest learning rate that still converges."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from distsgd.data.dataset import DataSet
from distsgd.errors import DivergedError
from distsgd.run.trainer import Trainer
from distsgd.statistics import largest_learning_rate
from tests.lessons.linear_network import Float64, linear_config, trained

# Four games: toes, share of games won so far in hundreds, fans in millions.
GAMES_NI = np.array([[8.5, 9.5, 9.9, 9.0], [0.65, 0.8, 0.8, 0.9], [1.2, 1.3, 0.5, 1.0]]).T
# Some linear function of the three, so that the error can become 0.
GOALS_N = GAMES_NI @ np.array([0.1, 0.2, -0.1])


def standardised(x_NI: Float64) -> Float64:
    scaled: Float64 = (x_NI - x_NI.mean(axis=0)) / x_NI.std(axis=0)
    return scaled


def test_standardising_allows_steps_forty_five_times_as_large() -> None:
    assert largest_learning_rate(GAMES_NI) == pytest.approx(0.0230, abs=5e-5)
    assert largest_learning_rate(standardised(GAMES_NI)) == pytest.approx(1.0453, abs=5e-5)


def test_the_trainer_standardises_as_is_done_here(tmp_path: Path) -> None:
    config = linear_config(data={"standardise": "mean_std"}, train={"steps": 1})
    run = Trainer(config, data=(GAMES_NI, GOALS_N), run_dir=tmp_path / "run").fit().path
    x_NI = np.empty((4, 3))
    DataSet.open(run / "data").train.gather_range_inplace(
        0, 4, x_NI=x_NI, target=np.empty((4, 1)), squared_norms_N=None
    )
    assert largest_learning_rate(x_NI) == pytest.approx(1.0453, abs=5e-5)


@pytest.mark.parametrize("is_standardised", [False, True])
def test_training_converges_below_and_diverges_above(
    tmp_path: Path, *, is_standardised: bool
) -> None:
    x_NI = standardised(GAMES_NI) if is_standardised else GAMES_NI
    goals_N = x_NI @ np.array([0.3, 0.2, -0.1])
    largest = largest_learning_rate(x_NI)
    start_I = np.zeros(3)

    below = trained(x_NI, goals_N, start_I, tmp_path / "b", rate=0.98 * largest, steps=500)
    losses = below.history["train_loss"].to_numpy()
    assert losses[-1] < 1e-2 * losses[0]

    try:
        above = trained(x_NI, goals_N, start_I, tmp_path / "a", rate=1.02 * largest, steps=500)
        losses = above.history["train_loss"].to_numpy()
        assert losses[-1] > 1e3 * losses[0]
    except DivergedError as error:  # Seen and named by the trainer itself.
        assert "learning_rate" in error.advice  # noqa: PT017 -- either end is right.


def test_a_bias_counts_as_a_column_of_ones() -> None:
    ones_NI = np.column_stack([GAMES_NI, np.ones(4)])
    assert largest_learning_rate(ones_NI) < largest_learning_rate(GAMES_NI)
