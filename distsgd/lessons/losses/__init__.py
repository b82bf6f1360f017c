"""Losses that lessons compare with the usual ones, as gates and as functions of rows. No I/O here.

Each is named in a configuration by its short name (``[model] loss = "hellinger"``), or as any loss
that is not in `distsgd.nn`: ``"distsgd.lessons.losses:Hellinger"``.
"""

from __future__ import annotations

from distsgd.autodiff.rows import number_loss
from distsgd.autodiff.variable import Operand, Variable
from distsgd.lessons.losses.divergences import (
    GeneralisedKullbackLeibler,
    Hellinger,
    ItakuraSaito,
    KullbackLeibler,
)
from distsgd.lessons.losses.exponential import Exponential

__all__ = [
    "Exponential",
    "GeneralisedKullbackLeibler",
    "Hellinger",
    "ItakuraSaito",
    "KullbackLeibler",
    "exponential",
    "hellinger",
    "itakura_saito",
    "kullback_leibler",
]


def exponential(outputs_NO: Operand, target_NO: Operand, *, tau: float = 1.0) -> Variable:
    """``tau · exp(Σ (a - E)² / tau)``, the sum over a row's outputs; shape ``[N]``."""
    return number_loss(Exponential(tau), outputs_NO, target_NO)


def hellinger(outputs_NO: Operand, target_NO: Operand) -> Variable:
    """``Σ (√a - √E)² / √2`` over a row's outputs; shape ``[N]``."""
    return number_loss(Hellinger(), outputs_NO, target_NO)


def kullback_leibler(
    outputs_NO: Operand, target_NO: Operand, *, generalised: bool = False
) -> Variable:
    """``Σ E ln(E/a)``, generalised ``Σ [E ln(E/a) - E + a]``; shape ``[N]``."""
    return number_loss(
        GeneralisedKullbackLeibler() if generalised else KullbackLeibler(), outputs_NO, target_NO
    )


def itakura_saito(outputs_NO: Operand, target_NO: Operand) -> Variable:
    """``Σ [E/a - ln(E/a) - 1]`` over a row's outputs; shape ``[N]``."""
    return number_loss(ItakuraSaito(), outputs_NO, target_NO)
