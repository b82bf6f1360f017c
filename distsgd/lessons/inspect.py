"""What pictures of a run are drawn from: its weights, gradients by the input, losses over a weight.

In this process, without Ray. Shape letters: N rows, I inputs, K outputs of a layer, G points of a
grid, T steps and the start, P parameters.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distsgd.base.arrays import Array
from distsgd.base.locations import Location
from distsgd.data.dataset import DataSet
from distsgd.data.node_cache import DataPlace
from distsgd.data.prepare.prepare import read_features
from distsgd.errors import ConfigError, DataError
from distsgd.models.weights import weights_vector
from distsgd.nn.network import Network
from distsgd.parallel.numerics import one_blas_thread
from distsgd.parallel.server.step_runner import StepView
from distsgd.run.evaluation import as_target
from distsgd.run.resume import check_replay
from distsgd.run.run import Run
from distsgd.run.source import label_problem
from distsgd.run.spec import make_run_spec
from distsgd.run.verify import replayed

Float64 = NDArray[np.float64]

LOSS_ROWS = 4096  # Training rows a loss is taken over, at most.


@dataclass(frozen=True, slots=True)
class LayerWeights:
    """The weights ``[K, I]`` of each output of a layer, and what the outputs are called."""

    name: str
    weights_KI: Array
    outputs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class InputGradients:
    """Raw rows ``[N, I]``; the gradients of their losses by the standardised inputs; labels."""

    x_NI: Array
    gradients_NI: Array
    labels: tuple[str, ...]


def network_of(saved: Run) -> Network:
    """The layers of a run, whose inside can be shown.

    Raises ConfigError where it trained a model of another kind.
    """
    if not isinstance(saved.model, Network):
        problem = f"{saved.place} trained {saved.model.outline}; only the inside of layers is shown"
        raise ConfigError([f"{problem} (choose a run with [model] layers)"])
    return saved.model


def layer_weights(run: Path, layer: int | None = None) -> LayerWeights:
    """The weights of a dense layer of `run`, by default the first with weights.

    Raises:
        ConfigError: The layer has none that take one row to one number each.
        RunError: `run` is no trained run.
    """
    saved = Run.open(run)
    views = network_of(saved).views(saved.weights_P)
    matrices = {name: array for name, array in views.items() if array.ndim == 2}
    known = ", ".join(name.split(".")[1] for name in matrices)
    name = f"layers.{layer}.weight" if layer is not None else next(iter(matrices), "")
    if name not in matrices:
        raise ConfigError(
            [f"layer {layer} has no weights of inputs by outputs; choose of: {known}"]
        )
    weights_KI = np.ascontiguousarray(matrices[name].T)
    classes = saved.manifest.class_names if name == next(reversed(matrices)) else ()
    outputs = classes or tuple(range(len(weights_KI)))
    return LayerWeights(name, weights_KI, tuple(map(str, outputs)))


def input_gradients(run: Path, data: Path, *, first: int, last: int) -> InputGradients:
    """The gradients of the losses of rows ``first`` to ``last - 1`` of `data` by their inputs.

    By the inputs as the network sees them, which is after standardising: their units differ less.

    Args:
        run: A trained run.
        data: A file of raw rows with labels.
        first: The first row, counted from 0.
        last: The row after the last.

    Raises:
        DataError: The rows cannot be used, or are not there.
        RunError: `run` is no trained run.
    """
    saved = Run.open(run)
    x_NI, target = labelled_rows(saved, data, first, last)
    names = saved.manifest.class_names
    classes_NK = target.reshape(len(target), -1).tolist()
    labels = tuple(" ".join(str(names[k]) for k in row) for row in classes_NK) if names else ()
    loss = _MeanLoss(saved, x_NI, as_target(saved, target))
    with one_blas_thread():
        gradients_NI = loss.by_input(saved.weights_P)
    raw_NI = x_NI * saved.manifest.scale + saved.manifest.shift
    return InputGradients(raw_NI, gradients_NI, labels)


@dataclass(frozen=True, slots=True)
class LossOverWeight:
    """The mean loss over one weight, and the steps that training took.

    Attributes:
        weight: Its full name.
        rows: Training rows the losses are means over.
        weight_T, loss_T, slope_T: At the start and after each step.
        grid_G: Weights that the curves are over.
        first_loss_G, last_loss_G: Losses with all other weights as at the start, and as after the
            last of the steps.
    """

    weight: str
    rows: int
    weight_T: Float64
    loss_T: Float64
    slope_T: Float64
    grid_G: Float64
    first_loss_G: Float64
    last_loss_G: Float64


def loss_over_weight(
    run: Path,
    weight: str,
    *,
    max_steps: int,
    points: int = 201,
    cache_dir: Path | str | Location | None = None,
) -> LossOverWeight:
    """Make the first steps of `run` again, and hold the mean loss over one weight against them.

    Args:
        run: A run; its data must still be there.
        weight: As ``layers.0.weight[3]`` (row-major) or ``layers.0.weight[0,3]``.
        max_steps: Steps made again, at most.
        points: Of the grid.
        cache_dir: Where prepared data are kept.

    Raises:
        ConfigError: There is no such weight.
        RunError, DataError: The run or its data are not there any more.
        NumericsError: This process computes other bits than those that made the run.
        ReplayInterrupted: It was stopped before the steps were made again.
    """
    saved = Run.open(run)
    network_of(saved)  # Before any step is made.
    index = _index_of(saved, weight)
    data = saved.data(cache_dir)
    with one_blas_thread():
        weights_TP = steps_again(saved, data, max_steps=max_steps)
        loss = _loss_on_training_rows(saved, data)
        found = [loss.with_slope(weights_P, index) for weights_P in weights_TP]
        loss_T, slope_T = (np.array(column) for column in zip(*found, strict=True))
        # A run that diverges is drawn as far as there is something to draw.
        finite = len(loss_T) if np.isfinite(loss_T).all() else int(np.isfinite(loss_T).argmin())
        weights_TP, loss_T, slope_T = weights_TP[:finite], loss_T[:finite], slope_T[:finite]
        weight_T = weights_TP[:, index].astype(np.float64)
        grid_G = _grid(weight_T, points)
        first_G, last_G = (loss.over(weights_TP[t].copy(), index, grid_G) for t in (0, -1))
    return LossOverWeight(weight, loss.rows, weight_T, loss_T, slope_T, grid_G, first_G, last_G)


def steps_again(saved: Run, data: DataPlace, *, max_steps: int) -> Array:
    """The weights ``[T, P]`` before the first step of a run and after each of the first steps.

    The steps are made again, in this process: a run is a function of what its directory says.
    """
    parallel = saved.config.parallel.model_copy(update={"workers": 0})
    config = saved.config.model_copy(update={"parallel": parallel})
    run_spec = make_run_spec(config, data, saved.manifest, saved.own)
    check_replay(saved.directory, run_spec)
    steps = max(1, min(max_steps, saved.checkpoint.step))
    before: dict[int, Array] = {}  # A step that is made twice counts as it was made last.

    def keep(view: StepView) -> None:
        before[view.step] = weights_vector(
            saved.model, view.weights, config.train.dtype, must_be_finite=False
        )

    with replayed(saved, run_spec, steps, on_step=keep, evaluate=False) as made:
        return np.stack([*before.values(), made.recorded_weights_P])


def _grid(weight_T: Float64, points: int) -> Float64:
    """All that the steps went over, with room on both sides."""
    low, high = float(weight_T.min()), float(weight_T.max())
    room = 0.3 * (high - low) or 0.5 * max(abs(low), 1.0)
    return np.linspace(low - room, high + room, points)


def _index_of(saved: Run, weight: str) -> int:
    """The place of a weight in the flat vector."""
    model = saved.model
    numbers = model.views(np.arange(model.num_parameters))
    match = re.fullmatch(r"([\w.]+)\[([\d,\s]+)\]", weight)
    array = numbers.get(match[1]) if match else None
    if match is None or array is None:
        known = ", ".join(f"{name} {list(view.shape)}" for name, view in numbers.items())
        rule = "must be a parameter and a place in it, as layers.0.weight[0]"
        raise ConfigError([f"weight is {weight!r}; {rule}; the parameters are {known}"])
    place = tuple(int(part) for part in match[2].split(",") if part.strip())
    try:
        return int(array.reshape(-1)[place[0]] if len(place) == 1 else array[place])
    except (IndexError, TypeError):
        rule = f"{match[1]} has the shape {list(array.shape)}; choose a place in it"
        raise ConfigError([f"weight is {weight!r}, but {rule}"]) from None


def labelled_rows(saved: Run, data: Path, first: int, last: int) -> tuple[Array, NDArray[Any]]:
    """Rows ``first`` to ``last - 1`` of a file, standardised, with their targets.

    Args:
        saved: The run as whose rows they are read.
        data: A file.
        first: The first row, counted from 0.
        last: The row after the last.

    Returns:
        Features ``[N, I]`` of the run's dtype, and targets ``[N, *target_shape]``.

    Raises:
        DataError: A row cannot be used, or none of these exists.
    """
    found, num_rows = [], 0
    usable = label_problem(saved.model)
    rows_of = read_features(data, saved.manifest, labels="required", label_problem=usable)
    for x_NI, target, at in rows_of:
        assert target is not None
        wanted = slice(max(first - at, 0), max(last - at, 0))
        found.append((x_NI[wanted], target[wanted]))
        num_rows = at + len(x_NI)
        if num_rows >= last:
            break
    x_NI, target = (np.concatenate(parts) for parts in zip(*found, strict=True))
    if not len(x_NI):
        raise DataError(data, f"has {num_rows} rows, and no row {first}; choose others")
    return x_NI, target


def _loss_on_training_rows(saved: Run, data: DataPlace) -> _MeanLoss:
    rows, manifest = DataSet.open(data).train, saved.manifest
    count = min(rows.num_rows, LOSS_ROWS)
    dtype = np.dtype(saved.config.train.dtype)
    x_NI = np.empty((count, manifest.num_features), dtype)
    target = manifest.empty_targets(count)
    rows.gather_range_inplace(0, count, x_NI=x_NI, target=target, squared_norms_N=None)
    return _MeanLoss(saved, x_NI, as_target(saved, target))


class _MeanLoss:
    """The mean loss of fixed rows as a function of the weights."""

    def __init__(self, saved: Run, x_NI: Array, target: Array) -> None:
        model, self.rows = network_of(saved), len(x_NI)
        self._weights = saved.weights_P.copy()
        self._gradients = np.empty_like(self._weights)
        x = np.ascontiguousarray(x_NI).reshape(-1, *model.input_shape)
        self._by_input = np.empty_like(x)
        program = model.program(len(x), x.dtype, per_sample=False)
        self._bound = program.bind(
            x,
            np.ascontiguousarray(target),
            weights=self._weights,
            gradients=self._gradients,
            x_gradient=self._by_input,
        )

    def with_slope(self, weights_P: Array, index: int) -> tuple[float, float]:
        """The mean loss, and its derivative by one weight."""
        loss = self._loss(weights_P)
        self._bound.backward()
        return loss, float(self._gradients[index]) / self.rows

    def over(self, weights_P: Array, index: int, grid_G: Float64) -> Float64:
        """The mean losses with one weight at each point of a grid."""
        losses = np.empty(len(grid_G))
        for place, weight in enumerate(grid_G):
            weights_P[index] = weight
            losses[place] = self._loss(weights_P)
        return losses

    def by_input(self, weights_P: Array) -> Array:
        """The gradient of each row's loss by its input, ``[N, I]``."""
        self._loss(weights_P)
        self._bound.backward()
        return self._by_input.reshape(self.rows, -1)

    def _loss(self, weights_P: Array) -> float:
        np.copyto(self._weights, weights_P)
        with np.errstate(over="ignore", invalid="ignore"):
            self._bound.forward()
        return float(self._bound.losses_N.mean(dtype=np.float64))
