"""What gradients tell about a mini-batch, and runs about batch sizes, workers, rates. No I/O."""

from distsgd.statistics.branching import branch_rate, branched_critical_batch, smoothed_loss
from distsgd.statistics.critical_batch import CriticalBatch, fit_critical_batch
from distsgd.statistics.curvature import largest_learning_rate
from distsgd.statistics.intervals import (
    Interval,
    geometric_interval,
    median_interval,
    product_interval,
    ratio_interval,
    verdict,
)
from distsgd.statistics.noise_scale import NoiseScale, trace, unbiased_square
from distsgd.statistics.noise_summary import (
    late_noise_scale,
    nearest_batch,
    noise_scale_interval,
    noise_scales_by_batch,
)
from distsgd.statistics.rates import halve, is_at_edge, log_grid, refine
from distsgd.statistics.step_time import (
    Cell,
    StepTimeFit,
    crossover,
    fit_step_time,
    left_out_errors,
)

__all__ = [
    "Cell",
    "CriticalBatch",
    "Interval",
    "NoiseScale",
    "StepTimeFit",
    "branch_rate",
    "branched_critical_batch",
    "crossover",
    "fit_critical_batch",
    "fit_step_time",
    "geometric_interval",
    "halve",
    "is_at_edge",
    "largest_learning_rate",
    "late_noise_scale",
    "left_out_errors",
    "log_grid",
    "median_interval",
    "nearest_batch",
    "noise_scale_interval",
    "noise_scales_by_batch",
    "product_interval",
    "ratio_interval",
    "refine",
    "smoothed_loss",
    "trace",
    "unbiased_square",
    "verdict",
]
