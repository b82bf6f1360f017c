"""Networks: layers, losses, initialisers and models, all compositions of gates."""

from distsgd.autodiff.ops.losses import ClassLoss, NumberLoss
from distsgd.nn.images import Convolution, MaxPool
from distsgd.nn.layers import (
    Activation,
    Dense,
    Flatten,
    Layer,
    ReLU,
    Reshape,
    Sigmoid,
    Softmax,
    Tanh,
)
from distsgd.nn.losses import LOSSES, Loss, find_loss
from distsgd.nn.network import Network
from distsgd.nn.regularisation import Dropout, LayerNorm

__all__ = [
    "LOSSES",
    "Activation",
    "ClassLoss",
    "Convolution",
    "Dense",
    "Dropout",
    "Flatten",
    "Layer",
    "LayerNorm",
    "Loss",
    "MaxPool",
    "Network",
    "NumberLoss",
    "ReLU",
    "Reshape",
    "Sigmoid",
    "Softmax",
    "Tanh",
    "find_loss",
]
