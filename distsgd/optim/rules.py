"""Update rules: how a mean gradient moves the weights; the end of a step. No I/O here.

The conventions are those of PyTorch's SGD: ``velocity = momentum * velocity + gradient`` and
``weights -= learning_rate * velocity``, so that the velocity does not know the learning rate.

Every rule is elementwise: applied to a slice of the weights with the same slice of its state, it
does to that slice what it does to the whole. So the caller may walk the vector in chunks that stay
in the cache (`chunks`), and weights that shall not move can be left out.

A rule is a frozen dataclass; its settings are keys of ``[optimizer]``, and `RULES` gives it a name
there. Nothing else has to know of a new one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Protocol, runtime_checkable

import numpy as np

from distsgd.base.arrays import Array
from distsgd.base.settings import Setting


@runtime_checkable
class UpdateRule(Protocol):
    """What the server needs of a rule; a rule itself holds no state.

    A rule is elementwise: it is given the weights in chunks of 65,536, each with the same chunk of
    the gradient and of its state, so that what it works on stays in the cache. A norm over all
    weights is not to be had here; clipping by one is ``[optimizer] clip_norm``.
    """

    def init(self, weights: Array) -> dict[str, Array]:
        """State before the first step, which a checkpoint keeps: arrays by name, ``[P]``."""
        ...

    def update_inplace(
        self,
        weights: Array,
        mean_grad: Array,
        *,
        state: Mapping[str, Array],
        learning_rate: float,
        num_updates: int,
    ) -> None:
        """Move `weights` by one step.

        Args:
            weights: A chunk of them, shape ``[C]``; changed in place.
            mean_grad: The same chunk, ``[C]``, of the dtype of `weights`; used as scratch, so its
                values are lost.
            state: The same chunk of what `init` gave; its arrays are changed in place.
            learning_rate: For this step; enters in the dtype of `weights`.
            num_updates: Updates that `state` has seen before this one. Not the step where a run was
                rolled back: the state then is that of an earlier one.
        """
        ...


USUAL_LEARNING_RATE = 0.1
WEIGHT_DECAY = Setting("L2: added to the gradient, times the weight", "a number, 0 or more", ge=0)
DECOUPLED = Setting("taken off the weight itself, times the rate", "a number, 0 or more", ge=0)
BETA1 = Setting("share of the mean gradient kept", "at least 0 and below 1", ge=0, lt=1)
BETA2 = Setting("share of the mean squared gradient kept", "at least 0 and below 1", ge=0, lt=1)
EPSILON = Setting("added to the root of the mean squared gradient", "a number above 0", gt=0)
MOMENTUM = Setting("share of the velocity kept", "at least 0 and below 1", ge=0, lt=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Decay:
    """The two ways of shrinking weights, which every rule here has; each costs nothing at 0.

    Attributes:
        weight_decay: The gradient of ``weight_decay / 2 * |w|²`` is added to the gradient, before
            momentum.
        decoupled_weight_decay: The weights lose ``learning_rate * decoupled_weight_decay`` of
            themselves in addition to the gradient step (SGDW; Loshchilov and Hutter, 2019,
            arXiv:1711.05101).
    """

    usual_learning_rate: ClassVar[float] = USUAL_LEARNING_RATE  # Where [optimizer] sets none.

    weight_decay: Annotated[float, WEIGHT_DECAY] = 0.0
    decoupled_weight_decay: Annotated[float, DECOUPLED] = 0.0

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
        >>> Sgd().update_inplace(
        ...     weights, np.array([10.0, -10.0]), state={}, learning_rate=0.1, num_updates=0
        ... )
        >>> weights.tolist()
        [0.0, 3.0]
    """

    def init(self, weights: Array) -> dict[str, Array]:  # noqa: ARG002 -- the protocol's signature.
        """No state, whatever the `weights` ``[P]``."""
        return {}

    def update_inplace(
        self,
        weights: Array,
        mean_grad: Array,
        *,
        state: Mapping[str, Array],  # noqa: ARG002 -- the protocol's signature.
        learning_rate: float,
        num_updates: int,  # noqa: ARG002 -- the same.
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
        >>> for t in range(2):
        ...     rule.update_inplace(
        ...         weights, np.array([1.0]), state=state, learning_rate=0.25, num_updates=t
        ...     )
        >>> weights.tolist(), state["velocity"].tolist()
        ([0.375], [1.5])
    """

    momentum: Annotated[float, MOMENTUM] = 0.9

    def init(self, weights: Array) -> dict[str, Array]:
        """A velocity of zeros ``[P]``, in the dtype of the weights."""
        return {"velocity": np.zeros_like(weights)}

    def update_inplace(
        self,
        weights: Array,
        mean_grad: Array,
        *,
        state: Mapping[str, Array],
        learning_rate: float,
        num_updates: int,  # noqa: ARG002 -- the protocol's signature.
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
        >>> rule.update_inplace(
        ...     weights, np.array([1.0]), state=state, learning_rate=0.25, num_updates=0
        ... )
        >>> weights.tolist(), state["velocity"].tolist()
        ([0.625], [1.0])
    """

    momentum: Annotated[float, MOMENTUM] = 0.9

    def init(self, weights: Array) -> dict[str, Array]:
        """A velocity of zeros ``[P]``, in the dtype of the weights."""
        return {"velocity": np.zeros_like(weights)}

    def update_inplace(
        self,
        weights: Array,
        mean_grad: Array,
        *,
        state: Mapping[str, Array],
        learning_rate: float,
        num_updates: int,  # noqa: ARG002 -- the protocol's signature.
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


@dataclass(frozen=True, slots=True)
class AdamW(_Decay):
    """``w -= learning_rate * (m / c1 / (sqrt(v / c2) + epsilon) + decoupled_weight_decay * w)``.

    m and v are the means of the gradient and of its square that forget by beta1 and beta2 (Kingma
    and Ba, 2015, arXiv:1412.6980), ``c = 1 - beta ** t`` takes out that both began at 0, and the
    decay is decoupled from them (Loshchilov and Hutter, 2019, arXiv:1711.05101), in PyTorch's
    convention: the rate of the schedule multiplies the decay too. With `weight_decay` instead of
    `decoupled_weight_decay` it is Adam with an L2 term.

    Examples:
        >>> rule, weights = AdamW(decoupled_weight_decay=0.0), np.array([1.0, 1.0])
        >>> state = rule.init(weights)
        >>> rule.update_inplace(
        ...     weights, np.array([5.0, -0.01]), state=state, learning_rate=0.25, num_updates=0
        ... )
        >>> weights.round(6).tolist()
        [0.75, 1.25]
    """

    usual_learning_rate: ClassVar[float] = 0.001

    beta1: Annotated[float, BETA1] = 0.9
    beta2: Annotated[float, BETA2] = 0.999
    epsilon: Annotated[float, EPSILON] = 1e-8
    decoupled_weight_decay: Annotated[float, DECOUPLED] = 0.01

    def init(self, weights: Array) -> dict[str, Array]:
        """Both means are zeros ``[P]``, in the dtype of the weights."""
        return {"m": np.zeros_like(weights), "v": np.zeros_like(weights)}

    def update_inplace(
        self,
        weights: Array,
        mean_grad: Array,
        *,
        state: Mapping[str, Array],
        learning_rate: float,
        num_updates: int,
    ) -> None:
        """See `UpdateRule.update_inplace`."""
        scalar, m, v = weights.dtype.type, state["m"], state["v"]
        # The corrections are taken in float64: in float32, 0.999 ** t is off by t roundings.
        c1, c2 = (1.0 - beta ** (num_updates + 1) for beta in (self.beta1, self.beta2))
        self._decay_inplace(weights, mean_grad, learning_rate)
        m *= scalar(self.beta1)
        part = mean_grad * scalar(1.0 - self.beta1)
        m += part
        v *= scalar(self.beta2)
        np.multiply(mean_grad, mean_grad, out=part)
        part *= scalar(1.0 - self.beta2)
        v += part
        np.divide(v, scalar(c2), out=part)
        np.sqrt(part, out=part)
        part += scalar(self.epsilon)
        np.divide(m, part, out=mean_grad)
        mean_grad *= scalar(learning_rate / c1)
        weights -= mean_grad


RULES: Mapping[str, type[Any]] = {
    "sgd": Sgd,
    "momentum": Momentum,
    "nesterov": Nesterov,
    "adamw": AdamW,
}
