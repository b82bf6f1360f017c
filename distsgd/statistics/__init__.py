"""What gradients tell about a mini-batch, and inputs about the learning rate. No I/O here."""

from distsgd.statistics.curvature import largest_learning_rate
from distsgd.statistics.noise_scale import NoiseScale, trace, unbiased_square

__all__ = ["NoiseScale", "largest_learning_rate", "trace", "unbiased_square"]
