"""Linear networks without bias, trained by the trainer itself: what several lessons need."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distsgd.config import TrainConfig
from distsgd.run.run import Result
from distsgd.run.trainer import Trainer

Float64 = NDArray[np.float64]


def linear_config(**sections: dict[str, Any]) -> TrainConfig:
    """One output without bias with the quadratic cost ½ε², whole batches, float64, no workers."""
    layer = {"type": "dense", "units": 1, "bias": False}
    values: dict[str, dict[str, Any]] = {
        "data": {"path": "arrays", "label": "goal", "standardise": "none"},
        "model": {"layers": [layer], "loss": "quadratic"},
        "optimizer": {"type": "sgd"},
        "batch": {"size": "full"},
        "train": {"dtype": "float64"},
        "parallel": {"workers": 0},
        "checkpoint": {"every_s": 0},
    }
    for name, keys in sections.items():
        values[name] |= keys
    return TrainConfig.from_dict(values)


def trained(
    x_NI: Float64, y_N: Float64, weights_I: Float64, run: Path, *, rate: float, steps: int
) -> Result:
    """Gradient descent on one linear output from given weights."""
    config = linear_config(optimizer={"learning_rate": rate}, train={"steps": steps})
    start = {"layers.0.weight": weights_I.reshape(-1, 1)}
    return Trainer(config, data=(x_NI, y_N), run_dir=run).fit(initial_weights=start)
