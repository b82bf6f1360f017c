"""Cut what pip-compile resolved into the project's locks, so that every pip can install them.

pip 23.2, asked for hashes, takes the newest release of a package that another requires with extras,
unless the lock pins it with just these extras, spelled alike: ``pkg[one]`` and ``pkg[one,two]`` are
two names to it. So a package has a line for each set of extras with which another requires it.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from scripts.requirements import ROOT, Find, finder, needs, normal, project

# The oldest pip that a Python of ours bundles: tests have it install a lock. The marker never
# holds, so that nobody's pip is exchanged by it; scripts/env fetches it.
OLDEST_PIP = "pip==23.2.1"
NEVER = ' ; extra == "oldest-pip"'

# The build for the CPU: a range takes the one for CUDA, with several GB of what that needs. Its
# hashes in the lock stay, also of wheels that are not found where the lock is made; --upgrade and a
# new version take what is found, and a test says where wheels are missing.
TORCH = "torch==2.13.0+cpu"

_PLATFORMS = (
    ("linux", "Linux", "x86_64"),
    ("linux", "Linux", "aarch64"),
    ("darwin", "Darwin", "arm64"),
)
ENVIRONMENTS = [
    {
        "python_version": f"3.{minor}",
        "python_full_version": f"3.{minor}.0",
        "os_name": "posix",
        "sys_platform": platform,
        "platform_system": system,
        "platform_machine": machine,
    }
    for minor in (11, 12, 13, 14)
    for platform, system, machine in _PLATFORMS
]
HEAD = """\
# Made by scripts/lock; edit pyproject.toml and run it again.
# {purpose}
"""
_PIN = re.compile(r"^(?P<name>[\w.-]+)(?:\[[^]]*\])?==(?P<version>\S+) \\$")


class Pin(NamedTuple):
    """One package of a compiled lock: its version, and the lines of hashes and reasons."""

    name: str
    version: str
    rest: tuple[str, ...]


class Lock(NamedTuple):
    """A lock to make: what it is for, what it holds, and the locks that are installed with it."""

    purpose: str
    roots: Sequence[str]
    beyond: Sequence[str] = ()


def pins(compiled: str) -> dict[str, Pin]:
    """The packages of what pip-compile wrote, by name."""
    found: dict[str, Pin] = {}
    name = ""
    for line in compiled.splitlines():
        if match := _PIN.match(line):
            name = normal(match["name"])
            found[name] = Pin(match["name"], match["version"], ())
        elif name and line.startswith(" "):
            found[name] = found[name]._replace(rest=(*found[name].rest, line))
    return found


def cut(compiled: str, locks: Mapping[str, Lock], *, find: Find) -> dict[str, str]:
    """The text of each lock, by file; what those that it is installed with hold, it does not.

    Args:
        compiled: What pip-compile wrote, with hashes, for all locks together.
        locks: What to make.
        find: Gives the metadata of the very versions that are pinned.

    Raises:
        LookupError: Something is required that is not pinned.
    """
    pinned = pins(compiled)
    held: dict[str, set[tuple[str, tuple[str, ...]]]] = {}
    texts = {}
    for file, lock in locks.items():
        new = set()
        for need in needs(lock.roots, "distsgd", find=find, environments=ENVIRONMENTS):
            if need.name not in pinned:
                raise LookupError(f"{need.of} requires {need.requirement}, which is not pinned")
            new.add((need.name, tuple(sorted(need.requirement.extras))))
        held[file] = new.difference(*(held[other] for other in lock.beyond))
        lines = [_lines(pinned[name], extras) for name, extras in sorted(held[file])]
        texts[file] = "\n".join([HEAD.format(purpose=lock.purpose), *lines]).rstrip() + "\n"
    return texts


def _lines(pin: Pin, extras: Iterable[str]) -> str:
    inner = ",".join(extras)
    version = f"{pin.name}{f'[{inner}]' if inner else ''}=={pin.version}"
    never = NEVER if version == OLDEST_PIP else ""
    return "\n".join([f"{version}{never} \\", *pin.rest])


def project_locks() -> dict[str, Lock]:
    """The locks of this project, by file."""
    roots = project()
    base, plots, cluster = (f"requirements{it}.lock" for it in ("", "-plots", "-cluster"))
    return {
        base: Lock(
            "What the project needs, and what installs it in place.", roots[""] + roots["build"]
        ),
        plots: Lock("What pictures need beyond requirements.lock.", roots["plots"], [base]),
        cluster: Lock(
            "What Ray jobs and runs on object storage need beyond requirements.lock.",
            roots["cluster"] + roots["s3"],
            [base],
        ),
        "requirements-models.lock": Lock(
            "What models in PyTorch and JAX need beyond requirements.lock; for the CPU.",
            [*roots["torch"], TORCH, *roots["jax"], *roots["dev-models"]],
            [base],
        ),
        "requirements-test.lock": Lock(
            "What the tests need beyond the others.",
            [*roots["dev"], OLDEST_PIP],
            [base, plots, cluster],
        ),
    }


def main() -> None:
    """Print what pip-compile is to resolve, or write the locks from what it wrote."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("compiled", type=Path, nargs="?", help="what pip-compile wrote")
    parser.add_argument("distributions", nargs="?", help="where the pinned versions are installed")
    options = parser.parse_args()
    locks = project_locks()
    if not options.compiled:
        print("\n".join(root for lock in locks.values() for root in lock.roots))
        return
    find = finder([options.distributions])
    for file, text in cut(options.compiled.read_text(), locks, find=find).items():
        (ROOT / file).write_text(text)


if __name__ == "__main__":
    main()
