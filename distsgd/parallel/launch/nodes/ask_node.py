"""What a node says of itself.

It travels by value, so that a node with another distsgd, or with none, can answer too: nothing of
ours is imported here but in the call.
"""

from __future__ import annotations

import importlib
import os
import platform
import socket
import time
from typing import Any


def look_around(dtype: str) -> dict[str, Any]:
    """Name, versions, niceness, time and arithmetic of this node; "" where there is no such thing.

    `error` says why distsgd cannot be used there; None where it can.
    """
    found: dict[str, Any] = {
        "node": socket.gethostname(),
        "python": platform.python_version(),
        "niceness": os.nice(0),
        **dict.fromkeys(("distsgd", "ray", "numpy", "bits", "arithmetic"), ""),
        "error": None,
    }
    try:
        for name in ("ray", "numpy", "distsgd"):
            found[name] = str(importlib.import_module(name).__version__)
        numerics = importlib.import_module("distsgd.parallel.numerics")
        profile = numerics.profile(dtype)
        found |= {"bits": profile.bits, "arithmetic": str(profile)}
    except Exception as error:  # noqa: BLE001 -- told to the one who asks, with the node's name.
        found["error"] = f"{type(error).__name__}: {error}"
    found["time_s"] = time.time()  # Last: what comes before takes seconds.
    return found
