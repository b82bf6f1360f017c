"""When a run is evaluated, and what ends it: functions of its state alone. No I/O here.

Nothing is remembered between two steps, so a server that takes over decides as the one before it.
"""

from __future__ import annotations

from distsgd.parallel.server.spec import ServerSpec, StoppedBy
from distsgd.parallel.server.training import Training
from distsgd.store.logs import EvaluationRow


def ended_by(
    spec: ServerSpec, training: Training, newest: EvaluationRow | None
) -> StoppedBy | None:
    """What has brought the run to its end; None where there are steps to make.

    Args:
        spec: The run.
        training: Where it is.
        newest: Its last evaluation.
    """
    if spec.target is not None and spec.target.is_met(newest):
        return "target"
    if training.gradient_converged:
        return "gradient"
    return spec.length if training.step >= spec.total_steps else None


def evaluation_is_due(spec: ServerSpec, training: Training, newest: EvaluationRow | None) -> bool:
    """Is the run evaluated where it is: rows are held out, it is time, and it is not done yet?"""
    step = training.step
    if not spec.num_test_rows or not step or (newest is not None and newest.step == step):
        return False
    of_step = spec.worker.sampler.num_samples(step - 1)
    is_on_grid = spec.evaluate_every.is_due(step, training.num_samples, of_step=of_step)
    return is_on_grid or ended_by(spec, training, newest) is not None


def unmet(spec: ServerSpec, stopped_by: StoppedBy) -> str:
    """What to say of a run that came to its end without its target; "" where nothing is."""
    if spec.target is None or stopped_by == "target":
        return ""
    return (
        f"the target {spec.target} was not met; train for more [train] epochs or steps, or set "
        "another target"
    )
