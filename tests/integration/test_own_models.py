"""A module of PyTorch from a file of the user's: one digest with any workers, through faults."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from distsgd.lab.standing_ray import standing_ray
from tests.integration.program import Program, settings

torch: Any = pytest.importorskip("torch", reason="needs the extra 'torch'")

pytestmark = pytest.mark.timeout(300)
FAULTS = ["kill worker at step 60 after_compute", "kill server at step 130 before_update"]
COMMON = """
[train]
steps = 200
epochs = 1000
digest_every = 10

[batch]
size = 64

[parallel]
lane_rows = 8
assignment = "all"

[statistics]
per_sample = false

[checkpoint]
every_steps = 50
"""
CNN_CONFIG = """
[data]
path = "digits.parquet"
label = "digit"
input_shape = [1, 8, 8]
test_fraction = 0.2

[model]
factory = "own_cnn:make"
options = {channels = 8}

[optimizer]
type = "momentum"
learning_rate = 0.02
"""
CNN = """
from torch import nn
from torch.nn.functional import cross_entropy

from distsgd.models import torch_model


@torch_model
def make(inputs, outputs, channels):
    net = nn.Sequential(
        nn.Conv2d(inputs[0], channels, 3, padding=1),
        nn.GroupNorm(2, channels),
        nn.GELU(),
        nn.MaxPool2d(2),
        nn.Dropout(0.2),
        nn.Flatten(),
        nn.Linear(channels * inputs[1] * inputs[2] // 4, outputs),
    )

    def sample_losses(out, target):
        return cross_entropy(out, target, reduction="none")

    return net, sample_losses
"""
TRANSFORMER_CONFIG = """
[data]
path = "tokens.parquet"
label = "next"
feature_kind = "integer"
test_fraction = 0.2

[model]
factory = "own_transformer:Transformer"
loss = "softmax_cross_entropy"

[optimizer]
type = "adamw"
learning_rate = 0.003
"""
TRANSFORMER = '''
import torch
from torch import nn


class Transformer(nn.Module):
    """Each token from those before it; knows nothing of distsgd."""

    def __init__(self, inputs, outputs, levels, width=16):
        super().__init__()
        self.tokens = nn.Embedding(levels, width)
        self.places = nn.Embedding(inputs, width)
        self.block = nn.TransformerEncoderLayer(
            width, 2, 32, dropout=0.1, activation="gelu", batch_first=True, norm_first=True
        )
        self.last = nn.Linear(width, outputs)
        mask = nn.Transformer.generate_square_subsequent_mask(inputs)
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, x):
        places = self.places(torch.arange(x.shape[1]))
        return self.last(self.block(self.tokens(x) + places, src_mask=self.mask))
'''


def run(place: Path, name: str, *arguments: str, code: int = 0) -> dict[str, Any]:
    """What comes of a run to its end."""
    found_code, found, said = Program(place, "--run-dir", name, *arguments).result(timeout_s=150)
    assert found_code == code, said
    return found


def inject(*faults: str) -> list[str]:
    return [part for fault in faults for part in ("--inject", fault)]


def test_cnn_has_one_digest_with_any_workers_killed_and_resumed(place: Path) -> None:
    (place / "own_cnn.py").write_text(CNN)
    (place / "digits.toml").write_text(CNN_CONFIG + COMMON)
    alone = run(place, "alone", "--workers", "0")
    assert alone["test_accuracy"] > 0.9
    run(place, "one", "--workers", "0", *inject("kill driver at step 110"), code=-9)
    with standing_ray(4) as on_ray:
        common = settings(*on_ray)
        one = run(place, "one", "--workers", "1", "--resume", "auto", *common)
        two = run(place, "two", "--workers", "2", *inject(*FAULTS), *common)
        three = run(place, "three", "--workers", "3", *common)
    assert len(two["faults"]) == len(FAULTS), two
    digests = [it["weights_digest"] for it in (alone, one, two, three)]
    assert digests == [digests[0]] * 4


def test_transformer_on_tokens_has_one_digest_with_workers_and_server_killed(place: Path) -> None:
    (place / "own_transformer.py").write_text(TRANSFORMER)
    (place / "digits.toml").write_text(TRANSFORMER_CONFIG + COMMON)
    tokens = np.random.default_rng(3).integers(0, 7, (1000, 12))
    following = (tokens + np.roll(tokens, 1, axis=1)) % 7
    following[:, 0] = tokens[:, 0]
    table = pa.table({"tokens": tokens.tolist(), "next": following.tolist()})
    pq.write_table(table, place / "tokens.parquet")
    alone = run(place, "alone", "--workers", "0")
    two = run(place, "two", "--workers", "2", *inject(*FAULTS))
    assert len(two["faults"]) == len(FAULTS), two
    assert two["weights_digest"] == alone["weights_digest"]
    assert alone["train_loss"] < np.log(7)
