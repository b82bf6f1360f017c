"""The circuit of a trained network for one row: as `distsgd.lessons` draws it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from distsgd.autodiff.tape import GradientTape, Variable
from distsgd.lessons.inspect import labelled_rows, network_of
from distsgd.run.evaluation import as_target
from distsgd.run.run import Run


@dataclass(frozen=True, slots=True)
class RowCircuit:
    """A tape, the loss that was computed under it, and the names of what went in."""

    tape: GradientTape
    loss: Variable
    names: dict[str, Variable]


def row_circuit(run: Path, data: Path, row: int) -> RowCircuit:
    """Record the loss of one row of `data` under the newest weights of `run`.

    Raises:
        DataError: The row cannot be used, or is not there.
        RunError: `run` is no trained run.
    """
    saved = Run.open(run)
    x_NI, target = labelled_rows(saved, data, row, row + 1)
    model = network_of(saved)
    parameters = {
        name: Variable(view, dtype=view.dtype)
        for name, view in model.views(saved.weights_P).items()
    }
    x = Variable(x_NI.reshape(-1, *model.input_shape), dtype=x_NI.dtype)
    wanted = as_target(saved, target)
    goal = Variable(wanted, watched=False, dtype=wanted.dtype)
    with GradientTape() as tape:
        loss = model.loss.sample_losses(model.outputs(x, parameters), goal)
    return RowCircuit(tape, loss, {"x": x, "target": goal, "loss": loss, **parameters})
