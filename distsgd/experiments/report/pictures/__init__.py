"""The pictures of the report, each of panels that are SVGs of their own. Pure."""

from __future__ import annotations

from distsgd.experiments.findings import Findings
from distsgd.experiments.report.pictures.loss import loss
from distsgd.experiments.report.pictures.phases import phases
from distsgd.experiments.report.pictures.picture import Panel, Picture
from distsgd.experiments.report.pictures.rates import rates
from distsgd.experiments.report.pictures.speed import speed
from distsgd.experiments.report.pictures.to_target import to_target

__all__ = ["Panel", "Picture", "pictures"]


def pictures(findings: Findings) -> tuple[Picture, ...]:
    """All of them, in the order of the report."""
    return tuple(draw(findings) for draw in (to_target, speed, phases, rates, loss))
