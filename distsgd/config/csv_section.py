"""The table ``[data.csv]``. No I/O here."""

from __future__ import annotations

from typing import Annotated, Literal

from distsgd.config.section import Section, key


class CsvSection(Section):
    """How CSV files are written; a subtable of ``[data]``."""

    separator: Annotated[
        str,
        key("character between two values", '"auto" (comma, semicolon or tab) or one character'),
    ] = "auto"
    encoding: Annotated[
        str, key("of the text", 'an encoding such as "utf-8", "latin-1", "cp1252" or "utf-16"')
    ] = "utf-8"
    decimal: Annotated[Literal[".", ","], key("before the decimals", '"." or ","')] = "."
    null_values: Annotated[
        tuple[str, ...] | None,
        key(
            "what stands for a missing value, besides an empty field",
            "a list of texts, or left out (NA, N/A, null and NULL in columns of numbers)",
        ),
    ] = None
