"""A run against a loop of plain PyTorch over the same mini-batches: the same losses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distsgd.data.dataset import DataSet
from distsgd.run.rule_and_sampler import make_sampler
from distsgd.run.run import Run
from distsgd.run.trainer import Trainer
from tests.unit.models.torch import models

torch: Any = pytest.importorskip("torch", reason="needs the extra 'torch'")

STEPS, SEED, RATE, MOMENTUM = 100, 5, 0.05, 0.9
X = np.random.default_rng(1).normal(size=(500, 64)).astype(np.float32)
KINDS = (X[:, :3] + 0.3 * X[:, 3:6]).argmax(axis=1)


@pytest.mark.parametrize("make", [models.mlp, models.cnn])
def test_losses_are_those_of_a_plain_loop(make: Callable[..., Any], tmp_path: Path) -> None:
    config: dict[str, Any] = {
        "train": {"steps": STEPS, "epochs": 1000, "seed": SEED},
        "data": {"standardise": "none"},
        "batch": {"size": 48},
        "optimizer": {"type": "momentum", "learning_rate": RATE, "momentum": MOMENTUM},
        "statistics": {"per_sample": False},
        "parallel": {"workers": 0, "lane_rows": 16, "lanes": 4},
    }
    run = Trainer(config, data=(X, KINDS), model=make, run_dir=tmp_path / "run").fit()
    found = run.history["train_loss"].to_numpy()
    expected, net = _plain_losses(run, make)
    assert np.isfinite(expected).all()
    assert expected[-10:].mean() < 0.5 * expected[:10].mean()
    np.testing.assert_allclose(found, expected, atol=1e-5)
    for name, weights in run.weights.items():
        np.testing.assert_allclose(weights, net.get_parameter(name).detach(), atol=1e-5)


def _plain_losses(run: Run, make: Callable[..., Any]) -> tuple[Any, Any]:
    sampler = make_sampler(run.config, run.manifest)
    order, rows = sampler.row_order(), DataSet.open(run.path / "data").train
    torch.manual_seed(SEED)
    net, sample_losses = make(64, 3)
    optimizer = torch.optim.SGD(net.parameters(), lr=RATE, momentum=MOMENTUM)
    losses = []
    for step in range(STEPS):
        count = sampler.num_samples(step)
        numbers_N = np.empty(count, np.int64)
        order.rows_inplace(step, 0, count, numbers_N)
        numbers_N.sort()
        x_NI, target = np.empty((count, 64), np.float32), np.empty(count, np.int64)
        rows.gather_inplace(numbers_N, x_NI=x_NI, target=target, squared_norms_N=None)
        optimizer.zero_grad()
        loss = sample_losses(net(torch.tensor(x_NI)), torch.tensor(target)).mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return np.array(losses), net
