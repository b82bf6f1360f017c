"""How norms are refused: always with the way to do without them."""

from __future__ import annotations

from distsgd.errors import ModelError


def refused(why: str) -> ModelError:
    """The error that says so."""
    return ModelError(
        f"norms of each sample: {why}; or do without them (set [statistics] per_sample = false)"
    )
