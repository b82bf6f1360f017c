"""Publishes a directory as a run and fetches it, and prints by how much its memory has grown."""

from __future__ import annotations

import sys
from pathlib import Path

from distsgd.base.locations import Location
from distsgd.store.remote_run import RemoteRun


def peak_bytes() -> int:
    """The most memory that this program has had; `getrusage` knows that of its parent as well."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])


def main(address: str, place: str) -> None:
    small = Location(f"{address}-small")
    small.write_bytes(b"1")
    RemoteRun(small).exists()
    before = peak_bytes()
    run = RemoteRun(Location(address))
    run.create(Path(place) / "work")
    run.fetch(Path(place) / "copy")
    print(peak_bytes() - before)  # noqa: T201 -- is read by the test.


if __name__ == "__main__":
    main(*sys.argv[1:])
