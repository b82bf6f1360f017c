"""What the project's requirements come to among the distributions that are installed.

Run by scripts/env in an environment: prints what is missing for the project and the extras named,
one a line; exit code 1 where there is something.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
import sys
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

try:
    from packaging.requirements import Requirement
except ModuleNotFoundError:
    try:  # pip brings its own.
        from pip._vendor.packaging.requirements import Requirement
    except ModuleNotFoundError:
        sys.exit("packaging, needed by ray: not installed, so the rest is not looked at")

ROOT = Path(__file__).resolve().parents[1]
Find = Callable[[str], importlib.metadata.Distribution | None]


class Need(NamedTuple):
    """A requirement that holds, and the distribution that has it."""

    requirement: Requirement
    of: str

    @property
    def name(self) -> str:
        """The name of what is required, as all spellings of it are compared."""
        return normal(self.requirement.name)


def normal(name: str) -> str:
    """The one spelling of a distribution's name (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def finder(path: Sequence[str] | None = None) -> Find:
    """Finds distributions by name under `path`, or on the path of this process."""
    among = {} if path is None else {"path": list(path)}
    known = {normal(d.metadata["Name"]): d for d in importlib.metadata.distributions(**among)}
    return lambda name: known.get(normal(name))


def needs(
    roots: Iterable[str], of: str, *, find: Find, environments: Sequence[Mapping[str, str]] = ({},)
) -> Iterator[Need]:
    """All requirements that follow from `roots`, each once, those of `roots` first.

    Args:
        roots: Requirements as in a pyproject.toml.
        of: Who has them.
        find: Gives the distribution of a name, or None; its requirements then are not followed.
        environments: Values of environment markers, in place of this interpreter's; a requirement
            holds where it does in any of them.
    """
    waiting = [(Need(Requirement(text), of), frozenset[str]()) for text in roots]
    seen = set()
    while waiting:
        need, extras = waiting.pop(0)
        marker = need.requirement.marker
        values = [{**e, "extra": extra} for e in environments for extra in ("", *extras)]
        key = (need.name, frozenset(need.requirement.extras), str(need.requirement), need.of)
        if key in seen or not (marker is None or any(marker.evaluate(each) for each in values)):
            continue
        seen.add(key)
        yield need
        found = find(need.name)
        further = (found.requires if found else None) or ()
        inner = frozenset(need.requirement.extras)
        waiting += [(Need(Requirement(text), need.name), inner) for text in further]


def project(root: Path = ROOT) -> dict[str, list[str]]:
    """Requirements by extra, "" for those without, and "build" for what builds and installs it."""
    with (root / "pyproject.toml").open("rb") as file:
        pyproject = tomllib.load(file)
    return {
        "": pyproject["project"]["dependencies"],
        **pyproject["project"].get("optional-dependencies", {}),
        # Hatchling asks for `editables` when it installs in place.
        "build": [*pyproject["build-system"]["requires"], "editables"],
    }


def missing(extras: Sequence[str]) -> Iterator[str]:
    """What the project with `extras` lacks in this interpreter's environment."""
    spec = importlib.util.find_spec("distsgd")
    if not (spec and spec.origin and Path(spec.origin).resolve().is_relative_to(ROOT)):
        yield "distsgd itself, from this directory"
    find = finder()
    roots = project()
    for need in needs([r for e in ("", *extras) for r in roots[e]], "distsgd", find=find):
        found, wanted = find(need.name), need.requirement
        if found is None:
            yield f"{need.name}{wanted.specifier}, needed by {need.of}: not installed"
        elif not wanted.specifier.contains(found.version, prereleases=True):
            yield f"{need.name}{wanted.specifier}, needed by {need.of}: found {found.version}"


if __name__ == "__main__":
    lacks = dict.fromkeys(missing(sys.argv[1:]))
    sys.stdout.writelines(f"{line}\n" for line in lacks)
    sys.exit(bool(lacks))
