"""What may stand in ``[model] layers``: one table a layer, told apart by `type`. No I/O here."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from distsgd.config.section import Section, count, key

Activation = Literal["relu", "sigmoid", "tanh", "softmax"]


class DenseLayer(Section):
    """``activation(x @ W + b)``."""

    type: Literal["dense"]
    units: Annotated[int, count("number of outputs")]
    activation: Annotated[
        Activation | None,
        key("applied to the outputs", '"relu", "sigmoid", "tanh", "softmax" or left out'),
    ] = None
    bias: Annotated[bool, key("whether b is added", "true or false")] = True


class FlattenLayer(Section):
    """Every axis but the rows' made one."""

    type: Literal["flatten"]


class ActivationLayer(Section):
    """An activation as a layer of its own."""

    type: Activation


class ReshapeLayer(Section):
    """Each row in another shape, as images: rows, columns, channels."""

    type: Literal["reshape"]
    shape: Annotated[
        tuple[Annotated[int, Field(ge=1)], ...],
        key("sizes of a row's axes", "a list of whole numbers, 1 or more", min_length=1),
    ]


class ConvolutionLayer(Section):
    """``activation(patches @ W + b)`` at each place of a square kernel on an image."""

    type: Literal["convolution"]
    channels: Annotated[int, count("number of output channels")]
    kernel: Annotated[int, count("rows and columns of the kernel")]
    stride: Annotated[int, count("pixels from one place to the next")] = 1
    padding: Annotated[
        Literal["valid", "same"],
        key("places inside the image only, or zeros around it", '"valid" or "same"'),
    ] = "valid"
    activation: Annotated[
        Literal["relu", "sigmoid", "tanh"] | None,
        key("applied to the outputs", '"relu", "sigmoid", "tanh" or left out'),
    ] = None
    bias: Annotated[bool, key("whether b is added", "true or false")] = True


class MaxPoolLayer(Section):
    """The largest of each window of an image."""

    type: Literal["max_pool"]
    size: Annotated[int, count("rows and columns of a window")]


class LayerNormLayer(Section):
    """Each row with mean 0 and variance 1, times a gain, plus a bias."""

    type: Literal["layer_norm"]


class DropoutLayer(Section):
    """Numbers left out by chance, in training only."""

    type: Literal["dropout"]
    rate: Annotated[float, key("share left out", "at least 0 and below 1", ge=0, lt=1)]


Layer = Annotated[
    DenseLayer
    | FlattenLayer
    | ReshapeLayer
    | ConvolutionLayer
    | MaxPoolLayer
    | LayerNormLayer
    | DropoutLayer
    | ActivationLayer,
    Field(discriminator="type"),
]
