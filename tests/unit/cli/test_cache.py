"""The cache for the command line: its place, its commands, the commands that use it."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from distsgd.data.dataset import DataSet

Command = Callable[..., tuple[int, str, str]]
TRAIN = ("train", "digits.toml", "--workers", "0", "--quiet", "--set", "train.steps=5")


@pytest.fixture(autouse=True)
def example(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    command("init", "digits")


def entries(place: Path) -> list[Path]:
    return [path for path in place.iterdir() if path.is_dir()]


@pytest.mark.parametrize(
    ("words", "xdg", "place"),
    [
        ((), None, "home/.cache/distsgd"),
        ((), "", "home/.cache/distsgd"),
        ((), "caches", "caches/distsgd"),
        (("--cache-dir", "mine"), "caches", "mine"),
    ],
)
def test_data_are_prepared_where_the_user_says_or_keeps_caches(
    command: Command,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: tuple[str, ...],
    xdg: str | None,
    place: str,
) -> None:
    if xdg is not None:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / xdg) if xdg else "")
    assert command(*TRAIN, "--run-dir", "run", *words)[0] == 0
    assert len(entries(tmp_path / place)) == 1
    for again in (("evaluate", "run"), ("verify", "run"), (*TRAIN, "--dry-run")):
        code, _, err = command(*again, *words)
        assert code == 0, err
        assert "preparing" not in err
    assert json.loads(command("cache", "list", "--json", *words)[1])["cache_dir"] == str(
        Path(place) if words else tmp_path / place
    )
    made = [tmp_path / name for name in ("mine", "home", "caches")]
    assert sum(path.exists() for path in made) == 1


def test_list_then_clear_say_what_is_there_and_what_went(command: Command, tmp_path: Path) -> None:
    assert "holds 0 entries, 0 B" in command("cache", "list")[2]
    command(*TRAIN, "--run-dir", "one")
    command(*TRAIN, "--run-dir", "two", "--set", "data.split_seed=1")
    first, second = sorted(entries(tmp_path / "home/.cache/distsgd"))
    code, out, err = command("cache", "list")
    assert code == 0
    assert f"{first.name[:12]} " in out
    assert "1,797" in out
    assert "holds 2 entries" in err
    data = DataSet.open(second)
    code, out, err = command("cache", "clear", "--json")
    assert code == 0
    assert f"{second.name} is in use; it stays" in err
    assert "removed 1 entry, freed " in err
    values = json.loads(out)
    assert (values["removed"], values["in_use"]) == ([first.name], [second.name])
    assert "in use" in command("cache", "list")[1]
    del data
    then = second.stat().st_mtime - 3 * 86_400
    os.utime(second, (then, then))
    assert "removed 0 entries" in command("cache", "clear", "--older-than", "4")[2]
    assert "removed 1 entry" in command("cache", "clear", "--older-than", "2")[2]


def test_clear_of_what_is_no_entry_ends_with_three(command: Command) -> None:
    code, _, err = command("cache", "clear", "abc")
    assert code == 3
    assert "has no entry 'abc'; its entries are: none" in err


def test_cache_size_is_kept_and_said(command: Command, tmp_path: Path) -> None:
    command(*TRAIN, "--run-dir", "one")
    (old,) = entries(tmp_path / "home/.cache/distsgd")
    os.utime(old, (0, 0))
    words = ["--set", "data.split_seed=1", "--set", "data.cache_size_gb=0.000001"]
    code, _, err = command(*(word for word in TRAIN if word != "--quiet"), *words)
    assert code == 0
    assert f"removed {old} from the cache" in err.replace("\n", "")
    assert not old.exists()
    assert len(entries(old.parent)) == 1
