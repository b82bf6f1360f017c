"""The cache of prepared data for the command line: where it is, what lies in it, clearing it."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.table import Column, Table
from rich.text import Text

from distsgd.cli.messages import memory, print_json, print_table, say
from distsgd.data.cache_entries import (
    SHOWN_LENGTH,
    CacheEntry,
    clear,
    default_cache_dir,
    list_entries,
)

_DAY_S = 86_400.0


def cache_directory(named: Path | None) -> Path:
    """The cache of this command: as named, else in ``XDG_CACHE_HOME``, else in ``~/.cache``."""
    place = named or default_cache_dir(os.environ.get("XDG_CACHE_HOME"))
    return place.expanduser()


def show_cache(named: Path | None, *, as_json: bool) -> None:
    """Print the entries of the cache and what they take."""
    cache_dir = cache_directory(named)
    entries = list_entries(cache_dir)
    total = sum(entry.num_bytes for entry in entries)
    if as_json:
        found = [_json_of(entry) for entry in entries]
        print_json({"cache_dir": str(cache_dir), "num_bytes": total, "entries": found})
        return
    if entries:
        source = Column("from", overflow="fold")
        table = Table("entry", "size", "last used", "rows", source, "", box=None)
        for entry in entries:
            table.add_row(*(Text(cell) for cell in _row_of(entry)))
        print_table(table)
    say(f"{cache_dir} holds {_counted(len(entries), 'prepared data set')}, {memory(total)}")


def clear_cache(
    named: Path | None, entries: Sequence[str], *, older_than_days: float, as_json: bool
) -> None:
    """Remove entries that nobody uses, and say what that freed."""
    cleared = clear(
        cache_directory(named), entries, older_than_s=older_than_days * _DAY_S, on_message=say
    )
    removed = _counted(len(cleared.removed), "prepared data set")
    say(f"removed {removed}, freed {memory(cleared.freed_bytes)}")
    if as_json:
        print_json(asdict(cleared))


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}" + ("" if count == 1 else "s")


def _json_of(entry: CacheEntry) -> dict[str, object]:
    manifest = entry.manifest
    return {
        "entry": entry.path.name,
        "num_bytes": entry.num_bytes,
        "last_used_s": entry.last_used_s,
        "is_in_use": entry.is_in_use,
        "train_rows": manifest.train_rows if manifest else None,
        "test_rows": manifest.test_rows if manifest else None,
        "sources": [source.name for source in manifest.sources] if manifest else None,
        "problem": entry.problem or None,
    }


def _row_of(entry: CacheEntry) -> tuple[str, ...]:
    last_used = time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.last_used_s))
    name, size = entry.path.name[:SHOWN_LENGTH], memory(entry.num_bytes)
    state = "in use" if entry.is_in_use else ""
    if entry.manifest is None:
        return name, size, last_used, "-", entry.problem, state
    rows, sources = entry.manifest.train_rows + entry.manifest.test_rows, entry.manifest.sources
    more = f" and {len(sources) - 1} more" if len(sources) > 1 else ""
    return name, size, last_used, f"{rows:,}", f"{sources[0].name}{more}", state
