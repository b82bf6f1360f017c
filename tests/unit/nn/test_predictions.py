"""What a model shows of its outputs: predictions, probabilities, advice on their range."""

from __future__ import annotations

import numpy as np
import pytest

from distsgd.errors import ModelError
from distsgd.nn.layers import Dense, Flatten, Layer, Sigmoid
from distsgd.nn.losses import LOSSES
from distsgd.nn.network import Network
from tests.unit.nn.test_network import BOUNDED, case, run


def test_predictions_are_what_the_loss_makes_of_the_outputs() -> None:
    for loss in LOSSES:
        c = case("relu", loss, rows=3)
        outputs, predictions = run(c)["outputs"], c.model.predict(c.flat, c.x)
        if loss == "softmax_cross_entropy":
            np.testing.assert_allclose(
                predictions, np.exp(outputs) / np.exp(outputs).sum(1, keepdims=True)
            )
        elif loss == "sigmoid_cross_entropy":
            np.testing.assert_allclose(predictions, 1 / (1 + np.exp(-outputs)))
        else:
            assert predictions.tolist() == outputs.tolist()


PROBABILITIES: list[tuple[str, list[Layer], bool]] = [
    ("softmax_cross_entropy", [Dense(2)], True),
    ("sigmoid_cross_entropy", [Dense(1)], True),
    ("cross_entropy", [Dense(2, "softmax")], True),
    ("cross_entropy", [Dense(2), Sigmoid(), Flatten()], True),
    ("cross_entropy", [Dense(2)], False),
    ("kullback_leibler", [Dense(2, "relu")], False),
    ("squared_error", [Dense(2, "softmax")], False),
    ("hinge", [Dense(2)], False),
]


@pytest.mark.parametrize(("loss", "layers", "expected"), PROBABILITIES)
def test_probabilities_are_those_of_losses_that_compare_them(
    loss: str, layers: list[Layer], *, expected: bool
) -> None:
    model = Network(layers, loss, (3,))
    assert model.has_probabilities == expected
    if expected:
        x = np.random.default_rng(0).standard_normal((50, 3)) * 1e3
        found = model.predict(model.initialise("glorot", 0), x.astype(np.float32))
        assert 0.0 <= found.min() <= found.max() <= 1.0


@pytest.mark.parametrize(
    ("loss", "activation", "is_told"),
    [
        *((loss, None, loss in BOUNDED - {"exponential"}) for loss in LOSSES),
        *((loss, "sigmoid", False) for loss in LOSSES if loss != "sigmoid_cross_entropy"),
        *((loss, "tanh", True) for loss in sorted(BOUNDED - {"exponential"})),
        ("hellinger", "relu", False),
        ("generalised_kullback_leibler", "relu", False),
        ("kullback_leibler", "relu", True),
        ("itakura_saito", "relu", True),  # It may be 0.
        ("cross_entropy", "relu", True),
    ],
)
def test_outputs_that_can_leave_the_domain_of_the_loss_are_told(
    loss: str, activation: str | None, *, is_told: bool
) -> None:
    advice = Network([Dense(2, activation)], loss, (3,)).output_advice
    assert ("end the network with" in advice) == is_told


def test_predictions_come_in_canonical_blocks() -> None:
    c = case("wide", "quadratic", rows=600, dtype=np.float32)
    whole = c.model.predict(c.flat, c.x)
    parts = [c.model.predict(c.flat, c.x[first : first + 256]) for first in (0, 256, 512)]
    assert whole.tobytes() == np.concatenate(parts).tobytes()
    assert c.model.predict(c.flat, c.x[:0]).shape == (0, 3)
    with pytest.raises(ModelError, match=r"must be \(65,\)"):
        c.model.predict(c.flat, c.x[:, :-1])
    for wrong in (c.x[0], 1.0, [["a"] * 65], [[1.0], [1.0, 2.0]], None):
        with pytest.raises(ModelError):
            c.model.predict(c.flat, wrong)  # type: ignore[arg-type] # as a user would
