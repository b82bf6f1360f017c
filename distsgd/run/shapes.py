"""Where the shapes of prepared rows meet the configuration and the network. No I/O here."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from distsgd.base.settings import refuse
from distsgd.config import TrainConfig
from distsgd.data.manifest import Manifest
from distsgd.data.prepare.labels import shown
from distsgd.errors import ConfigError
from distsgd.models import Model
from distsgd.nn.network import Network


def input_shape_of(config: TrainConfig, num_features: int) -> tuple[int, ...]:
    """The axes of a row as the network takes it: one of all features unless `config` says others.

    Raises:
        ConfigError: They are of another number of features.
    """
    shape = config.data.input_shape or (num_features,)
    if math.prod(shape) != num_features:
        reason = (
            f"data.input_shape is {list(shape)}, {math.prod(shape)} numbers; the product must be "
            f"{num_features}, the features of a row (set [data] input_shape, or choose others)"
        )
        raise ConfigError([reason])
    return shape


def with_input_shape(data: dict[str, Any], shape: tuple[int, ...]) -> dict[str, Any]:
    """The section ``[data]``, unchecked, for a model that is handed in and takes rows of `shape`.

    Raises:
        ConfigError: `data` says another one, or there is no axis.
    """
    if not shape:
        refuse("model.input_shape", shape, "one axis or more, (I,) for the features of a row")
    given = data.get("input_shape")
    if given is not None and (not isinstance(given, list | tuple) or tuple(given) != shape):
        rule = f"{list(shape)}, as the model that is handed in has it, or left out"
        refuse("data.input_shape", given, rule)
    return data | ({"input_shape": list(shape)} if len(shape) > 1 else {})


def check_features(shape: tuple[int, ...] | None, num_features: int) -> None:
    """Raises ConfigError where a model that was handed in, of `shape`, takes other rows."""
    if shape is not None and math.prod(shape) != num_features:
        wanted = f"({num_features},)" if len(shape) == 1 else f"axes of {num_features} numbers"
        rule = f"must be {wanted}, the features of a row (make it for these)"
        raise ConfigError([f"model.input_shape is {shape}; {rule}"])


def target_problems(manifest: Manifest, model: Model) -> Iterator[str]:
    """Why a network of layers cannot learn these targets: of other axes, or another number.

    A model of one's own is made for the targets as they are.
    """
    if not isinstance(model, Network):
        return
    is_class, shape = manifest.label_kind == "class", manifest.target_shape
    if is_class and shape:
        yield (
            f"the labels have the shape {list(shape)}, a class at each of {math.prod(shape)} places"
            " of a row; a network of [model] layers gives one class a row (name a model of your "
            "own in [model] factory, or a label column of single classes)"
        )
    elif not is_class and len(shape) != 1:
        yield (
            f"the labels have the shape {list(shape)}; a network of [model] layers gives numbers "
            f"along one axis (set [data] target_shape = [{math.prod(shape)}], or name a model of "
            "your own in [model] factory)"
        )
    elif model.num_outputs != manifest.num_targets:
        what = "classes" if is_class else "label columns"
        what = "numbers of a label" if manifest.labels != manifest.target_names else what
        names = f" ({shown(manifest.class_names)})" if manifest.class_names else ""
        yield (
            f"model.layers ends in {model.num_outputs} outputs; must be "
            f"{manifest.num_targets}, the number of {what}{names} "
            "(set units of the last dense layer"
            + (")" if is_class else ", or [data] one_hot if it is a class)")
        )
