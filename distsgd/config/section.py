"""What sections are made of: tables whose keys state their rule in words. No I/O here."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

Names = Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(min_length=1)]
Name = Annotated[str, Field(min_length=1)]


def key(meaning: str, rule: str, **bounds: Any) -> Any:
    """What a key means, the rule its value must keep in words, and the same rule for pydantic."""
    return Field(description=meaning, json_schema_extra={"rule": rule}, **bounds)


def count(meaning: str, rule: str = "a whole number, 1 or more") -> Any:
    """A key whose value is a count."""
    return key(meaning, rule, ge=1)


class Section(BaseModel):
    """A table of the TOML file: immutable, no unknown keys, no silent conversions."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)
