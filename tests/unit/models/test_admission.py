"""What a model must keep before its first step is found by trying it, and the part is named."""

from __future__ import annotations

import importlib
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from distsgd.errors import ModelError
from distsgd.models import Recipe, model_of
from distsgd.models.admission import Admission
from distsgd.models.rehearsal import Rehearsal
from tests.unit.models.admitting import ROWS, TOKENS, admit, block

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
own = importlib.import_module("tests.unit.models.own_models")
nn = torch.nn


@pytest.mark.parametrize(
    "make",
    [
        lambda: own.flat(nn.GELU),
        lambda: own.flat(lambda: nn.LayerNorm(16)),
        lambda: own.image(lambda: nn.GroupNorm(2, 4)),
        lambda: own.image(lambda: nn.InstanceNorm2d(4)),
        lambda: own.flat(own.InFloat32),
    ],
    ids=["mlp", "layer norm", "group norm", "instance norm", "one dtype alone"],
)
def test_model_whose_rows_are_apart_is_admitted(make: Callable[[], Any]) -> None:
    assert admit(make()) is None


def careful() -> Any:
    """A model that takes no numbers but those of its data, and looks at them."""

    class Careful(nn.Module):  # type: ignore[name-defined,misc]
        def forward(self, x: Any) -> Any:
            if x.min() < 0 or x.max() > 1:
                raise ValueError("no such row")
            return x

    return own.of(lambda: (nn.Sequential(Careful(), nn.Linear(64, 10)), own.each_loss))


def test_what_a_model_raises_for_rows_that_are_none_of_its_data_is_not_held_against_it() -> None:
    assert admit(careful(), per_sample=False) is None


def test_dropout_is_seeded_by_the_block_and_admitted() -> None:
    assert admit(own.flat(lambda: nn.Dropout(0.5)), per_sample=False) is None


@pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")
def test_transformer_with_a_mask_in_a_buffer_is_admitted() -> None:
    assert admit(own.tokens(), rows=TOKENS, count=16) is None


@pytest.mark.parametrize("count", [1, 2])
def test_model_is_admitted_on_one_row_and_on_two(count: int) -> None:
    assert admit(own.flat(nn.GELU), count=count) is None


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (
            lambda: own.flat(lambda: nn.BatchNorm1d(16)),
            "BatchNorm1d '1' mixes samples; GroupNorm keeps them apart (in training",
        ),
        (
            lambda: own.image(lambda: nn.BatchNorm2d(4, track_running_stats=False)),
            "BatchNorm2d '2' mixes samples; GroupNorm keeps them apart",
        ),
        (lambda: own.flat(own.Centred), "Centred '1' mixes samples"),
        (lambda: own.of(lambda: (own.InPlain(), own.each_loss)), "its InPlain mixes samples"),
        (
            lambda: own.plain_with(lambda out, y: own.each_loss(out, y).mean().expand(len(y))),
            'sample_losses mixes samples; give one loss a row (reduction="none")',
        ),
        (
            lambda: own.plain_with(lambda out, y: own.each_loss(out @ out.T, y % len(y))),
            "sample_losses mixes samples",
        ),
    ],
    ids=["batch norm", "without statistics", "own layer", "own forward", "mean", "in-batch"],
)
def test_what_mixes_samples_is_found_and_named(make: Callable[[], Any], said: str) -> None:
    assert said in (admit(make()) or "")


def test_what_mixes_in_evaluation_only_is_found_too() -> None:
    class Sly(nn.Module):  # type: ignore[name-defined,misc]
        def forward(self, x: Any) -> Any:
            return x if self.training else x - x.mean(0)

    assert "Sly '1' mixes samples (in evaluation" in (admit(own.flat(Sly)) or "")


@pytest.mark.parametrize("per_sample", [True, False])
def test_loss_that_is_divided_by_the_number_of_rows_is_found(per_sample: bool) -> None:  # noqa: FBT001 -- a parameter of the test.
    factory = own.plain_with(lambda out, y: own.each_loss(out, y) / len(y))
    found = admit(factory, per_sample=per_sample)
    assert "sample_losses must not divide by the number of rows" in (found or "")


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (
            lambda: own.image(lambda: nn.InstanceNorm2d(4, track_running_stats=True)),
            "the buffer 'running_mean' of InstanceNorm2d '2' in training; nothing but parameters",
        ),
        (
            lambda: own.flat(lambda: nn.utils.spectral_norm(nn.Linear(16, 16))),
            "the buffer 'weight_u' of Linear '1'",
        ),
    ],
    ids=["running statistics", "spectral norm"],
)
def test_buffer_that_training_changes_is_named(make: Callable[[], Any], said: str) -> None:
    found = admit(make()) or ""
    assert said in found
    assert found.endswith("(set track_running_stats = False)") == ("running" in said)


def test_module_that_draws_numbers_unseeded_is_named() -> None:
    found = admit(own.flat(own.Noisy)) or ""
    assert "gives other losses for the same block a second time: Noisy '1'" in found
    assert "must be drawn by the framework" in found


def test_chance_when_the_model_is_made_is_found() -> None:
    class Mask(nn.Module):  # type: ignore[name-defined,misc]
        def __init__(self) -> None:
            super().__init__()
            self.factor = random.random()  # noqa: S311 -- that is what is tested.

        def forward(self, x: Any) -> Any:
            return x * self.factor

    def make() -> Any:
        return nn.Sequential(nn.Linear(64, 10), Mask()), own.each_loss

    assert "made a second time gives other losses" in (admit(own.of(make)) or "")


def test_module_that_is_made_once_for_all_is_refused() -> None:
    layer = nn.Linear(16, 16)
    found = admit(own.flat(lambda: layer)) or ""
    assert "makes Linear '1' once and gives it out again; make a new one" in found


def test_first_weights_by_unseeded_chance_are_found() -> None:
    def make() -> Any:
        layer = nn.Linear(64, 10)
        nn.init.constant_(layer.weight, random.random())  # noqa: S311 -- that is what is tested.
        return layer, own.each_loss

    assert "begins with other weights a second time" in (admit(own.of(make)) or "")


def test_first_module_that_is_not_finite_is_named() -> None:
    found = admit(own.flat(own.Logarithm, nn.ReLU)) or ""
    assert "gives row 0 the loss nan by its first weights; Logarithm '1' is the first" in found


def test_weights_that_are_not_finite_are_named() -> None:
    def make() -> Any:
        layer = nn.Linear(64, 10)
        nn.init.constant_(layer.bias, float("inf"))
        return layer, own.each_loss

    assert "begins with weights that are not finite, in bias" in (admit(own.of(make)) or "")


def test_backward_that_knows_how_many_rows_there_are_is_found() -> None:
    found = admit(own.flat(own.HalvedLayer), per_sample=False) or ""
    assert "a gradient that is not the sum of theirs alone" in found


def test_wrong_rule_for_norms_is_found() -> None:
    """The norms of a program are held against what each row alone gives."""
    recipe = Recipe(own.flat(nn.ReLU), {}, ROWS)
    wrong = _WrongNorms(model_of(recipe))
    weights = wrong.initialise("", 0, np.float32)
    admission = Admission(recipe, Rehearsal(wrong, block(), weights, per_sample=True))
    with pytest.raises(ModelError, match="does not fit the rule for norms of its kind"):
        admission.check(admission.first())


class _WrongNorms:
    """A model whose norms are wrong by a millionth and a half."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def program(self, *arguments: Any, **options: Any) -> Any:
        return _WrongProgram(self._model.program(*arguments, **options))


class _WrongProgram:
    def __init__(self, program: Any) -> None:
        self._program, self.parts = program, program.parts

    def bind(self, *arguments: Any, **options: Any) -> Any:
        bound = self._program.bind(*arguments, **options)
        backward = bound.backward

        def wrong() -> None:
            backward()
            if bound.squared_norms_N is not None:
                bound.squared_norms_N = bound.squared_norms_N * (1 + 1.5e-6)

        bound.backward = wrong
        return bound
