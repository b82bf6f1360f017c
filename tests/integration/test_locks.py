"""The locks install today and in a year, with every pip that a Python of ours bundles.

A lock that pins a package without the extras with which another requires it is refused by pip 23.2
from the day on which that package has a newer release.
"""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
import zipfile
from collections import defaultdict
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from scripts.lock import ENVIRONMENTS, TORCH, Lock, cut, project_locks
from scripts.requirements import finder
from tests.integration.tiny_index import (
    ROOT,
    environment,
    oldest_pip,
    pin,
    pip_that_runs,
    write_wheel,
)

LOCKS = tuple(f"requirements{it}.lock" for it in ("", "-plots", "-cluster", "-test"))
MODELS = "requirements-models.lock"
EXTRAS = ("toml", "xml")
IN_EXTRAS = ('tomlish; extra == "toml"', 'xmlish; extra == "xml"')

# Who requires `cover`, and how. `top` is what the lock is for.
WAYS = {
    "one extra": {"top": ["cover[toml]>=1"]},
    "two sets of extras": {"top": ["cover[toml]>=1", "beside"], "beside": ["cover[xml,toml]>=1"]},
    "two sets, the larger first": {
        "top": ["cover[toml,xml]>=1", "beside"],
        "beside": ["cover[toml]>=1"],
    },
    "also without": {"top": ["cover>=1", "beside"], "beside": ["cover[toml]>=1"]},
    "also without, later": {"top": ["cover[toml]>=1", "beside"], "beside": ["cover>=1"]},
    "an extra that requires an extra": {
        "top": ["beside[more]"],
        "beside": ["cover[toml]; extra == 'more'"],
    },
    "on another Python too": {"top": ["cover[toml]>=1; python_version >= '3.0'"]},
    "spelled otherwise": {"top": ["Cover[TOML]>=1"]},
}


def released(index: Path, requires: dict[str, list[str]]) -> str:
    """The first release of every package; what pip-compile writes of them, without extras."""
    wheels = [
        write_wheel(index, name, "1.0", requires.get(name, ()), ["more"])
        for name in ("top", "beside", "tomlish", "xmlish")
    ]
    cover = write_wheel(index, "cover", "1.0", IN_EXTRAS, EXTRAS)
    return "# a head\n" + "".join(map(pin, sorted([*wheels, cover])))


def lock_by_our_rule(compiled: str, index: Path, work: Path) -> str:
    """What scripts/lock makes of `compiled`, with the packages' own metadata."""
    for wheel in index.glob("*.whl"):
        zipfile.ZipFile(wheel).extractall(work)
    return cut(compiled, {"lock": Lock("", ["top"])}, find=finder([str(work)]))["lock"]


def install(lock: str, index: Path, place: Path, *pips: Path) -> subprocess.CompletedProcess[str]:
    place.mkdir()
    (place / "lock").write_text(lock)
    command = ["-m", "pip", "install", "--require-hashes", "--target", "there", "-r", "lock"]
    return subprocess.run(
        [sys.executable, *command],
        cwd=place,
        env=environment(place, index, *pips),
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )


@pytest.mark.parametrize("way", WAYS)
def test_lock_installs_with_the_oldest_pip_after_a_newer_release(tmp_path: Path, way: str) -> None:
    pip = pip_that_runs(oldest_pip())
    index = tmp_path / "index"
    index.mkdir()
    compiled = released(index, WAYS[way])
    lock = lock_by_our_rule(compiled, index, tmp_path / "extracted")
    for name in ("cover", "beside", "tomlish", "xmlish"):
        write_wheel(index, name, "2.0", IN_EXTRAS if name == "cover" else (), EXTRAS)
    done = install(lock, index, tmp_path / "ours", pip)
    assert done.returncode == 0, done.stderr
    assert "cover-1.0" in done.stdout


def test_lock_without_extras_is_what_the_oldest_pip_refuses(tmp_path: Path) -> None:
    pip = pip_that_runs(oldest_pip())
    (index := tmp_path / "index").mkdir()
    compiled = released(index, WAYS["also without"])
    write_wheel(index, "cover", "2.0", IN_EXTRAS, EXTRAS)
    stripped = install(compiled, index, tmp_path / "stripped", pip)
    assert stripped.returncode != 0
    assert "all requirements must have their versions pinned" in stripped.stderr
    assert re.search(r"cover-2\.0-py3-none-any", stripped.stderr)


@pytest.mark.parametrize("way", ["two sets of extras", "also without"])
def test_lock_installs_with_the_pip_of_this_environment(tmp_path: Path, way: str) -> None:
    (index := tmp_path / "index").mkdir()
    lock = lock_by_our_rule(released(index, WAYS[way]), index, tmp_path / "extracted")
    write_wheel(index, "cover", "2.0", IN_EXTRAS, EXTRAS)
    done = install(lock, index, tmp_path / "ours")
    assert done.returncode == 0, done.stderr
    assert "cover-1.0" in done.stdout


def test_lock_is_not_made_where_something_required_is_not_pinned(tmp_path: Path) -> None:
    (index := tmp_path / "index").mkdir()
    compiled = released(index, {"top": ["later; python_version >= '3.14'"]})
    with pytest.raises(LookupError, match=r"top requires later.*which is not pinned"):
        lock_by_our_rule(compiled, index, tmp_path / "extracted")


def test_lock_holds_what_those_that_it_is_installed_with_do_not(tmp_path: Path) -> None:
    (index := tmp_path / "index").mkdir()
    compiled = released(index, {"top": ["tomlish"], "beside": ["cover[toml]", "tomlish"]})
    for wheel in index.glob("*.whl"):
        zipfile.ZipFile(wheel).extractall(tmp_path / "extracted")
    locks = {
        "first": Lock("one", ["top"]),
        "second": Lock("two", ["beside"], ["first"]),
        "other": Lock("three", ["beside"]),
    }
    texts = cut(compiled, locks, find=finder([str(tmp_path / "extracted")]))
    names = {file: re.findall(r"^(\S+)==", text, re.MULTILINE) for file, text in texts.items()}
    assert names == {
        "first": ["tomlish", "top"],
        "second": ["beside", "cover[toml]"],
        "other": ["beside", "cover[toml]", "tomlish"],
    }


# Of here on: the locks of this project.

PIN = re.compile(
    r"^(?P<name>[a-z0-9][a-z0-9._-]*)(?:\[(?P<extras>[^]]+)\])?==(?P<version>[^ ;]+)"
    r'(?P<marker> ; extra == "oldest-pip")? \\$',
    re.IGNORECASE,
)


def pinned(*files: str) -> dict[str, dict[frozenset[str], str]]:
    """Versions by name and set of extras, of several locks together."""
    found: dict[str, dict[frozenset[str], str]] = defaultdict(dict)
    for file in files:
        for line in (ROOT / file).read_text().splitlines():
            if match := PIN.match(line):
                extras = frozenset((match["extras"] or "").split(",")) - {""}
                found[canonicalize_name(match["name"])][extras] = match["version"]
    return found


@pytest.mark.parametrize("file", [*LOCKS, MODELS])
def test_lock_holds_nothing_but_pins_with_hashes(file: str) -> None:
    lines = (ROOT / file).read_text().splitlines()
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        if re.fullmatch(r"|\s*#.*", line):
            assert "://" not in line
        elif PIN.match(line):
            assert following.startswith("    --hash=sha256:"), line
        else:
            assert re.fullmatch(r"    --hash=sha256:[0-9a-f]{64}(?: \\)?", line), line


def test_locks_agree_on_versions() -> None:
    every = pinned(*LOCKS, MODELS)
    assert {len(set(versions.values())) for versions in every.values()} == {1}


@pytest.mark.parametrize("files", [LOCKS[:1], LOCKS[:2], LOCKS, (LOCKS[0], MODELS)])
def test_locks_are_whole_and_pin_extras_as_others_require_them(files: tuple[str, ...]) -> None:
    if MODELS in files and not finder()("torch"):
        pytest.skip("torch is not installed: scripts/env --with torch,jax")
    locked = pinned(*files)
    looked_at = 0
    for distribution in importlib.metadata.distributions():
        name = canonicalize_name(distribution.metadata["Name"])
        if distribution.version not in locked.get(name, {}).values():
            continue
        looked_at += 1
        for text in distribution.requires or ():
            required = Requirement(text)
            values = [
                {"python_version": python, "python_full_version": f"{python}.0", "extra": extra}
                for python in ("3.11", "3.12", "3.13", "3.14")
                for extra in {"", *(extra for extras in locked[name] for extra in extras)}
            ]
            if required.marker is None or any(required.marker.evaluate(each) for each in values):
                there = locked.get(canonicalize_name(required.name), {})
                assert frozenset(required.extras) in there, f"{name} requires {text}"
                assert required.specifier.contains(next(iter(there.values())), prereleases=True)
    assert looked_at > 0.9 * len(locked) - 1


def test_product_lock_holds_nothing_of_tests_and_pictures() -> None:
    product, pictures = pinned(LOCKS[0]), pinned(LOCKS[1])
    assert not {"pytest", "hypothesis", "mypy", "ruff", "coverage", "matplotlib"} & product.keys()
    assert not {"torch", "jax", "jaxlib", "flax", "scipy"} & product.keys()
    assert {"numpy", "ray", "pyarrow", "hatchling", "editables"} <= product.keys()
    assert "matplotlib" in pictures
    assert not product.keys() & pictures.keys()


def test_models_lock_holds_torch_for_the_cpu_only_and_for_each_python() -> None:
    text, locked = (ROOT / MODELS).read_text(), pinned(MODELS)
    assert {"jax", "jaxlib", "flax"} <= locked.keys()
    assert not [name for name in locked if re.match(r"nvidia|cuda|triton|.*-cu\d+$", name)]
    assert TORCH in project_locks()[MODELS].roots
    (hashes,) = re.findall(rf"^{re.escape(TORCH)} \\\n((?: +--hash=.*\n)+)", text, re.MULTILINE)
    # PyTorch's index has no such build for macOS.
    assert hashes.count("sha256:") == sum(it["sys_platform"] == "linux" for it in ENVIRONMENTS)


@pytest.mark.parametrize("is_oldest", [True, False])
def test_lock_takes_the_build_that_it_names(tmp_path: Path, *, is_oldest: bool) -> None:
    pips = [pip_that_runs(oldest_pip())] if is_oldest else []
    (index := tmp_path / "index").mkdir()
    for version in ("2.13.0", "2.13.0+other", "2.14.0"):
        write_wheel(index, "torch", version, ["nvidia"])
    done = install(pin(write_wheel(index, "torch", "2.13.0+cpu")), index, tmp_path / "ours", *pips)
    assert done.returncode == 0, done.stderr
    assert "Successfully installed torch-2.13.0+cpu\n" in done.stdout


def test_test_lock_transports_nobodys_pip_and_names_the_oldest(tmp_path: Path) -> None:
    text = (ROOT / LOCKS[-1]).read_text()
    (line,) = [line for line in text.splitlines() if line.startswith("pip==")]
    assert line == 'pip==23.2.1 ; extra == "oldest-pip" \\'
    assert not any("pip" in pinned(file) for file in (*LOCKS[:-1], MODELS))
    (index := tmp_path / "index").mkdir()
    wheel = write_wheel(index, "pip", "23.2.1")
    done = install(pin(wheel, ' ; extra == "oldest-pip"'), index, tmp_path / "place")
    assert done.returncode == 0, done.stderr
    assert not list((tmp_path / "place").glob("there/*"))


def test_locks_are_made_for_the_python_versions_that_are_accepted() -> None:
    accepted = re.findall(r"Python :: (3\.\d+)", (ROOT / "pyproject.toml").read_text())
    assert accepted == list(dict.fromkeys(each["python_version"] for each in ENVIRONMENTS))
