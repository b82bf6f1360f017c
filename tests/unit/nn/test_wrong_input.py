"""Models and losses answer wrong input by a ModelError, whatever it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from distsgd.autodiff.tape import Variable
from distsgd.errors import ModelError
from distsgd.nn.layers import Dense
from distsgd.nn.losses import LOSSES, find_loss
from distsgd.nn.network import Network
from tests.wrong_input import check_only_ours

OUTPUTS = np.array([[0.2, 0.8], [0.5, 0.5], [0.9, 0.1]])
WRONG: dict[str, Any] = {
    "a number": 3.0,
    "no axis": np.float64(1.0),
    "one axis": np.ones(3),
    "three axes": np.ones((3, 2, 2)),
    "more outputs": np.ones((3, 5)),
    "more samples": np.ones((4, 2)),
    "none": None,
    "text": "x",
    "texts": np.array([["a", "b"]] * 3),
    "objects": np.ones((3, 2), object),
    "complex": np.ones((3, 2), complex),
    "times": np.ones((3, 2), "M8[s]"),
    "ragged": [[1.0], [1.0, 2.0]],
}
JUNK: list[Any] = [
    None, 5, -1, 1.5, float("nan"), "x", b"x", [], (), {}, [1, 2], [None], {1: 2}, object(), True,
]  # fmt: skip


def target_of(name: str) -> np.ndarray:
    return np.array([0, 1, 0]) if find_loss(name).target_kind == "class" else OUTPUTS[::-1].copy()


def only_ours(call: Callable[[Any], object]) -> None:
    check_only_ours(call, JUNK, ModelError)


@pytest.mark.parametrize("kind", WRONG)
@pytest.mark.parametrize("name", LOSSES)
def test_losses_refuse_what_is_no_outputs_or_no_targets(name: str, kind: str) -> None:
    loss, target = find_loss(name), target_of(name)
    for call in (loss.sample_losses, loss.check_values):
        # There may be more classes than those that occur.
        if kind != "more outputs" or target.ndim == 2:
            with pytest.raises(ModelError, match="got outputs"):
                call(WRONG[kind], target)
        with pytest.raises(ModelError, match=r"got (targets|class numbers|outputs)"):
            call(OUTPUTS, WRONG[kind])


@pytest.mark.parametrize("name", LOSSES)
def test_losses_take_any_numbers_of_the_right_shape(name: str) -> None:
    loss, target = find_loss(name), target_of(name)
    expected = loss.sample_losses(OUTPUTS, target).value
    assert expected.shape == (3,)
    for outputs in (OUTPUTS.tolist(), Variable(OUTPUTS)):
        assert np.array_equal(loss.sample_losses(outputs, target.tolist()).value, expected)
    single = loss.sample_losses(OUTPUTS.astype(np.float32), target.tolist())
    assert single.dtype == np.float32
    np.testing.assert_allclose(single.value, expected, rtol=1e-5)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int32, np.int64, ">i4"])
def test_class_numbers_may_be_of_any_whole_type(dtype: Any) -> None:
    loss, target = find_loss("softmax_cross_entropy"), np.array([0, 1, 0])
    losses = loss.sample_losses(OUTPUTS, target.astype(dtype)).value
    assert np.array_equal(losses, loss.sample_losses(OUTPUTS, target).value)
    with pytest.raises(ModelError, match="class numbers of dtype float64; must be whole numbers"):
        loss.sample_losses(OUTPUTS, target.astype(float))
    with pytest.raises(ModelError, match="class"):
        loss.sample_losses(OUTPUTS, target + 1)


def test_models_and_losses_give_our_error_for_anything() -> None:
    model = Network([Dense(2)], "quadratic", (2,))
    described, weights = model.to_dict(), model.initialise("glorot", 0)
    only_ours(find_loss)
    only_ours(lambda value: find_loss("huber", value))
    only_ours(lambda value: find_loss("huber", {"delta": value}))
    only_ours(lambda value: Network(value, "quadratic", (2,)))
    only_ours(lambda value: Network([Dense(2)], value, (2,)))
    only_ours(lambda value: Network([Dense(2)], "quadratic", value))
    only_ours(lambda value: Network([Dense(value)], "quadratic", (2,)))
    only_ours(lambda value: Network([Dense(2, value)], "quadratic", (2,)))
    only_ours(Network.from_dict)
    for key in ("layers", "loss", "input_shape", "loss_options"):
        only_ours(lambda value, key=key: Network.from_dict(described | {key: value}))  # type: ignore[misc]
    only_ours(lambda value: model.initialise(value, 0))
    only_ours(lambda value: model.initialise("he", value))
    only_ours(lambda value: model.initialise("he", 0, value))
    only_ours(lambda value: model.program(value, np.float32, per_sample=True))
    only_ours(lambda value: model.program(2, value, per_sample=True))
    only_ours(lambda value: model.predict(value, np.ones((3, 2))))
    only_ours(lambda value: model.predict(weights, value))
    only_ours(model.views)


@pytest.mark.parametrize("kind", WRONG)
def test_predictions_refuse_what_is_no_rows(kind: str) -> None:
    model = Network([Dense(2)], "quadratic", (2,))
    weights = model.initialise("glorot", 0)
    if kind != "more samples":
        with pytest.raises(ModelError, match="samples"):
            model.predict(weights, WRONG[kind])
    program, x = model.program(4, np.float32, per_sample=True), OUTPUTS.astype(np.float32)
    for arrays in ((WRONG[kind], x, weights), (x, WRONG[kind], weights), (x, x, WRONG[kind])):
        with pytest.raises(ModelError):
            program.bind(arrays[0], arrays[1], weights=arrays[2])
