"""How a run ended: the object of ``--json`` and of ``result.json``. Plain values; loads nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from distsgd.parallel.server.spec import Outcome


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


def metrics_of(
    outcome: Outcome, *, run: str, num_workers: int, faults: Sequence[str] | None = None
) -> dict[str, Any]:
    """The plain values of `outcome`, with the `faults` on purpose where there were any ordered."""
    ended = Metrics(
        run=run,
        status=outcome.status,
        stopped_by=outcome.stopped_by,
        advice=outcome.advice or None,
        steps=outcome.step,
        epochs=outcome.epoch,
        train_loss=outcome.train_loss,
        test_loss=outcome.test_loss,
        test_accuracy=outcome.test_accuracy,
        weights_digest=outcome.weights_digest,
        samples_per_s=outcome.samples_per_s,
        num_workers=num_workers,
        seconds=outcome.seconds,
    )
    return asdict(ended) | ({} if faults is None else {"faults": list(faults)})
