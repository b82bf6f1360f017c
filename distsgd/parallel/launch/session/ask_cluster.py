"""A program of its own: does a Ray cluster run at an address, and can this machine join it?

Ray's client knows neither deadline nor Ctrl-C while it connects, so a process that can be killed
asks first. Run as a file, so that nothing of ours is imported: ``python -P ask_cluster.py ADDRESS
SECONDS``. On standard output it tells, line by line, how far it has come (`MARK`, stage, text).
Each stage has ``SECONDS``; then the kernel ends the process.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import socket
import sys
import time
from pathlib import Path

MARK = "distsgd-asks"
LOOK_S = 0.2
JOIN_FACTOR = 2.5  # A node that has just been started takes longer to be told of than to answer.


def tell(stage: str, text: str = "") -> None:
    """The next stage begins, or the last one was reached."""
    print(MARK, stage, text, sep="\t", flush=True)  # noqa: T201 -- what this program is for.


def ask(address: str, stage_s: float) -> None:
    """Go through the stages: find, connect, ask, join, ready.

    Raises:
        Exception: Whatever Ray or the kernel says.
    """
    tell("load")
    raylet = importlib.import_module("ray._raylet")
    services = importlib.import_module("ray._private.services")
    tokens = importlib.import_module("ray._private.authentication.authentication_token_setup")
    up = importlib.import_module("ray.core.generated.gcs_pb2").GcsNodeInfo.GcsNodeState.ALIVE

    def nodes_alive() -> set[str]:
        return {
            node.node_id.hex()
            for node in client.get_all_node_info(timeout=stage_s, state_filter=up).values()
        }

    begin(stage_s)
    tell("find")
    found = services.canonicalize_bootstrap_address(address)
    if found is None:
        raise ValueError("RAY_ADDRESS names no cluster")
    if address == "auto":  # As `ray.init` does.
        tokens.maybe_enable_token_auth_if_token_available(warn_if_disabled=False)
    begin(stage_s)
    place = found + source(address, found)
    tell("connect", place)
    host, _, port = found.rpartition(":")
    socket.create_connection((host.strip("[]"), int(port)), timeout=stage_s).close()
    begin(stage_s)
    tell("ask", place)
    client = raylet.GcsClient(address=found)
    alive = nodes_alive()
    begin(JOIN_FACTOR * stage_s)
    tell("join", place)
    while not alive & set(services.find_node_ids()):
        time.sleep(LOOK_S)  # It may just be starting.
        alive = nodes_alive()
    tell("ready", place)


def source(address: str, found: str) -> str:
    """Where the address that was found stands, if it was not given."""
    if address != "auto":
        return "" if address == found else f" (given as {address})"
    if os.environ.get("RAY_ADDRESS"):
        return " (from RAY_ADDRESS)"
    services = importlib.import_module("ray._private.services")
    ray_temp = importlib.import_module("ray._common.utils").get_ray_address_file(None)
    with contextlib.suppress(OSError):
        stands_there = Path(ray_temp).read_text().strip()
        if services.canonicalize_bootstrap_address(stands_there) == found:
            return f" (from {ray_temp})"
    return " (a running process of Ray)"


def begin(stage_s: float) -> None:
    """From now on this stage has `stage_s` seconds."""
    signal.setitimer(signal.ITIMER_REAL, stage_s)


if __name__ == "__main__":
    try:
        ask(sys.argv[1], float(sys.argv[2]))
    except Exception as error:  # noqa: BLE001 -- told to whoever started this process.
        tell("failed", " ".join(f"{type(error).__name__}: {error}".split()))
