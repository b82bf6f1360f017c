"""One typing of the columns of all files of a source: CSV says nothing of types, its values do.

A column is numbers only if every value in every file is one. Class labels are whole numbers or
booleans only where no two texts of a file would become one class; else they are text.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from distsgd.data.options import AskedLabelKind, LabelKind
from distsgd.data.prepare.labels import (
    MAX_CLASSES,
    boolean,
    check_number_label,
    is_quantity,
    whole_number,
)
from distsgd.data.sources.csv_cells import no_number
from distsgd.data.sources.csv_file import CsvSource
from distsgd.data.sources.csv_numbers import joint_type
from distsgd.data.sources.formats import csv_file_of
from distsgd.data.sources.partitions import PartitionedSource
from distsgd.data.sources.source import TableSource
from distsgd.data.tables import is_text
from distsgd.errors import DataError

Say = Callable[[str], None]
_Fields = dict[str, pa.Field]


def typed_sources(
    sources: Sequence[TableSource],
    *,
    labels: Sequence[str] = (),
    label_kind: AskedLabelKind = "auto",
    on_message: Say,
) -> list[TableSource]:
    """These sources, the CSV files among them with one type a column, as all values allow.

    A class label takes the type of the other sources, where there are some.

    Raises:
        DataError: A label does not fit, by row and value.
    """
    files = _csv_files(sources)
    fields = _joint_fields(files)
    for label in labels:
        having = [file for file in files if label in file.schema.names]
        kind = fields[label].type if having else None
        if kind is None or (label_kind == "auto" and kind == pa.float64()):
            continue
        is_number = label_kind == "number" or len(labels) > 1
        if is_number or (label_kind == "auto" and _has_quantities(having, label)):
            _check_number(fields[label])
            continue
        others = _types_elsewhere(sources, label)
        chosen = _type_of_others(others) or _class_type(having, label, kind, on_message)
        if others:
            _check_fits(having, label, chosen, on_message)
        fields[label] = pa.field(label, chosen)
    return [_typed(source, fields) for source in sources]


def as_trained(
    sources: Sequence[TableSource], *, labels: Sequence[str], label_kind: LabelKind
) -> list[TableSource]:
    """Sources as a run reads them: class labels of CSV files as text, to be held against classes.

    Raises:
        DataError: A number label is no number; in a CSV file by row and value.
    """
    if label_kind == "number":
        for source in sources:
            for label in (label for label in labels if label in source.schema.names):
                if csv_file_of(source) is None:
                    check_number_label(source.name, label, source.schema.field(label).type)
    fields = _joint_fields(_csv_files(sources))
    for label in fields.keys() & set(labels):
        if label_kind == "class":
            fields[label] = pa.field(label, pa.string())
        else:
            _check_number(fields[label])
    return [_typed(source, fields) for source in sources]


def _csv_files(sources: Sequence[TableSource]) -> list[CsvSource]:
    return [file for file in map(csv_file_of, sources) if file is not None]


def _typed(source: TableSource, fields: _Fields) -> TableSource:
    file = csv_file_of(source)
    if file is None:
        return source
    typed = file.typed(fields)
    if isinstance(source, PartitionedSource):
        return PartitionedSource(typed, source.partition, source.types)
    return typed


def _types_elsewhere(sources: Sequence[TableSource], label: str) -> list[pa.DataType]:
    """Types of a label column in sources with rows where CSV does not hold it."""
    types = []
    for source in sources:
        file = csv_file_of(source)
        is_in_csv = file is not None and label in file.schema.names
        if source.num_rows and label in source.schema.names and not is_in_csv:
            types.append(source.schema.field(label).type)
    return types


def _joint_fields(files: Sequence[CsvSource]) -> _Fields:
    """Of each column, the type over all files; text with the first cell that is no number."""
    having: dict[str, list[CsvSource]] = {}
    for file in files:
        for name in file.schema.names:
            having.setdefault(name, []).append(file)
    fields = {}
    for name, some in having.items():
        kinds = [file.kind_of(name) for file in some]
        first = next((i for i, kind in enumerate(kinds) if kind.first_text), 0)
        fields[name] = some[first].field(name, joint_type(kinds))
    return fields


def _check_number(label: pa.Field) -> None:
    error = no_number(label, "label")
    if error is not None:
        raise error


def _type_of_others(others: Sequence[pa.DataType]) -> pa.DataType | None:
    """The type in which labels of CSV files meet those of other sources."""
    kinds = [kind.value_type if pa.types.is_dictionary(kind) else kind for kind in others]
    if not kinds:
        return None
    if any(map(is_text, kinds)):
        return pa.string()
    return pa.bool_() if all(map(pa.types.is_boolean, kinds)) else pa.int64()


def _class_type(
    files: Sequence[CsvSource], label: str, kind: pa.DataType, on_message: Say
) -> pa.DataType:
    """int64 or bool where no two texts of one file would become one class, else text.

    float64 where values are no whole numbers: these are no classes.
    """
    if kind not in {pa.float64(), pa.bool_()}:
        return kind
    value_of = boolean if kind == pa.bool_() else whole_number
    spellings: dict[int | None, dict[str, str]] = {}
    clash = ""
    for file in files:
        of_file: dict[int | None, str] = {}
        for text in sorted(_distinct(file, label)):
            value = value_of(text)
            other = of_file.setdefault(value, text)
            if value is not None and other != text:
                clash = f"{other!r} and {text!r} of {file.name}"
            spellings.setdefault(value, {})[text] = file.name
    odd = spellings.pop(None, {})
    if any(is_quantity(text) for text in odd):
        return pa.float64()
    if clash or odd:
        if clash:
            on_message(f"column {label!r}: {clash} are two classes, since they differ as text")
        return pa.string()
    for same in (texts for texts in spellings.values() if len(texts) > 1):
        shown = " and ".join(f"{text!r} (in {name})" for text, name in list(same.items())[:2])
        on_message(f"column {label!r}: {shown} are read as one class")
    return pa.bool_() if kind == pa.bool_() else pa.int64()


def _check_fits(files: Sequence[CsvSource], label: str, kind: pa.DataType, on_message: Say) -> None:
    """Raise DataError for the first label of CSV files that is not of the type of the others."""
    if kind == pa.string():
        return
    is_boolean = kind == pa.bool_()
    value_of, what = (boolean, "true or false") if is_boolean else (whole_number, "a whole number")
    for file in files:
        row = 0
        spelled: dict[int | None, str] = {}
        for values in file.texts(label):
            for text in pc.unique(values).drop_null().to_pylist():
                value = value_of(_with_point(file, text))
                if value is None:
                    where = file.where(row + pc.index(values, text).as_py())
                    reason = f"label {text!r} is not {what}, as labels of the other files are"
                    mend = "correct or remove the row, or write the labels of all files as text"
                    raise DataError(file.name, f"column {label!r}, {where}: {reason}; {mend}")
                other = spelled.setdefault(value, text)
                if other != text:
                    both = f"{other!r} and {text!r} of {file.name}"
                    on_message(f"column {label!r}: {both} are read as one class")
            row += len(values)


def _has_quantities(files: Sequence[CsvSource], label: str) -> bool:
    """Whether a text label is a number with decimals in other rows: then it is a number, once."""
    if all(file.kind_of(label).first_text is None for file in files):
        return False
    return any(is_quantity(text) for file in files for text in _distinct(file, label))


def _distinct(file: CsvSource, label: str) -> set[str]:
    """The different labels of a file, or one more of them than may be classes."""
    found: set[str] = set()
    for values in file.texts(label):
        found.update(_with_point(file, text) for text in pc.unique(values).drop_null().to_pylist())
        if len(found) > MAX_CLASSES:
            break
    return found


def _with_point(file: CsvSource, text: str) -> str:
    return text.replace(",", ".") if file.settings.decimal == "," else text
