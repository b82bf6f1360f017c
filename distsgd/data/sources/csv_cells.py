"""The cell that makes a column of a CSV file text: kept with the column, for the message."""

from __future__ import annotations

import json
import os
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from distsgd.data.options import CsvSettings, way_out
from distsgd.data.sources.csv_numbers import ColumnKind
from distsgd.data.sources.csv_text import CsvText
from distsgd.data.sources.stored_files import FilePath
from distsgd.errors import DataError, shortened

_KEY = b"distsgd.first_text"
_CODE = re.compile(r"[+-]?0[0-9xX]|\+\d{7,}$")
_DECIMAL_COMMA = re.compile(r"[+-]?\d*,\d+([eE][+-]?\d+)?")


def column_field(
    name: str, kind: pa.DataType, found: ColumnKind, *, path: FilePath, settings: CsvSettings
) -> pa.Field:
    """A column of type `kind`, with the cell of a file in which it was found to be no number."""
    if found.first_text is None or not pa.types.is_string(kind):
        return pa.field(name, kind)
    row, text = found.first_text
    said = {
        "path": os.fspath(path),
        "name": str(path),
        "settings": asdict(settings),
        "row": row,
        "text": text,
    }
    return pa.field(name, kind, metadata={_KEY: json.dumps(said)})


def first_text(field: pa.Field) -> str | None:
    """What makes a text column of CSV files text: row and value of the first such cell.

    >>> first_text(pa.field("a", pa.int64())) is None
    True
    """
    said = _said(field)
    return None if said is None else f"row {said['row']}: {_fault(said['text'])}"


def no_number(field: pa.Field, role: Literal["feature", "label"]) -> DataError | None:
    """The error for a column that must be numbers, by row, line and value; None if not of CSV."""
    said = _said(field)
    if said is None:
        return None
    text, path = said["text"], Path(said["path"])
    saved = said["settings"]
    null_values = saved["null_values"]
    settings = CsvSettings(**{**saved, "null_values": null_values and tuple(null_values)})
    mend = "correct or remove the row, or leave the column out of the features"
    if role == "label":
        mend = "correct or remove the row, or choose a [model] loss for classes"
        mend += " (data prepare: --label-kind class)"
    elif _CODE.match(text):
        mend = "leave the column out of the features, or write it without what it would lose"
    if settings.decimal == "." and _DECIMAL_COMMA.fullmatch(text):
        mend = f"for a decimal comma {way_out('decimal', ',')}"
    elif settings.decimal == "," and "." in text:
        mend = f"decimals follow a comma here; for a decimal point {way_out('decimal', '.')}"
    where = CsvText(path, settings).where(said["row"])
    reason = f"column {field.name!r}, {where}: {role} {_fault(text)}; {mend}"
    return DataError(said["name"], reason)


def _said(field: pa.Field) -> dict[str, Any] | None:
    raw = (field.metadata or {}).get(_KEY)
    said: dict[str, Any] | None = json.loads(raw) if raw else None
    return said


def _fault(text: str) -> str:
    what = "would lose a character as a number" if _CODE.match(text) else "is no number"
    return f"{shortened(text)!r} {what}"
