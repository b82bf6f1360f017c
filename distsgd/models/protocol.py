"""The seam between a run and what it trains: `Model`, its `Program`, the `Bound` program.

The network of the layers of `distsgd.nn` keeps it, a module of PyTorch, functions of JAX. A model
holds no numbers: its weights lie in one flat vector ``[P]``, which workers share. No I/O here.

Shape letters: N samples, O outputs, P parameters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol, runtime_checkable

from numpy.typing import DTypeLike

from distsgd.autodiff.gate import Shape
from distsgd.autodiff.graph import ParameterSpec
from distsgd.autodiff.ops.domain import Domain
from distsgd.base.arrays import Array

Chance = Literal["none", "row", "block"]
"""What is left to chance in training: nothing; by a key for each row; by one for each block."""


class Bound(Protocol):
    """A program over given arrays, run again and again while the numbers in them change.

    Attributes:
        losses_N: Loss of each sample, ``[N]``, after `forward`, until the next one of any binding.
        outputs_NO: Raw outputs, ``[N, *output_shape]``, likewise.
        squared_norms_N: Squared norm of each sample's own gradient over all parameters, ``[N]``,
            after `backward`; None unless the program is per-sample and was bound with gradients.
    """

    losses_N: Array
    outputs_NO: Array
    squared_norms_N: Array | None

    def forward(self) -> None:
        """Fill `losses_N` and `outputs_NO`."""

    def backward(self) -> None:
        """Overwrite the bound gradients with their *sum* over the samples, after a `forward`."""


class Program(Protocol):
    """Forward and backward over at most so many samples; each process makes its own."""

    def bind(
        self,
        x: Array,
        target: Array,
        *,
        weights: Array,
        gradients: Array | None = None,
        x_squared_norms: Array | None = None,
        keys: Array | None = None,
    ) -> Bound:
        """The program over these arrays.

        Args:
            x: ``[N, *input_shape]``, of the run's dtype (integers too, which it holds exactly).
            target: int64 ``[N, *target_shape]`` of classes, else of the run's dtype.
            weights: ``[P]``; read only, and never copied into the model.
            gradients: ``[P]``; None to go forward only.
            x_squared_norms: ``[N]``, the squared norm of each row, for a model that can use it.
            keys: What chance depends on, uint64, ``[N]`` or ``[1]`` as `Model.chance` says; None
                where nothing is left to chance, as in evaluation, with gradients or without.
        """


@runtime_checkable
class Model(Protocol):
    """What a run trains."""

    @property
    def parameters(self) -> Sequence[ParameterSpec]:
        """Names and shapes, in the order in which they lie in the flat vector ``[P]``."""

    @property
    def num_parameters(self) -> int:
        """P, how many numbers all parameters hold."""

    @property
    def input_shape(self) -> Shape:
        """Shape of one sample."""

    @property
    def target_kind(self) -> Literal["class", "number"]:
        """What a target is: a class number (int64), or numbers."""

    @property
    def target_shape(self) -> Shape:
        """Shape of one sample's target; ``()`` is one class."""

    @property
    def target_domain(self) -> Domain:
        """Which numbers a target may be."""

    @property
    def outline(self) -> str:
        """What it is in a few words."""

    @property
    def loss_name(self) -> str:
        """What the loss is called, for people."""

    @property
    def num_outputs(self) -> int:
        """How many classes it tells apart, or how many numbers a target has."""

    @property
    def chance(self) -> Chance:
        """What keys it takes in training."""

    @property
    def has_probabilities(self) -> bool:
        """Whether `predict` gives probabilities; else scores, or numbers."""

    @property
    def output_advice(self) -> str:
        """What to say where outputs can leave the domain of the loss; "" where not."""

    @property
    def squared_error_factor(self) -> float | None:
        """From the loss to the squared error; None for other losses."""

    @property
    def numbers_per_sample(self) -> int:
        """About how many numbers training holds for each sample of a block."""

    @property
    def library_bytes(self) -> int:
        """About what the library that computes it takes in a process, besides numpy; often 0."""

    def views(self, flat: Array) -> dict[str, Array]:
        """The parameters by name, as views of `flat`, shape ``[P]``: nothing is copied."""

    def state_dict(self, flat: Array) -> dict[str, Array]:
        """What the model's own library loads, of weights `flat`, ``[P]``.

        Parameters by all their names, in their shapes, and what it has besides (buffers).
        """

    def initialise(self, init: str, seed: int, dtype: DTypeLike) -> Array:
        """Start weights ``[P]``, a pure function of the arguments."""

    def program(self, max_rows: int, dtype: DTypeLike, *, per_sample: bool) -> Program:
        """Forward and backward; raises `ModelError` where it cannot be had."""

    def predict(self, flat: Array, x: Array) -> Array:
        """Predictions ``[N, *output_shape]`` of any number of samples; see `has_probabilities`."""

    def seen(self, outputs_NO: Array, target: Array) -> tuple[Array, Array]:
        """Predictions ``[N, *output_shape]``; the gradient of each row's own loss by its outputs.

        Args:
            outputs_NO: Raw outputs of a block, ``[N, *output_shape]``.
            target: ``[N, *target_shape]``.
        """

    def arithmetic(self, dtype: DTypeLike) -> Mapping[str, str]:
        """What decides about the bits besides numpy: versions, processor, a probe; often empty.

        Two processes in which these are equal compute equal bits.
        """

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values that say what the model is."""
