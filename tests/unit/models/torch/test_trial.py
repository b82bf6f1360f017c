"""What a trial of a module finds before anything rests on it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from distsgd.errors import ModelError
from tests.unit.models.torch.models import NUMBERS, block, cross_entropy, model_made_by

torch: Any = pytest.importorskip("torch", reason="needs the extra 'torch'")


def by_module(inputs: int, outputs: int) -> Any:
    """A loss with weights of its own."""

    class OwnLoss(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.head = torch.nn.Linear(outputs, outputs, bias=False)

        def forward(self, out: Any, target: Any) -> Any:
            return cross_entropy(self.head(out), target)

    return torch.nn.Linear(inputs, outputs), OwnLoss()


def by_closure(inputs: int, outputs: int) -> Any:
    """A loss over a scale from outside."""
    scale = torch.nn.Parameter(torch.ones(outputs, 3))
    net = torch.nn.Linear(inputs, outputs)
    return net, lambda out, target: cross_entropy(out @ scale, target)


@pytest.mark.parametrize("make", [by_module, by_closure])
def test_what_learns_outside_of_the_module_is_refused(make: Any) -> None:
    with pytest.raises(ModelError, match=r"shape \(3, 3\) .*no parameter of Linear; .*make it a"):
        model_made_by(make)


def test_what_a_forward_makes_for_itself_may_have_gradients() -> None:
    def make(inputs: int, outputs: int) -> Any:
        class Forces(torch.nn.Linear):  # type: ignore[misc]
            def forward(self, x: Any) -> Any:
                return super().forward(x.clone().requires_grad_())

        return Forces(inputs, outputs), cross_entropy

    assert model_made_by(make).num_parameters == 21


def test_numbers_per_sample_are_at_least_one() -> None:
    def make(inputs: int, outputs: int) -> Any:
        return torch.nn.Linear(inputs, outputs), lambda out, _: out.sum(1)

    assert model_made_by(make).numbers_per_sample == 1


def test_layer_without_a_size_is_refused_with_the_size_to_give() -> None:
    def make(outputs: int) -> Any:
        return torch.nn.Sequential(torch.nn.LazyLinear(outputs)), cross_entropy

    with pytest.raises(ModelError, match=r"0.weight has no shape .*in_features=inputs"):
        model_made_by(make)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_what_is_seen_of_outputs_is_computed_in_their_dtype(dtype: str) -> None:
    def make(inputs: int, outputs: int) -> Any:
        scale = torch.full((outputs, outputs), 0.5)
        net = torch.nn.Linear(inputs, outputs)
        return net, lambda out, target: (out @ scale - target).square().sum(1)

    model, (x, target) = model_made_by(make, NUMBERS), block(NUMBERS, dtype=dtype)
    outputs = np.ascontiguousarray(x[:, :2])
    shown, deltas = model.seen(outputs, target)
    assert (shown.dtype, deltas.dtype) == (np.dtype(dtype), np.dtype(dtype))
