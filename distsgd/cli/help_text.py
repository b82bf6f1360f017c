"""Python's own help topics as rows of characters: text that is on every machine.

Other versions of Python have other topics; a configuration is the same, a run is not.
Shape letters: N rows, T places of a row.
"""

from __future__ import annotations

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from distsgd.errors import ConfigError

HELD_OUT = 0.1
PLACES = 64
UNKNOWN = "?"  # For a character that the training text has not, or only at its very ends.


def help_text() -> str:
    """All topics in order of their names, each paragraph once, although topics share many.

    A fifth of the text would come again otherwise, and held-out text be learnt by heart.

    Raises:
        ConfigError: This Python comes without them.
    """
    try:
        from pydoc_data.topics import topics
    except ModuleNotFoundError:
        problem = (
            "init gpt makes its data from Python's own help topics, and this Python comes without "
            "them; its module pydoc_data must be installed (install it, or use another Python)"
        )
        raise ConfigError([problem]) from None
    texts = "\n\n".join(topics[name].strip("\n") for name in sorted(topics))
    return "\n\n".join(dict.fromkeys(texts.split("\n\n")))


def character_tables(text: str, places: int = PLACES) -> tuple[pa.Table, pa.Table]:
    """Rows to train on, and those of the last tenth of `text`, which are held out.

    A row is `tokens` ``[T]`` and `next` ``[T]``, the same one character later; rows follow upon
    each other, and what is left at the end is left out. A token is the number of a character in the
    sorted characters of the training text, which the schema has as metadata, ``characters``.
    """
    cut = round(len(text) * (1 - HELD_OUT))
    training, held_out = (_whole_rows(part, places) for part in (text[:cut], text[cut:]))
    characters = "".join(sorted({UNKNOWN, *training[1:-1]}))
    number = {character: i for i, character in enumerate(characters)}
    return _table(training, number, places), _table(held_out, number, places)


def parquet_bytes(table: pa.Table) -> bytes:
    """The table as a Parquet file."""
    file = io.BytesIO()
    pq.write_table(table, file)
    return file.getvalue()


def _whole_rows(text: str, places: int) -> str:
    return text[: (len(text) - 1) // places * places + 1]


def _table(text: str, number: dict[str, int], places: int) -> pa.Table:
    ids = np.array([number.get(it, number[UNKNOWN]) for it in text], np.uint16)
    columns = {"tokens": ids[:-1], "next": ids[1:]}
    metadata = {"characters": "".join(number)}
    return pa.table(
        {name: pa.FixedSizeListArray.from_arrays(it, places) for name, it in columns.items()}
    ).replace_schema_metadata(metadata)
