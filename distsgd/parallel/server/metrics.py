"""How a run ended: the object of ``--json`` and of ``result.json``. Plain values; loads nothing."""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How training ended; losses are means, None where they are no finite numbers.

    Attributes:
        run: The run directory.
        status: "done", "interrupted" or "diverged".
        stopped_by: "steps" or "epochs" at the end of its length, whichever of them ended it;
            "gradient" below `stop_gradient_norm`; "request" or "divergence".
        advice: What a person should know and change, if there is anything.
        steps: Updates made.
        epochs: Passes over the rows.
        train_loss: Over the last epoch.
        test_loss: Of the last evaluation.
        test_accuracy: Of the last evaluation; None where the labels are no classes.
        weights_digest: Of the weights at the end, in hexadecimal.
        samples_per_s: In the last session of the run.
        num_workers: Worker processes that were asked for.
        seconds: Time spent training, in all sessions of the run.
    """

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


KEYS = tuple(field.name for field in fields(Outcome))
