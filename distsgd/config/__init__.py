"""The one definition of a run: TOML or plain values in, a checked immutable `TrainConfig` out.

Seen by the command line and the run only; everything below them is handed plain values.
"""

from distsgd.config.data_section import DataSection
from distsgd.config.parallel_section import ParallelSection
from distsgd.config.section import ActivationLayer, DenseLayer, FlattenLayer
from distsgd.config.sections import (
    BatchSection,
    CheckpointSection,
    ModelSection,
    OptimizerSection,
    ScheduleSection,
    StatisticsSection,
    TrainSection,
)
from distsgd.config.train_config import TrainConfig

__all__ = [
    "ActivationLayer",
    "BatchSection",
    "CheckpointSection",
    "DataSection",
    "DenseLayer",
    "FlattenLayer",
    "ModelSection",
    "OptimizerSection",
    "ParallelSection",
    "ScheduleSection",
    "StatisticsSection",
    "TrainConfig",
    "TrainSection",
]
