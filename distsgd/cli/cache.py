"""``cache list`` and ``cache clear``: the cache of prepared data."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from distsgd.cli.options import CacheDirOption, JsonOption, cache_directory
from distsgd.cli.terminal.messages import memory, print_json, print_table, say

if TYPE_CHECKING:
    from distsgd.data.cache_entries import CacheEntry

_DAY_S = 86_400.0
cache_app = typer.Typer(
    help="List and clear the cache of prepared and fetched data.", no_args_is_help=True
)


@cache_app.command("list")
def cache_list(*, cache_dir: CacheDirOption = None, as_json: JsonOption = False) -> None:
    """List what is in the cache, prepared data sets and fetched files, the one used last first."""
    from distsgd.data.cache_entries import list_entries

    cache = cache_directory(cache_dir)
    entries = list_entries(cache)
    total = sum(entry.num_bytes for entry in entries)
    if as_json:
        found = [_json_of(entry) for entry in entries]
        print_json({"cache_dir": str(cache), "num_bytes": total, "entries": found})
        return
    if entries:
        _print_entries(entries)
    say(f"{cache} holds {_counted(len(entries))}, {memory(total)}")


@cache_app.command("clear")
def cache_clear(
    entries: Annotated[
        list[str] | None,
        typer.Argument(metavar="[ENTRY]...", help="By name or its beginning; all unless given."),
    ] = None,
    *,
    older_than: Annotated[
        float, typer.Option(metavar="DAYS", min=0.0, help="Only those unused for so many days.")
    ] = 0.0,
    cache_dir: CacheDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Remove prepared data sets and fetched files from the cache; those in use stay."""
    from distsgd.data.cache_entries import clear

    cleared = clear(
        cache_directory(cache_dir),
        entries or (),
        older_than_s=older_than * _DAY_S,
        on_message=say,
    )
    removed = _counted(len(cleared.removed))
    say(f"removed {removed}, freed {memory(cleared.freed_bytes)}")
    if as_json:
        print_json(asdict(cleared))


def _counted(count: int) -> str:
    return f"{count:,} " + ("entry" if count == 1 else "entries")


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
        "fetched": list(entry.fetched) or None,
        "problem": entry.problem or None,
    }


def _print_entries(entries: list[CacheEntry]) -> None:
    from rich.table import Column, Table
    from rich.text import Text

    source = Column("from", overflow="fold")
    table = Table("entry", "size", "last used", "rows", source, "", box=None)
    for entry in entries:
        table.add_row(*(Text(cell) for cell in _row_of(entry)))
    print_table(table)


def _row_of(entry: CacheEntry) -> tuple[str, ...]:
    from distsgd.data.cache_entries import SHOWN_LENGTH

    last_used = time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.last_used_s))
    name, size = entry.path.name[:SHOWN_LENGTH], memory(entry.num_bytes)
    state = "in use" if entry.is_in_use else ""
    if entry.manifest is None:
        return name, size, last_used, "-", entry.problem or _in_short(entry.fetched), state
    rows = entry.manifest.train_rows + entry.manifest.test_rows
    sources = _in_short([source.name for source in entry.manifest.sources])
    return name, size, last_used, f"{rows:,}", sources, state


def _in_short(names: Sequence[str]) -> str:
    return names[0] + (f" and {len(names) - 1} more" if len(names) > 1 else "")
