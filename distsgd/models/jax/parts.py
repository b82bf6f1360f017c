"""What a factory makes: parameters, outputs from them, one loss a row, what is shown of outputs."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np

from distsgd.errors import ModelError
from distsgd.models.factory import Recipe
from distsgd.models.jax.device import as_runs_compute, key_of, wrapped
from distsgd.models.own_errors import own_code

SEED = "seed"  # The parameter of a factory that has one.
_MUST = (
    "must make (init, apply, sample_losses), or (nnx_module, sample_losses), or either and "
    "prediction"
)


@dataclass(frozen=True, slots=True)
class Parts:
    """Functions of JAX.

    Attributes:
        shapes: The parameters, a tree of what has shapes.
        start: From a seed to the parameters, as the settings around it compute.
        apply: From parameters, samples, a key or None, and whether it trains, to outputs.
        sample_losses: From outputs and target to ``[N]``.
        prediction: From outputs to what is shown of them; None for the outputs themselves.
        takes_key: Whether training leaves something to chance.
    """

    shapes: Any
    start: Callable[[int], Any]
    apply: Callable[[Any, Any, Any, bool], Any]
    sample_losses: Callable[[Any, Any], Any]
    prediction: Callable[[Any], Any] | None
    takes_key: bool


def made_with(recipe: Recipe) -> Parts:
    """What the factory makes.

    Raises:
        ConfigError: The factory cannot be found or called.
        ModelError: It, or its ``init``, raises an error; or it makes something else.
    """
    with as_runs_compute(np.float32):
        made = made_by(recipe, seed=0)
    if not isinstance(made, tuple) or not made:
        raise ModelError(f"{recipe.name} makes a {type(made).__name__}; {_MUST}")
    if _is_module(made[0]):
        from distsgd.models.jax.nnx_module import parts_of  # noqa: PLC0415 - flax, where needed.

        _check(recipe, made[1:], 1)
        return parts_of(recipe, made, takes_seed=_takes_seed(recipe))
    _check(recipe, made, 3)
    return _of_functions(recipe, *made)


def made_by(recipe: Recipe, *, seed: int) -> Any:
    """Call the factory, within `as_runs_compute`; its parameter `seed`, if any, gets 32 bits."""
    if _takes_seed(recipe):
        options = {**recipe.options, SEED: (seed ^ (seed >> 32)) & 0xFFFFFFFF}
        recipe = replace(recipe, options=options)
    return recipe.make()


def _takes_seed(recipe: Recipe) -> bool:
    try:
        return SEED in inspect.signature(recipe.found()).parameters and SEED not in recipe.options
    except ValueError:
        return False


def _is_module(made: object) -> bool:
    """Is it a module of flax? It is none where flax was not loaded."""
    nnx = sys.modules.get("flax.nnx")
    return nnx is not None and isinstance(made, nnx.Module)


def _check(recipe: Recipe, functions: tuple[Any, ...], num_needed: int) -> None:
    """Raises ModelError unless they are what is needed, and no loss is named besides."""
    if not num_needed <= len(functions) <= num_needed + 1 or not all(map(callable, functions)):
        kinds = ", ".join(type(it).__name__ for it in functions)
        raise ModelError(f"{recipe.name} makes ({kinds}); {_MUST}")
    if recipe.loss is not None:
        raise ModelError(
            f'model.loss is "{recipe.loss}", and {recipe.name} makes sample_losses of its own; '
            "remove loss from [model]"
        )


def _of_functions(
    recipe: Recipe,
    init: Callable[[Any], Any],
    apply: Callable[..., Any],
    sample_losses: Callable[[Any, Any], Any],
    prediction: Callable[[Any], Any] | None = None,
) -> Parts:
    takes_key = _takes_key(apply)

    def run(parameters: Any, x: Any, key: Any, is_training: bool) -> Any:  # noqa: FBT001
        del is_training  # A key says so, where it makes a difference.
        return apply(parameters, x, key) if takes_key else apply(parameters, x)

    def start(seed: int) -> Any:
        return jax.jit(lambda data: init(wrapped(data)))(key_of(seed))

    with as_runs_compute(np.float32), own_code(recipe.name):
        shapes = jax.eval_shape(lambda data: init(wrapped(data)), key_of(0))
    return Parts(shapes, start, run, sample_losses, prediction, takes_key)


def _takes_key(apply: Callable[..., Any]) -> bool:
    """Whether it has a third positional parameter, of no default but None."""
    try:
        parameters = list(inspect.signature(apply).parameters.values())
    except ValueError:
        return False
    positional = [
        it for it in parameters if it.kind in (it.POSITIONAL_ONLY, it.POSITIONAL_OR_KEYWORD)
    ]
    return len(positional) >= 3 and positional[2].default in (inspect.Parameter.empty, None)
