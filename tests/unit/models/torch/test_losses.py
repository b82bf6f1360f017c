"""Losses by name on a module's outputs: those of the built-in network, to a rounding."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from distsgd.autodiff.tape import GradientTape
from distsgd.autodiff.variable import Variable
from distsgd.errors import ModelError
from distsgd.nn.losses import find_loss

torch: Any = pytest.importorskip("torch", reason="needs the extra 'torch'")

N, NUM_OUTPUTS = 33, 4
NAMED: list[tuple[str, dict[str, Any]]] = [
    ("softmax_cross_entropy", {}),
    ("sigmoid_cross_entropy", {}),
    ("sigmoid_cross_entropy", {"reduction": "mean"}),
    ("squared_error", {}),
    ("squared_error", {"reduction": "mean"}),
    ("quadratic", {}),
    ("mean_absolute", {}),
    ("huber", {"delta": 0.7}),
    ("huber", {"reduction": "mean"}),
    ("hinge", {}),
]


@pytest.mark.parametrize(("name", "options"), NAMED)
@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_loss_its_gradient_and_prediction_are_those_of_the_network(
    name: str, options: dict[str, Any], scale: float
) -> None:
    from distsgd.models.torch.losses import sample_losses_of

    loss, chance = find_loss(name, options), np.random.default_rng(3)
    outputs_NO = scale * chance.normal(size=(N, NUM_OUTPUTS))
    target = (
        chance.integers(0, NUM_OUTPUTS, N)
        if loss.target_kind == "class"
        else chance.random((N, NUM_OUTPUTS))
    )
    ours = Variable(outputs_NO)
    with GradientTape() as tape:
        expected = loss.sample_losses(ours, Variable(target, watched=False, dtype=target.dtype))
    sample_losses, prediction = sample_losses_of(loss, NUM_OUTPUTS)
    theirs = torch.tensor(outputs_NO, requires_grad=True)
    found = sample_losses(theirs, torch.tensor(target))
    (gradient,) = torch.autograd.grad(found.sum(), theirs)
    np.testing.assert_allclose(found.detach(), expected.value, rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(gradient, tape.gradient(expected, ours), rtol=1e-6, atol=1e-12)
    shown = theirs if prediction is None else prediction(theirs)
    np.testing.assert_allclose(shown.detach(), loss.prediction(ours).value, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("name", ["softmax_cross_entropy", "hinge"])
def test_row_with_classes_at_many_places_has_the_mean_over_them(name: str) -> None:
    from distsgd.models.torch.losses import sample_losses_of

    outputs, target = (
        torch.randn(5, 3, NUM_OUTPUTS, dtype=torch.float64),
        torch.randint(NUM_OUTPUTS, (5, 3)),
    )
    sample_losses, _ = sample_losses_of(find_loss(name), NUM_OUTPUTS)
    each = torch.stack([sample_losses(outputs[:, t], target[:, t]) for t in range(3)])
    torch.testing.assert_close(sample_losses(outputs, target), each.mean(0))


def test_gradient_where_a_loss_has_a_corner_is_that_of_the_network() -> None:
    from distsgd.models.torch.losses import sample_losses_of

    outputs = torch.tensor([[1.0, 0.0, 2.0]], requires_grad=True)
    sample_losses, _ = sample_losses_of(find_loss("mean_absolute"), 3)
    sample_losses(outputs, torch.tensor([[1.0, 1.0, 1.0]])).sum().backward()
    assert outputs.grad[0].tolist() == pytest.approx([0.0, -1 / 3, 1 / 3])
    outputs = torch.tensor([[1.0, 0.0, -1.0]], requires_grad=True)
    sample_losses_of(find_loss("hinge"), 3)[0](outputs, torch.tensor([0])).sum().backward()
    assert outputs.grad.tolist() == [[0.0, 0.0, 0.0]]


@pytest.mark.parametrize("name", ["exponential", "cross_entropy"])
def test_other_losses_are_refused_by_name(name: str) -> None:
    from distsgd.models.torch.losses import sample_losses_of

    with pytest.raises(ModelError, match=f'"{name}", which is none for a module.*hinge .*own'):
        sample_losses_of(find_loss(name), NUM_OUTPUTS)


def test_outputs_that_do_not_fit_the_targets_are_refused() -> None:
    from distsgd.models.torch.losses import sample_losses_of

    sample_losses, _ = sample_losses_of(find_loss("softmax_cross_entropy"), NUM_OUTPUTS)
    with pytest.raises(ModelError, match=r"shape \(2, 5\) .* must be \(2, 4\) for these 2 rows"):
        sample_losses(torch.zeros(2, 5), torch.tensor([0, 1]))
    sample_losses, _ = sample_losses_of(find_loss("squared_error"), 1)
    with pytest.raises(ModelError, match=r"shape \(2,\) .* must be \(2, 1\)"):  # No broadcasting.
        sample_losses(torch.zeros(2), torch.zeros(2, 1))
