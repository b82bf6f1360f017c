"""Networks: layers, losses, initialisers and models, all compositions of gates."""

from distsgd.nn.layers import Activation, Dense, Flatten, Layer, ReLU, Sigmoid, Softmax, Tanh
from distsgd.nn.losses import LOSSES, Loss
from distsgd.nn.model import Model

__all__ = [
    "LOSSES",
    "Activation",
    "Dense",
    "Flatten",
    "Layer",
    "Loss",
    "Model",
    "ReLU",
    "Sigmoid",
    "Softmax",
    "Tanh",
]
