"""What code of the user's own may not do though it runs is found before the first step."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import pytest

from distsgd.models import RowSpec
from tests.unit.models.admitting import admit

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
own = importlib.import_module("tests.unit.models.own_models")
nn = torch.nn


def module_of(forward: Callable[[Any, Any], Any], outputs: int = 10) -> Callable[[], Any]:
    """One with a linear layer, whose outputs and itself `forward` takes."""

    class OfForward(nn.Module):  # type: ignore[name-defined,misc]
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(64, outputs)
            self.kept: Any = None

        def forward(self, x: Any) -> Any:
            return forward(self, x)

    return OfForward


def binary(outputs: Any, target: Any) -> Any:
    return nn.functional.binary_cross_entropy_with_logits(
        outputs.reshape(-1), target.to(outputs.dtype), reduction="none"
    )


@pytest.mark.parametrize("shape", [(-1, 1), (-1,)])
def test_one_logit_for_classes_is_refused_with_both_shapes(shape: tuple[int, ...]) -> None:
    make = module_of(lambda self, x: self.linear(x).reshape(shape), 1)
    rows = RowSpec((64,), "class", 2)
    found = admit(own.of(lambda: (make(), binary)), rows=rows) or ""
    shown = (24, 1) if len(shape) > 1 else (24,)
    assert f"gives outputs of shape {shown} for targets of shape (24,); must be (24, 2)" in found
    assert 'give an output for each class, or [data] label_kind = "number"' in found


def test_classes_that_do_not_come_last_are_refused() -> None:
    make = module_of(lambda self, x: self.linear(x).reshape(-1, 3, 5), 15)
    rows = RowSpec((64,), "class", 3, (5,))
    found = admit(own.of(lambda: (make(), lambda out, y: own.each_loss(out, y).mean(1))), rows=rows)
    assert "must be (24, 5, 3) (transpose(1, 2): classes come last)" in (found or "")


@pytest.mark.parametrize("fits", [True, False])
def test_predictions_of_numbers_must_fit_the_targets(fits: bool) -> None:  # noqa: FBT001 -- a parameter of the test.
    rows = RowSpec((64,), "number", 1, (1,))

    def losses(outputs: Any, target: Any) -> Any:
        return (outputs - target[:, 0]).square()

    def make() -> Any:
        made = module_of(lambda self, x: self.linear(x)[:, 0], 1)(), losses
        return (*made, lambda out: out.unsqueeze(1)) if fits else made

    found = admit(own.of(make), rows=rows, per_sample=False)
    said = "gives predictions of shape (24,) for targets of shape (24, 1); must be (24, 1)"
    assert found is None if fits else said in (found or "")


def clip(self: Any, _: Any) -> None:
    self.linear.weight.data.clamp_(-0.01, 0.01)


def round_off(_: Any, x: Any) -> None:
    x.data.round_()


@pytest.mark.parametrize("mode", ["training", "evaluation"])
@pytest.mark.parametrize(("write", "what"), [(clip, "weights"), (round_off, "inputs")])
def test_what_is_lent_and_written_through_data_is_named(write: Any, what: str, mode: str) -> None:
    def forward(self: Any, x: Any) -> Any:
        if self.training is (mode == "training"):
            write(self, x)
        return self.linear(x)

    make = module_of(forward)
    found = admit(own.of(lambda: (make(), own.each_loss)), per_sample=False) or ""
    assert f"changes its {what} while it runs, in {mode}" in found


def test_targets_that_the_loss_writes_are_named() -> None:
    def losses(outputs: Any, target: Any) -> Any:
        return own.each_loss(outputs, target.clamp_(max=4))

    assert "changes its targets while it runs, in training" in (admit(own.plain_with(losses)) or "")


def of_first_block(self: Any, x: Any) -> Any:
    if self.kept is None:
        self.kept = x.std().item()
    return self.linear(x / self.kept)


def mean_for_evaluation(self: Any, x: Any) -> Any:
    if self.training:
        self.kept = x.mean().item()
    return self.linear(x if self.training else x - (self.kept or 0.0))


@pytest.mark.parametrize(
    ("forward", "mode"), [(of_first_block, "training"), (mean_for_evaluation, "evaluation")]
)
def test_state_in_plain_attributes_is_found_and_named(forward: Any, mode: str) -> None:
    make = module_of(forward)
    found = admit(own.of(lambda: (make(), own.each_loss)), per_sample=False) or ""
    assert f"gives other losses in {mode} for the same block once it has trained on" in found
    assert "its OfForward keeps numbers that are no parameters" in found


@pytest.mark.parametrize("chance", [0.0, 0.5])
def test_hook_that_mixes_rows_in_the_gradient_of_training_is_found(chance: float) -> None:
    def forward(self: Any, x: Any) -> Any:
        hidden = nn.functional.dropout(self.linear(x), chance, self.training)
        if self.training and hidden.requires_grad:
            hidden.register_hook(lambda gradient: gradient / gradient.norm())
        return hidden

    make = module_of(forward)
    found = admit(own.of(lambda: (make(), own.each_loss)), per_sample=False) or ""
    assert "mixes samples in its backward: in training the share of rows in the gradient" in found


def test_hook_that_knows_in_training_how_many_rows_there_are_is_found() -> None:
    def forward(self: Any, x: Any) -> Any:
        hidden = self.linear(x)
        if self.training and hidden.requires_grad:
            hidden.register_hook(lambda gradient: gradient / len(gradient))
        return hidden

    make = module_of(forward)
    found = admit(own.of(lambda: (make(), own.each_loss)), per_sample=False) or ""
    assert "a gradient that is not the sum of theirs alone" in found


@pytest.mark.parametrize(("reads", "changes"), [(11, 12), (17, 9), (3, 2)])
def test_two_rows_in_the_middle_that_mix_are_found(reads: int, changes: int) -> None:
    def forward(self: Any, x: Any) -> Any:
        if len(x) <= max(reads, changes):
            return self.linear(x)
        mixed = x.clone()
        mixed[reads] = x[reads] + x[changes]
        return self.linear(mixed)

    make = module_of(forward)
    found = admit(own.of(lambda: (make(), own.each_loss)), per_sample=False) or ""
    assert "its OfForward mixes samples (in training" in found
