"""A module of PyTorch as a model.

It is made anew wherever it is needed, by its factory; its weights are views of the shared vector.

Shape letters: N samples, P parameters.
"""

from __future__ import annotations

from collections.abc import Mapping
from threading import Lock

import numpy as np
import torch
from numpy.typing import DTypeLike

from distsgd.autodiff.graph import ParameterSpec
from distsgd.base.arrays import Array
from distsgd.models.factory import Recipe
from distsgd.models.of_recipe import RecipeModel
from distsgd.models.own_errors import own_code
from distsgd.models.probe import probe
from distsgd.models.protocol import Chance
from distsgd.models.torch.parts import Parts, made_with
from distsgd.models.torch.program import TorchProgram, array_of, torch_dtype
from distsgd.models.torch.settings import Computing
from distsgd.models.torch.steady import require_steady
from distsgd.models.torch.trial import try_out
from distsgd.nn.network import PREDICTION_ROWS


class OwnModel(RecipeModel):
    """The model that a recipe makes; see `distsgd.models.Model`.

    Parameters are named and ordered as ``named_parameters()`` has them. Each of its programs makes
    a module of its own, whose buffers are those that seed 0 gives.

    Raises:
        ConfigError: The factory cannot be found or called.
        ModelError: What it makes cannot be trained.
        NumericsError: See `distsgd.models.torch.steady`.
    """

    def __init__(self, recipe: Recipe) -> None:
        require_steady()
        parts = made_with(recipe, seed=0)
        named = parts.module.named_parameters()
        super().__init__(recipe, tuple(ParameterSpec(name, tuple(it.shape)) for name, it in named))
        self.has_probabilities = parts.prediction is not None
        with own_code(recipe.name):
            self.numbers_per_sample = try_out(parts, recipe.rows)
        self._parts: dict[torch.dtype, Parts] = {}
        self._predicting: TorchProgram | None = None
        self._one_at_a_time = Lock()

    @property
    def chance(self) -> Chance:
        """One key a block, for dropout and whatever else draws numbers."""
        return "block"

    def state_dict(self, flat: Array) -> dict[str, Array]:
        """What ``module.load_state_dict`` takes strictly: parameters, aliases, lasting buffers."""
        module = made_with(self.recipe, seed=0, dtype=torch_dtype(flat.dtype)).module
        named = self.views(flat)
        first = {id(it): named[name] for name, it in module.named_parameters()}
        # With `keep_vars`, so that a parameter is known by itself, whatever its name.
        state = module.state_dict(keep_vars=True)
        return {
            name: first[id(it)] if id(it) in first else array_of(it) for name, it in state.items()
        }

    def initialise(self, init: str, seed: int, dtype: DTypeLike = np.float32) -> Array:
        """The weights that the module is made with, under a generator seeded by `seed`."""
        del init  # It is the module's own.
        flat = np.empty(self.num_parameters, dtype)
        parts = made_with(self.recipe, seed=seed, dtype=torch_dtype(dtype))
        named = dict(parts.module.named_parameters())
        for name, view in self.views(flat).items():
            view[...] = array_of(named[name])
        return flat

    def program(self, max_rows: int, dtype: DTypeLike, *, per_sample: bool) -> TorchProgram:
        """Forward and backward over at most `max_rows` samples."""
        return TorchProgram(self.recipe, self.parameters, max_rows, dtype, per_sample=per_sample)

    def seen(self, outputs_NO: Array, target: Array) -> tuple[Array, Array]:
        """Predictions, and the gradient of each row's loss by its outputs."""
        outputs = torch.from_numpy(outputs_NO.copy()).requires_grad_()
        parts = self._parts_of(outputs.dtype)
        with own_code(self.recipe.name), Computing(dtype=outputs.dtype, grad=True):
            losses = parts.losses(outputs, torch.from_numpy(target.copy()))
            (deltas,) = torch.autograd.grad(losses.sum(), outputs)
            shown = outputs if parts.prediction is None else parts.prediction(outputs)
        return array_of(shown), array_of(deltas)

    def arithmetic(self, dtype: DTypeLike) -> Mapping[str, str]:
        """PyTorch's version, the processor features it uses, and the model's own probe."""
        return {
            "torch": torch.__version__,
            "capability": torch.backends.cpu.get_cpu_capability(),
            "probe": probe(self, self.recipe.rows, dtype),
        }

    def _predict_block(self, flat: Array, x_N: Array) -> Array:
        with self._one_at_a_time:  # A program computes with the weights it was told last.
            program = self._predicting
            if program is None or program.dtype is not torch_dtype(flat.dtype):
                program = self.program(PREDICTION_ROWS, flat.dtype, per_sample=False)
                self._predicting = program
            return program.predict(flat, x_N)

    def _parts_of(self, dtype: torch.dtype) -> Parts:
        if dtype not in self._parts:
            self._parts[dtype] = made_with(self.recipe, seed=0, dtype=dtype)
        return self._parts[dtype]
