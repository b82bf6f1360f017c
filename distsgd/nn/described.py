"""Layers from plain values, as they stand in a configuration or a saved model. No I/O here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any

from distsgd.autodiff.ops.activations import ACTIVATIONS
from distsgd.errors import ModelError
from distsgd.nn.images import Convolution, MaxPool
from distsgd.nn.layers import Activation, Dense, Flatten, Layer, Reshape
from distsgd.nn.names import nearest
from distsgd.nn.regularisation import Dropout, LayerNorm

LAYERS: Mapping[str, type[Layer]] = {
    layer.type: layer
    for layer in (Dense, Flatten, Reshape, Convolution, MaxPool, LayerNorm, Dropout)
}
LAYER_TYPES = (*LAYERS, *ACTIVATIONS)  # What `type` may be in a configuration.
BATCH_NORMALISATION = (
    "batch normalisation mixes the samples of a block, so that no sample has a gradient of its own "
    'and the bits depend on how a batch is cut; use {type = "layer_norm"}'
)


def is_batch_normalisation(kind: Any) -> bool:
    """Does somebody ask for batch normalisation by this layer type?"""
    return str(kind).startswith(("batch_n", "batchn"))


def layer_from_dict(described: Mapping[str, Any]) -> Layer:
    """The layer that `Layer.to_dict` described; raises `ModelError` for unknown types and keys."""
    if not isinstance(described, Mapping) or not all(isinstance(key, str) for key in described):
        raise ModelError(f"a layer is {described!r}; must be settings by name, with its type")
    settings = dict(described)
    kind = settings.pop("type", None)
    if is_batch_normalisation(kind):
        raise ModelError(f"layer type is {kind!r}; {BATCH_NORMALISATION}")
    if not isinstance(kind, str) or kind not in LAYER_TYPES:
        raise ModelError(
            f"layer type is {kind!r}; must be one of {', '.join(LAYER_TYPES)}"
            f"{nearest(str(kind), LAYER_TYPES)}"
        )
    article = "an" if kind[0] in "aeiou" else "a"
    taken = fields(LAYERS[kind]) if kind in LAYERS else ()  # type: ignore[arg-type] # layers are dataclasses
    allowed = [field.name for field in taken]
    unknown = [key for key in settings if key not in allowed]
    if unknown:
        raise ModelError(
            f"{article} {kind} layer has no {unknown[0]!r}; it takes "
            f"{', '.join(allowed) or 'no settings'}{nearest(unknown[0], allowed)}"
        )
    missing = [f.name for f in taken if f.default is MISSING and f.name not in settings]
    if missing:
        raise ModelError(
            f"{article} {kind} layer has no {missing[0]} (set {missing[0]} of the layer)"
        )
    return LAYERS[kind](**settings) if kind in LAYERS else Activation(kind)
