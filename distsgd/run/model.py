"""The model of a configuration: a network of layers, or what a factory makes. No I/O here."""

from __future__ import annotations

from distsgd.config import TrainConfig
from distsgd.data.manifest import Manifest
from distsgd.models import Factory, Model, Recipe, RowSpec, model_of
from distsgd.nn.layer_types import layer_from_dict
from distsgd.nn.losses import find_loss
from distsgd.nn.network import Network


def build_model(config: TrainConfig, manifest: Manifest, factory: Factory | None = None) -> Model:
    """What ``[model]`` says, for the rows of `manifest`; `factory` is one that has no name.

    Raises:
        ConfigError: There is no such factory.
        ModelError: The network, or what the factory makes, is no model.
    """
    section = config.model
    if section.factory is not None:
        rows = row_spec(config, manifest)
        return model_of(Recipe(factory or section.factory, section.options, rows, section.loss))
    assert section.layers is not None
    assert section.loss is not None
    layers = [layer_from_dict(layer.model_dump(exclude_none=True)) for layer in section.layers]
    loss = find_loss(section.loss, section.loss_options)
    return Network(layers, loss, (manifest.num_features,))


def row_spec(config: TrainConfig, manifest: Manifest) -> RowSpec:
    """What a model of one's own is told of the rows."""
    kind = "number" if config.data.one_hot else manifest.label_kind
    shape = () if kind == "class" else (manifest.num_targets,)
    return RowSpec((manifest.num_features,), kind, manifest.num_targets, shape)
