"""Which files and directories a run has that has not trained. No I/O here."""

from __future__ import annotations

LOCK, DRIVER_LOCK, JOB_FILE = "lock", "driver.lock", "job.json"
INITIAL_WEIGHTS = "initial_weights.safetensors"
# What a creation that was interrupted before it wrote the configuration may have left.
BEFORE_CONFIG = frozenset(
    {
        LOCK,
        DRIVER_LOCK,
        JOB_FILE,
        "checkpoints",
        "history",
        "model.json",
        "environment.json",
        INITIAL_WEIGHTS,
        "metrics.prom",
    }
)
BEGINNING = BEFORE_CONFIG | {"data", "config.json"}
