"""Which part of a model is to blame, in words; a framework without modules has none to name."""

from __future__ import annotations

import importlib
from typing import cast

from distsgd.models.factory import Recipe
from distsgd.models.protocol import Program
from distsgd.models.rehearsal import Block, Rehearsal


class Inspector:
    """Looks for the part of a model that breaks a rule; "" where none can be named."""

    def mixing(self, rehearsal: Rehearsal, others: Block, row: int, *, is_training: bool) -> str:
        """Who mixes samples, and what does not; only `row` is the same in `others`."""
        del rehearsal, others, row, is_training
        return ""

    def shared(self, first: Program, second: Program) -> str:
        """What two programs have in common that each must have for itself."""
        del first, second
        return ""

    def random(self, rehearsal: Rehearsal) -> str:
        """Who gives other numbers for the same."""
        del rehearsal
        return ""

    def remembering(self, rehearsal: Rehearsal, others: Block, *, is_training: bool) -> str:
        """Who gives other numbers for the same where its program has trained on `others`."""
        del rehearsal, others, is_training
        return ""

    def not_finite(self, rehearsal: Rehearsal) -> str:
        """Who is the first whose output is not finite."""
        del rehearsal
        return ""

    def left_behind(self, rehearsal: Rehearsal) -> str:
        """What training changes besides the weights, and the way out."""
        del rehearsal
        return ""


def inspector_of(recipe: Recipe) -> Inspector:
    """That of the framework of a model."""
    if recipe.framework != "torch":
        return Inspector()
    made = importlib.import_module("distsgd.models.torch.inspector")
    return cast(Inspector, made.ModuleInspector())
