"""A process that prepares rows into a cache on object storage, and stops for a line before it does.

Prints what a person is told, and at the end ``at ADDRESS``.
"""

from __future__ import annotations

import sys

from distsgd.base import leases
from distsgd.base.locations import Location
from distsgd.data.cache_address import cached_at
from distsgd.data.options import PrepareOptions


def say(text: str) -> None:
    print(text, flush=True)  # noqa: T201 -- is read by the test.
    if text.startswith("preparing"):
        sys.stdin.readline()


def main(rows: str, cache: str, lease_s: str) -> None:
    leases.LEASE_S = float(lease_s)
    options = PrepareOptions(label=("label",))
    found = cached_at(rows, Location(cache), options=options, on_message=say)
    say(f"at {found}")


if __name__ == "__main__":
    main(*sys.argv[1:])
