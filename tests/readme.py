"""The blocks of the README, which run in tests."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
_OWN_MODELS = "## Your own model: PyTorch, JAX\n"


def _split() -> tuple[str, str]:
    """The README without its chapter on models of one's own, and that chapter."""
    before, _, after = (ROOT / "README.md").read_text("utf-8").partition(_OWN_MODELS)
    chapter, _, rest = after.partition("\n## ")
    return before + rest, chapter


def _blocks(text: str) -> list[tuple[str, str]]:
    """Language and text of each."""
    return re.findall(r"^```(\w+)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


BLOCKS, OWN_MODEL_BLOCKS = map(_blocks, _split())
