"""A rehearsal knows the protocol alone: the network of layers passes it, without a framework."""

from __future__ import annotations

import numpy as np
import pytest

from distsgd.models import Recipe, RowSpec, jax_model
from distsgd.models.admission import Admission
from distsgd.models.probe import probe
from distsgd.models.rehearsal import MOVED_BY, Block, Rehearsal
from distsgd.nn.layers import Dense, Layer
from distsgd.nn.network import Network
from distsgd.nn.regularisation import Dropout

ROWS = RowSpec((5,), "class", 3)
NAMELESS = Recipe(jax_model(lambda: None), {}, ROWS)  # Whose parts nobody can name.


def rehearsal(*layers: Layer, count: int = 12) -> Rehearsal:
    network = Network([*layers, Dense(3)], "softmax_cross_entropy", (5,))
    chance = np.random.default_rng(0)
    block = Block(chance.random((count, 5), np.float32), chance.integers(0, 3, count))
    weights = network.initialise("glorot", 0, np.float32)
    return Rehearsal(network, block, weights, per_sample=True)


@pytest.mark.parametrize("count", [1, 2, 12])
@pytest.mark.parametrize("layers", [(), (Dense(4, activation="relu"), Dropout(0.5))])
def test_network_of_layers_is_admitted(layers: tuple[Layer, ...], count: int) -> None:
    tried = Admission(NAMELESS, rehearsal(*layers, count=count))
    tried.check(tried.first())


def test_moved_weights_are_near_and_none_is_zero() -> None:
    before = rehearsal()
    after = before.moved().weights_P
    assert (before.weights_P == 0).any()
    assert not (after == 0).any()
    assert after.dtype == np.float32
    assert np.abs(after - before.weights_P).max() <= MOVED_BY * (1 + np.abs(after).max())


def test_other_rows_leave_one_as_it_is_and_change_all_others() -> None:
    block = rehearsal().block
    for others in block.with_other_rows(3, ROWS):
        assert (others.x[3] == block.x[3]).all()
        assert others.target[3] == block.target[3]
        changed = (others.x != block.x).any(axis=1)
        assert changed.tolist() == [row != 3 for row in range(12)]


def test_levels_of_other_rows_stay_levels() -> None:
    rows = RowSpec((4,), "class", 3, num_levels=6)
    levels = np.random.default_rng(0).integers(0, 6, (8, 4)).astype(np.float32)
    for others in Block(levels, np.zeros(8, np.int64)).with_other_rows(0, rows):
        assert set(np.unique(others.x)) <= set(range(6))
        assert others.target.max() < 3


def test_probe_is_of_the_model_and_the_dtype_and_needs_no_rows() -> None:
    network, other = (
        Network([Dense(units), Dense(3)], "softmax_cross_entropy", (5,)) for units in (4, 6)
    )
    found = {
        probe(network, ROWS, np.float32),
        probe(network, ROWS, np.float64),
        probe(other, ROWS, np.float32),
    }
    assert len(found) == 3
    again = Network([Dense(4), Dense(3)], "softmax_cross_entropy", (5,))
    assert probe(again, ROWS, "float32") == probe(network, ROWS, np.float32)
