"""A module of flax nnx as functions: its parameters apart, its chance keyed, its state kept.

The only file that loads flax.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from distsgd.errors import ModelError
from distsgd.models.factory import Recipe
from distsgd.models.jax.parts import SEED, Parts, made_by

Path = tuple[Any, ...]


def parts_of(recipe: Recipe, made: tuple[Any, ...], *, takes_seed: bool) -> Parts:
    """The parts of ``(module, sample_losses)``, or the same and prediction.

    Raises:
        ModelError: The factory is not told the seed, so that every run would start alike.
    """
    if not takes_seed and SEED not in recipe.options:
        raise ModelError(
            f"{recipe.name} makes a {type(made[0]).__name__} but has no parameter {SEED}, so that "
            f"its weights could not depend on the run's; must have one (def make(..., {SEED}): "
            f"... nnx.Rngs({SEED}))"
        )
    module, sample_losses, *prediction = made
    split = _Split(recipe.name, module)

    def start(seed: int) -> Any:
        return nnx.to_pure_dict(nnx.split(made_by(recipe, seed=seed)[0], nnx.Param, ...)[1])

    return Parts(
        nnx.to_pure_dict(nnx.from_flat_state(split.parameters)),
        start,
        split.apply,
        sample_losses,
        prediction[0] if prediction else None,
        split.takes_key,
    )


class _Split:
    """A module, split into what is static, parameters, and all other state."""

    def __init__(self, made_by: str, module: Any) -> None:
        self._name = f"{type(module).__name__} of {made_by}"
        module.eval()
        self._evaluating = nnx.split(module, nnx.Param, ...)[0]
        module.train()
        self._training, parameters, rest = nnx.split(module, nnx.Param, ...)
        self.parameters: dict[Path, Any] = dict(nnx.to_flat_state(parameters))
        self._rest: dict[Path, Any] = dict(nnx.to_flat_state(rest))
        self.takes_key = any(isinstance(it, nnx.RngKey) for it in self._rest.values())

    def apply(self, parameters: Any, x: Any, key: Any, is_training: bool) -> Any:  # noqa: FBT001
        """Outputs; see `Parts.apply`."""
        values = nnx.traversals.flatten_mapping(parameters)
        given = {path: it.replace(values[path]) for path, it in self.parameters.items()}
        rest = self._rest if key is None else self._keyed(key)
        module = nnx.merge(
            self._training if is_training else self._evaluating,
            nnx.from_flat_state(given),
            nnx.from_flat_state(rest),
            copy=True,
        )
        outputs = module(x)
        _, parameters_after, rest_after = nnx.split(module, nnx.Param, ...)
        self._check_kept(given, parameters_after)
        self._check_kept(rest, rest_after)
        return outputs

    def _keyed(self, key: Any) -> dict[Path, Any]:
        """The state, each stream of chance begun anew with a key of its own."""
        rest, num_streams = dict(self._rest), 0
        for path, variable in rest.items():
            if isinstance(variable, nnx.RngKey):
                rest[path] = variable.replace(jax.random.fold_in(key, num_streams))
                num_streams += 1
            elif isinstance(variable, nnx.RngCount):
                rest[path] = variable.replace(jnp.zeros((), jnp.uint32))
        return rest

    def _check_kept(self, before: dict[Path, Any], state: Any) -> None:
        """Raises ModelError where a variable was set; streams of chance are counted on."""
        for path, variable in nnx.to_flat_state(state):
            is_same = path not in before or _value(variable) is _value(before[path])
            if not is_same and not isinstance(variable, nnx.RngState):
                where, kind = ".".join(map(str, path)), type(variable).__name__
                raise ModelError(
                    f"{self._name} sets {where} ({kind}) in training; its state must stay as it "
                    "is, since blocks are computed in any order (LayerNorm, GroupNorm and RMSNorm "
                    "keep none, BatchNorm does)"
                )


def _value(variable: Any) -> Any:
    value: Callable[[], Any] | None = getattr(variable, "get_value", None)
    return variable if value is None else value()
