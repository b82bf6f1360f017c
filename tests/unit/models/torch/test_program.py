"""A module's program: weights read in place, gradient sums in the slot, nothing of the user's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from distsgd.errors import ModelError
from distsgd.models import Model, RowSpec
from tests.unit.models.torch import models
from tests.unit.models.torch.models import CLASSES, block, cross_entropy, model_made_by
from tests.unit.models.torch.test_settings import now

torch: Any = pytest.importorskip("torch", reason="needs the extra 'torch'")

KEYS = np.array([77], np.uint64)
TOKENS = RowSpec((4,), "class", 5, (4,), 7)


def gradient_of(
    model: Model, x: Any, target: Any, keys: Any = KEYS, dtype: str = "float32"
) -> tuple[Any, Any, Any, Any]:
    """Weights, gradient sum, losses and outputs of a block."""
    weights = model.initialise("", 3, dtype)
    weights.setflags(write=False)  # As in a worker.
    gradient = np.full_like(weights, np.nan)
    program = model.program(len(x), dtype, per_sample=False)
    bound = program.bind(x, target, weights=weights, gradients=gradient, keys=keys)
    bound.forward()
    bound.backward()
    return weights, gradient, bound.losses_N, bound.outputs_NO


def plain_gradient(made: Any, model: Model, weights: Any, x: Any, target: Any) -> list[Any]:
    """The same by PyTorch alone, one array a parameter."""
    net, sample_losses = made
    net.to(torch.tensor(weights).dtype)
    net.load_state_dict({k: torch.tensor(it) for k, it in model.views(weights).items()})
    sample_losses(net(torch.tensor(x)), torch.tensor(target)).sum().backward()
    return [it.grad.numpy() for it in net.parameters()]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("count", [1, 5])
def test_losses_outputs_and_gradient_sums_are_those_of_plain_torch(dtype: str, count: int) -> None:
    model = model_made_by(models.mlp)
    x, target = block(CLASSES, count, dtype)
    weights, gradient, losses_N, outputs_NO = gradient_of(model, x, target, dtype=dtype)
    assert {it.dtype for it in (gradient, losses_N, outputs_NO)} == {np.dtype(dtype)}
    expected = plain_gradient(models.mlp(6, 3), model, weights, x, target)
    for found, plain in zip(model.views(gradient).values(), expected, strict=True):
        np.testing.assert_allclose(found, plain, rtol=1e-5 if dtype == "float32" else 1e-13)
    assert losses_N.shape == (count,)
    assert outputs_NO.shape == (count, 3)


def test_weights_are_read_in_place_and_never_copied_in() -> None:
    model = model_made_by(models.mlp)
    (x, target), weights = block(CLASSES), model.initialise("", 0, np.float32)
    bound = model.program(5, np.float32, per_sample=False).bind(x, target, weights=weights)
    bound.forward()
    before = bound.losses_N.copy()
    weights *= 2
    bound.forward()
    after = bound.losses_N.copy()
    assert (before != after).all()
    x[0] += 1  # Rows and targets are read in place too.
    target[1] = (target[1] + 1) % 3
    bound.forward()
    assert (bound.losses_N != after).tolist() == [True, True, False, False, False]


def test_bindings_of_one_program_take_turns_and_servers_change() -> None:
    model = model_made_by(models.mlp)
    (x, target), program = block(CLASSES), model.program(5, np.float32, per_sample=False)
    one, other = model.initialise("", 0, np.float32), model.initialise("", 1, np.float32)
    gradients = np.empty_like(one), np.empty_like(one)
    bounds = [
        program.bind(x, target, weights=weights, gradients=gradient, keys=KEYS)
        for weights, gradient in zip((one, other), gradients, strict=True)
    ]
    found = []
    for bound, gradient in (*zip(bounds, gradients, strict=True),) * 2:
        bound.forward()
        bound.backward()
        found.append((bound.losses_N.tolist(), gradient.tolist()))
    assert found[:2] == found[2:]
    assert found[0] != found[1]


def test_parameter_without_a_gradient_has_zeros_in_the_slot() -> None:
    def make(inputs: int, outputs: int) -> Any:
        class Net(torch.nn.Module):  # type: ignore[misc]
            def __init__(self) -> None:
                super().__init__()
                self.unused = torch.nn.Linear(3, 2)
                self.used = torch.nn.Linear(inputs, outputs)

            def forward(self, x: Any) -> Any:
                return self.used(x)

        return Net(), cross_entropy

    model = model_made_by(make)
    _, gradient, *_ = gradient_of(model, *block(CLASSES))
    named = model.views(gradient)
    assert not named["unused.weight"].any()
    assert named["used.weight"].all()


def test_chance_is_keyed_in_training_and_absent_in_evaluation() -> None:
    def make(inputs: int, outputs: int) -> Any:
        net, sample_losses = models.mlp(inputs, outputs)
        return torch.nn.Sequential(net, torch.nn.Dropout(0.5)), sample_losses

    model = model_made_by(make)
    x, target = block(CLASSES, 40)
    first, again, other = (
        gradient_of(model, x, target, np.array([key], np.uint64)) for key in (4, 4, 2**63)
    )
    assert model.chance == "block"
    assert first[1].tobytes() == again[1].tobytes()
    assert first[1].tobytes() != other[1].tobytes()
    assert 0.3 < (first[3] == 0).mean() < 0.7
    *_, outputs_NO = gradient_of(model, x, target, None)
    assert outputs_NO.all()


def test_nothing_of_the_users_process_changes() -> None:
    before = now()
    model = model_made_by(models.cnn, RowSpec((36,), "class", 3), options={"dropout": 0.3})
    x, target = block(RowSpec((36,), "class", 3))
    weights, *_, outputs_NO = gradient_of(model, x, target)
    model.predict(weights, x)
    model.seen(outputs_NO, target)
    model.state_dict(weights)
    assert now() == before


def test_what_fails_in_the_model_leaves_the_process_as_it_was() -> None:
    def make(inputs: int, outputs: int) -> Any:
        def sample_losses(out: Any, target: Any) -> Any:
            if len(out) == 5:
                raise KeyError("five")
            return cross_entropy(out, target)

        return torch.nn.Linear(inputs, outputs), sample_losses

    before, model = now(), model_made_by(make)
    with pytest.raises(Exception, match="five"):
        gradient_of(model, *block(CLASSES, 5))
    assert now() == before
    gradient_of(model, *block(CLASSES, 4))


def test_tokens_come_as_integers_and_buffers_work() -> None:
    def make(outputs: int, levels: int) -> Any:
        class Net(torch.nn.Module):  # type: ignore[misc]
            def __init__(self) -> None:
                super().__init__()
                self.tokens = torch.nn.Embedding(levels, 8, sparse=True)
                self.last = torch.nn.Linear(8, outputs)
                self.register_buffer("positions", torch.linspace(0, 1, 4)[:, None])
                self.register_buffer("mask", torch.ones(4, 4).tril() > 0, persistent=False)
                self.register_buffer("turns", torch.ones(4, 8, dtype=torch.complex64))

            def forward(self, x: Any) -> Any:
                assert x.dtype == torch.int64
                seen = self.tokens(x) * self.turns.real + self.positions
                return self.last(self.mask.to(seen.dtype) @ seen)

        return Net()

    for dtype in ("float32", "float64"):
        model = model_made_by(make, TOKENS, loss="softmax_cross_entropy")
        x, target = block(TOKENS, dtype=dtype)
        *_, losses_N, outputs = gradient_of(model, x, target, dtype=dtype)
        assert (outputs.shape, outputs.dtype, losses_N.shape) == ((5, 4, 5), dtype, (5,))
        weights = model.initialise("", 3, dtype)
        np.testing.assert_allclose(model.predict(weights, x).sum(-1), 1, rtol=1e-5)


def test_more_rows_than_it_was_made_for_are_refused() -> None:
    model = model_made_by(models.mlp)
    x, target = block(CLASSES)
    weights = model.initialise("", 0, np.float32)
    with pytest.raises(ModelError, match="5 rows; must be 1 to 4"):
        model.program(4, np.float32, per_sample=False).bind(x, target, weights=weights)
