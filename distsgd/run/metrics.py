"""How a run ended: the object of ``--json`` and of ``result.json``. Plain values; loads nothing."""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True, kw_only=True)
class Metrics:
    """How a run ended; losses are means, null where they are no finite numbers."""

    run: str
    status: str
    stopped_by: str
    advice: str | None
    steps: int
    epochs: float
    train_loss: float | None
    test_loss: float | None
    test_accuracy: float | None
    weights_digest: str
    samples_per_s: float
    num_workers: int
    seconds: float


KEYS = tuple(field.name for field in fields(Metrics))
