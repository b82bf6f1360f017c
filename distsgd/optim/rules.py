"""Update rules: how a mean gradient moves the weights; the end of a step. No I/O here.

The conventions are those of PyTorch's SGD: ``velocity = momentum * velocity + gradient`` and
``weights -= learning_rate * velocity``, so that the velocity does not know the learning rate.

Every rule is elementwise: applied to a slice of the weights with the same slice of its state, it
does to that slice what it does to the whole. So the caller may walk the vector in chunks that stay
in the cache (`chunks`), and weights that shall not move can be left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from distsgd.base.arrays import Array
from distsgd.errors import ConfigError


class UpdateRule(Protocol):
    """What the server needs of a rule; a rule itself holds no state."""

    def init(self, weights: Array) -> dict[str, Array]:
        """State before the first step: arrays like `weights`, by name, which a checkpoint keeps."""
        ...

    def update_inplace(
        self, weights: Array, mean_grad: Array, *, state: Mapping[str, Array], learning_rate: float
    ) -> None:
        """Move `weights` by one step.

        Args:
            weights: Shape ``[P]``; changed.
            mean_grad: Shape ``[P]``, the dtype of `weights`; used as scratch, so its values are
                lost.
            state: What `init` gave; its arrays are changed.
            learning_rate: For this step; enters in the dtype of `weights`.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class _Decay:
    """The two ways of shrinking weights, which every rule has; each costs nothing at 0.

    Attributes:
        weight_decay: The gradient of ``weight_decay / 2 * |w|²`` is added to the gradient, before
            momentum.
        decoupled_weight_decay: The weights lose ``learning_rate * decoupled_weight_decay`` of
            themselves beside the gradient step (SGDW; Loshchilov and Hutter, 2019,
            arXiv:1711.05101).
    """

    weight_decay: float = 0.0
    decoupled_weight_decay: float = 0.0

    def _decay_inplace(self, weights: Array, mean_grad: Array, learning_rate: float) -> None:
        scalar = weights.dtype.type
        if self.weight_decay:
            mean_grad += weights * scalar(self.weight_decay)
        if self.decoupled_weight_decay:
            weights *= scalar(1.0 - learning_rate * self.decoupled_weight_decay)


@dataclass(frozen=True, slots=True)
class Sgd(_Decay):
    """``w -= learning_rate * g``.

    Examples:
        >>> weights = np.array([1.0, 2.0])
        >>> Sgd().update_inplace(weights, np.array([10.0, -10.0]), state={}, learning_rate=0.1)
        >>> weights.tolist()
        [0.0, 3.0]
    """

    def init(self, weights: Array) -> dict[str, Array]:  # noqa: ARG002 -- the protocol's signature.
        """No state."""
        return {}

    def update_inplace(
        self,
        weights: Array,
        mean_grad: Array,
        *,
        state: Mapping[str, Array],  # noqa: ARG002 -- the protocol's signature.
        learning_rate: float,
    ) -> None:
        """See `UpdateRule.update_inplace`."""
        rate = weights.dtype.type(learning_rate)
        self._decay_inplace(weights, mean_grad, learning_rate)
        mean_grad *= rate
        weights -= mean_grad


@dataclass(frozen=True, slots=True)
class Momentum(_Decay):
    """``v = momentum * v + g``; ``w -= learning_rate * v`` (Polyak, 1964, in PyTorch's convention).

    Examples:
        >>> rule, weights = Momentum(momentum=0.5), np.array([1.0])
        >>> state = rule.init(weights)
        >>> for _ in range(2):
        ...     rule.update_inplace(weights, np.array([1.0]), state=state, learning_rate=0.25)
        >>> weights.tolist(), state["velocity"].tolist()
        ([0.375], [1.5])
    """

    momentum: float = 0.9

    def init(self, weights: Array) -> dict[str, Array]:
        """A velocity of zeros."""
        return {"velocity": np.zeros_like(weights)}

    def update_inplace(
        self, weights: Array, mean_grad: Array, *, state: Mapping[str, Array], learning_rate: float
    ) -> None:
        """See `UpdateRule.update_inplace`."""
        scalar, velocity = weights.dtype.type, state["velocity"]
        rate, momentum = scalar(learning_rate), scalar(self.momentum)
        self._decay_inplace(weights, mean_grad, learning_rate)
        velocity *= momentum
        velocity += mean_grad
        np.multiply(velocity, rate, out=mean_grad)
        weights -= mean_grad


@dataclass(frozen=True, slots=True)
class Nesterov(_Decay):
    """``v = momentum * v + g``; ``w -= learning_rate * (g + momentum * v)``.

    Nesterov's accelerated gradient (1983) in the form of Sutskever et al. (2013), in PyTorch's
    convention.

    Examples:
        >>> rule, weights = Nesterov(momentum=0.5), np.array([1.0])
        >>> state = rule.init(weights)
        >>> rule.update_inplace(weights, np.array([1.0]), state=state, learning_rate=0.25)
        >>> weights.tolist(), state["velocity"].tolist()
        ([0.625], [1.0])
    """

    momentum: float = 0.9

    def init(self, weights: Array) -> dict[str, Array]:
        """A velocity of zeros."""
        return {"velocity": np.zeros_like(weights)}

    def update_inplace(
        self, weights: Array, mean_grad: Array, *, state: Mapping[str, Array], learning_rate: float
    ) -> None:
        """See `UpdateRule.update_inplace`."""
        scalar, velocity = weights.dtype.type, state["velocity"]
        rate, momentum = scalar(learning_rate), scalar(self.momentum)
        self._decay_inplace(weights, mean_grad, learning_rate)
        velocity *= momentum
        velocity += mean_grad
        mean_grad += velocity * momentum
        mean_grad *= rate
        weights -= mean_grad


def make_rule(
    type: str,  # noqa: A002 -- the configuration's word.
    *,
    momentum: float = 0.9,
    weight_decay: float = 0.0,
    decoupled_weight_decay: float = 0.0,
) -> UpdateRule:
    """The rule a configuration names: ``sgd``, ``momentum`` or ``nesterov``.

    Raises:
        ConfigError: Another name. `momentum` is not looked at for ``sgd``.

    Examples:
        >>> make_rule("nesterov", momentum=0.8)
        Nesterov(weight_decay=0.0, decoupled_weight_decay=0.0, momentum=0.8)
    """
    if type == "sgd":
        return Sgd(weight_decay=weight_decay, decoupled_weight_decay=decoupled_weight_decay)
    if type == "momentum":
        return Momentum(
            momentum, weight_decay=weight_decay, decoupled_weight_decay=decoupled_weight_decay
        )
    if type == "nesterov":
        return Nesterov(
            momentum, weight_decay=weight_decay, decoupled_weight_decay=decoupled_weight_decay
        )
    known = '"sgd", "momentum" or "nesterov"'
    raise ConfigError([f"optimizer.type is {type!r}; must be {known} (set [optimizer] type)"])
