"""The commands ``cache list`` and ``cache clear`` and their arguments.

What they do stands in modules that are imported when they run.
"""

from __future__ import annotations

from typing import Annotated

import typer

from distsgd.cli.options import CacheDirOption, JsonOption

cache_app = typer.Typer(help="List and clear the cache of prepared data.", no_args_is_help=True)


@cache_app.command("list")
def cache_list(*, cache_dir: CacheDirOption = None, as_json: JsonOption = False) -> None:
    """List the prepared data sets of the cache, the one used last first."""
    from distsgd.cli.cache import show_cache  # noqa: PLC0415

    show_cache(cache_dir, as_json=as_json)


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
    """Remove prepared data sets from the cache; those that a process uses stay."""
    from distsgd.cli.cache import clear_cache  # noqa: PLC0415

    clear_cache(cache_dir, (*(entries or ()),), older_than_days=older_than, as_json=as_json)
