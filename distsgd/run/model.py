"""The model of a configuration: a network of layers, or what a factory makes. No I/O here."""

from __future__ import annotations

from distsgd.config import TrainConfig
from distsgd.data.manifest import Manifest
from distsgd.models import Factory, Model, Recipe, RowSpec, model_of
from distsgd.nn.layer_types import layer_from_dict
from distsgd.nn.losses import find_loss
from distsgd.nn.network import Network
from distsgd.run.shapes import input_shape_of

_NO_ROWS = RowSpec((), "number", 0)


def build_model(config: TrainConfig, manifest: Manifest, factory: Factory | None = None) -> Model:
    """What ``[model]`` says, for the rows of `manifest`; `factory` is one that has no name.

    Raises:
        ConfigError: There is no such factory; or ``[data] input_shape`` is of other rows.
        ModelError: The network, or what the factory makes, is no model.
    """
    section = config.model
    if section.factory is not None:
        made_by = factory or section.factory
        named = (section.loss, section.loss_options)
        return model_of(Recipe(made_by, section.options, row_spec(config, manifest), *named))
    assert section.layers is not None
    assert section.loss is not None
    layers = [layer_from_dict(layer.model_dump(exclude_none=True)) for layer in section.layers]
    loss = find_loss(section.loss, section.loss_options)
    return Network(layers, loss, input_shape_of(config, manifest.num_features))


def find_factory(config: TrainConfig) -> None:
    """Find the factory that the configuration names, before any row is read; it is not called.

    Raises ConfigError where it cannot be found, or is no function.
    """
    if config.model.factory is not None:
        Recipe(config.model.factory, {}, _NO_ROWS).found()


def row_spec(config: TrainConfig, manifest: Manifest) -> RowSpec:
    """What a model of one's own is told of the rows."""
    inputs, num_targets = input_shape_of(config, manifest.num_features), manifest.num_targets
    kind, shape = manifest.label_kind, manifest.target_shape
    if kind == "class" and config.data.one_hot:
        kind, shape = "number", (*shape, num_targets)
    return RowSpec(inputs, kind, num_targets, shape, manifest.num_levels)
