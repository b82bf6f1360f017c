"""How the weights move: update rules, learning-rate schedules, clipping. Pure; no I/O here."""

from distsgd.optim.clip import clip_factor, squared_norm
from distsgd.optim.rules import Momentum, Nesterov, Sgd, UpdateRule, make_rule
from distsgd.optim.schedules import Constant, Cosine, Schedule, Step, make_schedule

__all__ = [
    "Constant",
    "Cosine",
    "Momentum",
    "Nesterov",
    "Schedule",
    "Sgd",
    "Step",
    "UpdateRule",
    "clip_factor",
    "make_rule",
    "make_schedule",
    "squared_norm",
]
