"""What per-sample gradients tell about a mini-batch. Pure; no I/O here."""

from distsgd.statistics.noise_scale import NoiseScale, trace, unbiased_square

__all__ = ["NoiseScale", "trace", "unbiased_square"]
