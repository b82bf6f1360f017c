"""Factories: functions of the user's own that make a model, found by name in each process.

A model travels as the name of its factory, ``module:function``, with options and what the rows are;
nothing of it is pickled. PyTorch and JAX are loaded when a model is made.
"""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from socket import gethostname
from typing import Any, Literal, cast

from distsgd.autodiff.gate import Shape
from distsgd.base.named import find_object
from distsgd.errors import ConfigError
from distsgd.models.own_errors import own_code
from distsgd.models.protocol import Model
from distsgd.nn.losses import Loss, find_loss

Framework = Literal["torch", "jax"]
# What each adds to the memory of a process in which a small model took a step; measured, JAX with
# flax.
LIBRARY_BYTES: Mapping[Framework, int] = {"torch": 230 << 20, "jax": 240 << 20}
_ON_EVERY_NODE = (
    "each node needs the module: distsgd job submit takes the working directory there, Ray Jobs "
    "take it as working_dir or py_modules of their runtime environment"
)


@dataclass(frozen=True, slots=True)
class RowSpec:
    """What the rows are that a model is made for.

    Attributes:
        input_shape: Shape of one sample.
        target_kind: "class" or "number".
        num_outputs: How many classes there are, or how many numbers a target has.
        target_shape: Shape of one sample's target; ``()`` is one class.
        num_levels: Of integer features: one more than the largest; None for numbers.
    """

    input_shape: Shape
    target_kind: Literal["class", "number"]
    num_outputs: int
    target_shape: Shape = ()
    num_levels: int | None = None

    @property
    def arguments(self) -> dict[str, Any]:
        """What a factory is told, where it has a parameter of the name."""
        shape = self.input_shape
        return {
            "inputs": shape[0] if len(shape) == 1 else shape,
            "outputs": self.num_outputs,
            "levels": self.num_levels,
        }


class Factory:
    """A function that makes a module or functions of a framework, marked with which it is.

    Args:
        function: Called with `inputs`, `outputs`, `levels` where it has such parameters (see
            `RowSpec.arguments`), and with the options of the configuration.
        framework: Whose module or functions it makes.
    """

    def __init__(self, function: Callable[..., Any], framework: Framework) -> None:
        functools.update_wrapper(self, function)
        self.function, self.framework = function, framework

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        """What the function makes."""
        return self.function(*arguments, **options)


def torch_model(function: Callable[..., Any]) -> Factory:
    """Mark a function that makes a PyTorch model.

    It returns ``(module, sample_losses)``, ``(module, sample_losses, prediction)``, or a module
    alone, whose loss ``[model] loss`` names; a function without this mark, or a class, does too.
    ``sample_losses(outputs, target)`` gives one loss for each row, ``[N]``; ``prediction(outputs)``
    what is shown of the outputs, such as a softmax.
    """
    return Factory(function, "torch")


def jax_model(function: Callable[..., Any]) -> Factory:
    """Mark a function that makes a JAX model.

    It returns ``(init, apply, sample_losses)`` or the same and ``prediction``: ``init(key)`` gives
    the parameters, a tree of arrays; ``apply(parameters, x)``, or ``apply(parameters, x, key)``
    where training leaves something to chance (key is None in evaluation), the outputs of a block;
    the others as for `torch_model`. They are traced: a block may come with its last row repeated,
    what comes of which is cut off.

    Or it returns ``(nnx_module, sample_losses)`` or the same and ``prediction``, a module of flax
    nnx; it has a parameter ``seed`` then, which ``nnx.Rngs(seed)`` takes.
    """
    return Factory(function, "jax")


@dataclass(frozen=True, slots=True)
class Recipe:
    """All that a model is made from; it travels instead of the model.

    Attributes:
        factory: ``module:function``; or the factory itself, where it has no name, in one process.
        options: Its keyword arguments.
        rows: What it is made for.
        loss: Of a factory that makes a module alone: the name of a loss.
        loss_options: Settings of that loss.
    """

    factory: str | Factory
    options: Mapping[str, Any]
    rows: RowSpec
    loss: str | None = None
    loss_options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def named_loss(self) -> Loss | None:
        """The loss that is named; None where the factory brings its own. Raises ModelError."""
        return None if self.loss is None else find_loss(self.loss, self.loss_options)

    @property
    def name(self) -> str:
        """The factory, for people."""
        factory = self.factory
        return factory if isinstance(factory, str) else getattr(factory, "__qualname__", "factory")

    @property
    def framework(self) -> Framework:
        """Whose model it makes: PyTorch's where the factory has no mark. Raises ConfigError."""
        found = self.found()
        return found.framework if isinstance(found, Factory) else "torch"

    def make(self) -> Any:
        """Call the factory.

        Raises:
            ConfigError: There is no such factory, or it does not take the options.
            OwnCodeError: It raises an error.
        """
        found = self.found()
        arguments = self._arguments(found)
        with own_code(self.name):
            return found(**arguments)

    def found(self) -> Callable[..., Any]:
        """The factory itself. Raises ConfigError."""
        if not isinstance(self.factory, str):
            return self.factory
        try:
            found = find_object(self.factory)
        except ConfigError as error:
            raise ConfigError([f"model.factory: {text}" for text in error.problems]) from error
        if not callable(found):
            what = f'model.factory is "{self.factory}", a {type(found).__name__}'
            raise ConfigError([f"{what}; must be a function that makes a model (edit [model])"])
        return cast(Callable[..., Any], found)

    def _arguments(self, found: Callable[..., Any]) -> dict[str, Any]:
        options = dict(self.options)
        try:
            signature = inspect.signature(found)
        except ValueError:  # Compiled, and without one: the call will tell.
            return options
        known = self.rows.arguments
        arguments = {key: it for key, it in known.items() if key in signature.parameters} | options
        try:
            signature.bind(**arguments)
        except TypeError as error:
            takes = ", ".join(key for key in signature.parameters if key not in known)
            problem = f"model.options is {options!r}, but {self.name}: {error}; it takes "
            raise ConfigError(
                [f"{problem}{takes or 'no options'} (edit [model] options)"]
            ) from None
        return arguments


def model_of(recipe: Recipe) -> Model:
    """The model that is made so.

    Raises:
        ConfigError: There is no such factory, its framework is not installed, or it does not take
            the options.
        ModelError: It raises an error, or what it makes is no model.
    """
    framework = recipe.framework
    try:
        made = importlib.import_module(f"distsgd.models.{framework}.model")
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != framework:
            raise
        problem = (
            f'model.factory is "{recipe.name}", which needs {framework}, and that is not installed '
            f"here; install it (pip install 'distsgd[{framework}]')"
        )
        raise ConfigError([problem]) from None
    return cast(Model, made.OwnModel(recipe))


def model_again(recipe: Recipe) -> Model:
    """The same in another process of the run, for `__reduce__` of a model.

    Raises:
        ConfigError: As `model_of`; names the node.
        ModelError: As `model_of`.
    """
    try:
        return model_of(recipe)
    except ConfigError as error:
        where, what = gethostname(), "; ".join(error.problems)
        raise ConfigError([f"node {where}: {what}; {_ON_EVERY_NODE}"]) from error
