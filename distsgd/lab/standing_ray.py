"""A Ray of one's own that stays up between timings: `distsgd` starts one a run, which takes 4 s.

Timed runs join it by its address; server, workers, shards and transport are those of any run. While
nothing runs on it, it takes 3 % of a core: peers are timed with it running.
"""

import contextlib
import subprocess
import sys
import threading
from collections.abc import Iterator

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
def standing_ray(num_cpus: int) -> Iterator[tuple[str, ...]]:
    """Settings that make a run with workers use a Ray with room for `num_cpus` processes."""
    with private_ray.environment_kept(), private_ray.private_directory() as directory:
        private_ray.set_environment()
        host = subprocess.Popen(  # noqa: S603 -- this Python.
            [sys.executable, "-c", HOST, str(directory), str(num_cpus)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        start = threading.Timer(START_TIMEOUT_S, host.kill)
        start.start()
        try:
            address = host.stdout.readline().strip() if host.stdout else ""
            start.cancel()
            if not address:
                raise ClusterError("Ray does not start within 120 s; see distsgd doctor")
            yield f"parallel.address={address}", "parallel.transport=shared_memory"
        finally:
            start.cancel()
            with contextlib.suppress(subprocess.TimeoutExpired):
                host.communicate("", timeout=END_TIMEOUT_S)
            host.kill()
