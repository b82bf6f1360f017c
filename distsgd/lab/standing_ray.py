"""A Ray of one's own that stays up between timings: `distsgd` starts one a run, which takes 4 s.

Timed runs join it by its address; server, workers, shards and transport are those of any run. While
nothing runs on it, it takes 3 % of a core: peers are timed with it running.
"""

import contextlib
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from typing import TextIO

from distsgd.errors import ClusterError
from distsgd.parallel.launch.session import private_ray

HOST = """
import sys, ray
ray.init(address="local", num_cpus=int(sys.argv[2]), include_dashboard=False, _temp_dir=sys.argv[1],
         object_store_memory=80 << 20, log_to_driver=False, configure_logging=False)
print(ray.get_runtime_context().gcs_address, flush=True)
sys.stdin.read()
ray.shutdown()
"""
START_TIMEOUT_S = 120.0
END_TIMEOUT_S = 30.0


@contextlib.contextmanager
def standing_ray(
    num_cpus: int, *, start_timeout_s: float = START_TIMEOUT_S
) -> Iterator[tuple[str, ...]]:
    """Settings that make a run with workers use a Ray with room for `num_cpus` processes.

    Raises ClusterError where Ray ends as it starts, or does not start in time.
    """
    with (
        private_ray.environment_kept(),
        private_ray.private_directory() as directory,
        tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as said,
    ):
        private_ray.set_environment()
        host = subprocess.Popen(  # noqa: S603 -- this Python.
            [sys.executable, "-c", HOST, str(directory), str(num_cpus)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=said,
            text=True,
        )
        began_s = time.monotonic()
        start = threading.Timer(start_timeout_s, host.kill)
        start.start()
        try:
            address = host.stdout.readline().strip() if host.stdout else ""
            start.cancel()
            is_late = time.monotonic() - began_s >= start_timeout_s
            if not address:
                how = f"within {start_timeout_s:g} s" if is_late else _last_line(said)
                raise ClusterError(f"Ray does not start {how}; see distsgd doctor")
            yield f"parallel.address={address}", "parallel.transport=shared_memory"
        finally:
            start.cancel()
            try:
                host.communicate("", timeout=END_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                host.kill()
                host.communicate()


def _last_line(said: TextIO) -> str:
    """What a Ray that has ended said last, such as the exception it ended with."""
    said.seek(0)
    lines = said.read().split("\n")
    last = next((line.strip() for line in reversed(lines) if line.strip()), "no word")
    return f"(it ended with: {last})"
