"""How many files and functions of ours one run enters, and one step of two workers.

Counted by tracing: a whole run of the digits in this process, from the file to the result, and
steps of a server with two workers, in threads, over shared memory: no evaluation, digest or
checkpoint is among them. `-v` names the files.
"""

import argparse
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "workers")]
from distsgd import TrainConfig, Trainer  # noqa: E402
from tests.integration.pools import server_spec, train_with_threads  # noqa: E402

OURS = (str(ROOT / "distsgd"), str(ROOT / "workers"))


class Passed:
    """The functions entered while `is_on`, in whatever thread."""

    def __init__(self) -> None:
        self.is_on = False
        self.functions: set[tuple[str, str]] = set()

    def __call__(self, frame: FrameType, event: str, _: Any) -> None:
        """Note a call; what `sys.setprofile` calls."""
        code = frame.f_code
        # A module's body or a class's is no function: it is entered when it is imported.
        if (
            self.is_on
            and event == "call"
            and code.co_filename.startswith(OURS)
            and code.co_flags & 2
        ):
            self.functions.add((code.co_filename, code.co_qualname))

    @property
    def files(self) -> list[str]:
        """Paths from the root, in order."""
        return sorted({str(Path(name).relative_to(ROOT)) for name, _ in self.functions})


def traced(run: Callable[[Passed], None]) -> Passed:
    """What `run` passes while it has it on."""
    passed = Passed()
    threading.setprofile(passed)
    sys.setprofile(passed)
    try:
        run(passed)
    finally:
        sys.setprofile(None)
        threading.setprofile(None)  # type: ignore[arg-type]
    return passed


def digits(*settings: str) -> Any:
    """The shipped example for two epochs."""
    config = TrainConfig.from_toml(ROOT / "distsgd/examples/digits.toml")
    return config.with_overrides(["train.epochs=2", *settings])


def run_of_one_process(passed: Passed) -> None:
    """A whole run: files to shards to weights to result."""
    with tempfile.TemporaryDirectory() as work:
        config = digits("parallel.workers=0")
        passed.is_on = True
        Trainer(config, run_dir=Path(work, "run"), cache_dir=Path(work, "cache")).fit()
        passed.is_on = False


def step_of_two_workers(passed: Passed) -> None:
    """Steps in the middle of a run, by the server and both workers."""

    def look(server: Any) -> None:
        sys.setprofile(None)
        while server.status().step < 10:
            pass
        passed.is_on = True
        while server.status().step < 20:
            pass
        passed.is_on = False

    settings = ["parallel.workers=2", "parallel.assignment=all", "batch.size=256"]
    settings += ["train.epochs=1000", "train.steps=1000", "train.evaluate_every_epochs=1000"]
    with tempfile.TemporaryDirectory() as work:
        config = digits(*settings, "train.digest_every=1000")
        spec = server_spec(config, Path(work, "run"), cache_dir=Path(work, "cache"))
        train_with_threads(spec, meanwhile=look)


def main() -> None:
    """Print both counts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-v", "--verbose", action="store_true", help="name the files")
    verbose = parser.parse_args().verbose
    for run in (run_of_one_process, step_of_two_workers):
        passed = traced(run)
        name = run.__name__.replace("_", " ")
        print(f"{name}: {len(passed.files)} files, {len(passed.functions)} functions")
        if verbose:
            print("\n".join(f"    {file}" for file in passed.files))


if __name__ == "__main__":
    main()
