"""The transformer that ``init gpt`` writes, and the 3-gram that it is held against."""

from __future__ import annotations

import importlib
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

torch = pytest.importorskip("torch")

EXAMPLES = Path(__file__).parents[3] / "distsgd" / "examples"
SMALL = {"width": 8, "layers": 2, "heads": 2}


@pytest.fixture
def sample(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The script, imported next to its model as a user has them."""
    monkeypatch.syspath_prepend(EXAMPLES)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield importlib.import_module("gpt_sample")
    torch.set_num_threads(threads)
    del sys.modules["gpt_sample"], sys.modules["gpt_model"]


def test_three_gram_is_that_by_hand(sample: ModuleType) -> None:
    training = np.array([[0, 1, 1]])  # p(1) = 3/5, p(1 | 0) = (1 + 3/5)/2, p(1 | 01) = (1 + 4/5)/2
    loss = sample.three_gram_loss(training, training, 2)
    assert loss == pytest.approx(-(math.log(0.8) + math.log(0.9)) / 2, rel=1e-12)


def test_three_gram_of_what_it_never_saw_is_that_of_shorter_ones(sample: ModuleType) -> None:
    training, held_out = np.array([[0, 1, 1]]), np.array([[1, 0, 0]])
    loss = sample.three_gram_loss(training, held_out, 2)  # p(0 | 1) = p(0 | 0) = p(0)/2 = 1/5
    assert loss == pytest.approx(-math.log(0.2), rel=1e-12)


def test_three_gram_gives_chances_that_sum_to_one(sample: ModuleType) -> None:
    training = np.random.default_rng(0).integers(0, 5, (20, 9))
    for start in ([0, 1], [4, 4], [2, 3]):
        each = [sample.three_gram_loss(training, np.array([[*start, it]]), 5) for it in range(5)]
        first = sample.three_gram_loss(training, np.array([start]), 5)
        assert sum(math.exp(first - 2 * it) for it in each) == pytest.approx(1, rel=1e-12)


def test_model_has_about_a_million_weights(sample: ModuleType) -> None:
    net, *_ = sample.make(64, 103)
    assert sum(it.numel() for it in net.parameters()) == pytest.approx(1e6, rel=0.05)


def test_model_sees_nothing_that_comes_later(sample: ModuleType) -> None:
    net, *_ = sample.make(6, 5, **SMALL)
    before = torch.tensor([[0, 1, 2, 3, 4, 0]])
    after = torch.tensor([[0, 1, 2, 4, 0, 1]])
    scores, others = net(before), net(after)
    assert torch.equal(scores[:, :3], others[:, :3])
    assert not torch.equal(scores[:, 3:], others[:, 3:])


def test_loss_of_a_row_is_the_mean_of_its_places(sample: ModuleType) -> None:
    _, sample_losses, probabilities = sample.make(2, 3, **SMALL)
    scores = torch.tensor([[[0.0, 0.0, 0.0], [math.log(2.0), 0.0, 0.0]]])
    (loss,) = sample_losses(scores, torch.tensor([[2, 0]])).tolist()
    assert loss == pytest.approx((math.log(3) + math.log(2)) / 2, rel=1e-6)
    assert probabilities(scores)[0, 1].tolist() == pytest.approx([0.5, 0.25, 0.25], rel=1e-6)


def test_text_is_drawn_past_the_places_of_a_row_and_is_the_same_again(sample: ModuleType) -> None:
    characters = "".join(sorted(set(sample.START))) + "xyz"
    torch.manual_seed(0)
    net, *_ = sample.make(6, len(characters), **SMALL)
    text = sample.text_of(net, characters, 6)
    assert text.startswith(sample.START)
    assert len(text) == len(sample.START) + sample.LENGTH
    assert text == sample.text_of(net, characters, 6)
