"""The layers that a configuration can name, and a layer from plain values. No I/O here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from distsgd.base.settings import keys_of, nearest
from distsgd.errors import ModelError
from distsgd.nn import images, regularisation
from distsgd.nn import layers as simple
from distsgd.nn.layers import Activation, Layer

LAYERS: tuple[type[Layer], ...] = (
    *simple.LAYERS,
    *images.LAYERS,
    *regularisation.LAYERS,
    Activation,
)
_BY_TYPE: Mapping[str, type[Layer]] = {kind: layer for layer in LAYERS for kind in layer.types()}
LAYER_TYPES = tuple(_BY_TYPE)  # What `type` may be in a configuration.
BATCH_NORMALISATION = (
    "batch normalisation mixes the samples of a block, so that no sample has a gradient of its own "
    'and the bits depend on how a batch is cut; use {type = "layer_norm"}'
)


def is_batch_normalisation(kind: Any) -> bool:
    """Whether this layer type asks for batch normalisation."""
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
    layer = _BY_TYPE[kind]
    allowed = keys_of(layer)
    unknown = [key for key in settings if key not in allowed]
    if unknown:
        raise ModelError(
            f"{article} {kind} layer has no {unknown[0]!r}; it takes "
            f"{', '.join(allowed) or 'no settings'}{nearest(unknown[0], allowed)}"
        )
    missing = [name for name, key in allowed.items() if key.is_needed and name not in settings]
    if missing:
        raise ModelError(
            f"{article} {kind} layer has no {missing[0]} (set {missing[0]} of the layer)"
        )
    return layer.of_type(kind, settings)
