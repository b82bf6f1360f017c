"""The first state of a rule, held against what the server does with it. No I/O here.

An update rule moves the weights in chunks, and sees the same chunk of each of its arrays; a search
rule sees all weights at once. A checkpoint keeps both by name.

Legend: P parameters.
"""

from __future__ import annotations

import numpy as np

from distsgd.base.arrays import Array
from distsgd.errors import ConfigError
from distsgd.optim.rules import UpdateRule
from distsgd.optim.search import SearchRule


def initial_state(rule: UpdateRule | SearchRule, weights: Array) -> dict[str, Array]:
    """What `rule` keeps before its first step.

    Args:
        rule: The rule of the run.
        weights: Shape ``[P]``.

    Raises:
        ConfigError: It is no dict of arrays by name, or an array of an update rule is not ``[P]``.
    """
    state: object = rule.init(weights)
    kind = type(rule).__name__
    if not isinstance(state, dict):
        text = f"{kind}.init gives a {type(state).__name__}; must give a dict of arrays by name"
        raise ConfigError([f"{text} (return {{}} where the rule keeps nothing)"])
    shape = None if isinstance(rule, SearchRule) else weights.shape
    problems = [
        problem for name, array in state.items() if (problem := _problem(name, array, shape=shape))
    ]
    if problems:
        raise ConfigError([f"{kind}.init gives {problem}" for problem in problems])
    return state


def _problem(name: object, array: object, *, shape: tuple[int, ...] | None) -> str:
    """What is wrong with the entry `name`; "" where nothing is. `shape` None: any will do."""
    if not isinstance(name, str):
        return f"a state by the name {name!r}; must be a text (name it by what it holds)"
    if not isinstance(array, np.ndarray):
        kind = type(array).__name__
        return f"the state {name!r}, a {kind}; must be an array (such as np.zeros_like(weights))"
    if shape is not None and array.shape != shape:
        return (
            f"the state {name!r} of shape {array.shape}; must be {shape}, that of the weights "
            "(keep a number as an array full of it; updates are counted by num_updates)"
        )
    return ""
