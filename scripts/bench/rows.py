"""Rows that modules are timed on, the same for every side."""

import numpy as np
from modules import CHARACTERS, PLACES

NUM_ROWS = {"mlp": 20_000, "cnn": 20_000, "transformer": 20_000}


def rows_of(kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Features and targets: images and classes, or characters and the next ones."""
    random = np.random.default_rng(0)
    count = NUM_ROWS[kind]
    if kind == "transformer":
        text = random.integers(0, CHARACTERS, (count, PLACES + 1))
        return text[:, :-1].copy(), text[:, 1:].copy()
    return random.standard_normal((count, 784), np.float32), random.integers(0, 10, count)
