"""What a step looks like from inside: predictions and the loss's gradient by them. No I/O here.

Legend: N samples, O outputs.
"""

from __future__ import annotations

from distsgd.autodiff.tape import GradientTape, Variable
from distsgd.base.arrays import Array
from distsgd.nn.losses import Loss
from distsgd.parallel.worker import Seen


def seen(loss: Loss, outputs_NO: Array, target: Array) -> Seen:
    """A block's predictions, deltas and targets, in arrays of their own."""
    outputs = Variable(outputs_NO.copy())
    target = target.copy()
    # A run whose outputs leave the domain of its loss is told apart by its loss, step by step.
    with GradientTape(check_values=False) as tape:
        losses = loss.sample_losses(outputs, Variable(target, watched=False, dtype=target.dtype))
    deltas_NO = tape.gradient(losses, outputs)
    return Seen(loss.prediction(outputs).value, deltas_NO, target)
