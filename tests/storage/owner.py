"""A process that has a run on object storage and publishes when told to, for the tests."""

from __future__ import annotations

import sys
from pathlib import Path

from distsgd.base.locations import Location
from distsgd.errors import DistSGDError
from distsgd.store.remote_run import RemoteRun


def main(address: str, place: str) -> None:
    Path(place).mkdir()
    with RemoteRun(Location(address)).lease("1 on a") as lease:
        print("has it", flush=True)  # noqa: T201 -- is read by the test.
        for line in sys.stdin:
            (Path(place) / "result.json").write_text(line)
            try:
                lease.publish(Path(place))
                print("published", flush=True)  # noqa: T201 -- the same.
            except DistSGDError as error:
                print(error, flush=True)  # noqa: T201 -- the same.


if __name__ == "__main__":
    main(*sys.argv[1:])
