"""``experiment compare``: its table, its files, its exit codes."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def trained(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs "one", "two" with another batch size, and "again", as "one"."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    command("init", "digits")
    for name, size in (("one", 64), ("two", 256), ("again", 64)):
        words = ["--workers", "0", "--run-dir", name, "--quiet", "--set", "train.epochs=2"]
        code, _, err = command("train", "digits.toml", *words, "--set", f"batch.size={size}")
        assert (code, err) == (0, "")


def test_compare_prints_tables_and_says_what_was_found(command: Command) -> None:
    target = "test_accuracy>=0.9"
    code, out, err = command("experiment", "compare", "one", "two", "again", "--target", target)
    assert code == 0
    lines = [line.split() for line in out.splitlines()]
    assert ["run", "one", "two", "again"] in lines
    assert ["batch.size", "64", "256", "64"] in lines
    assert any(line[:3] == ["samples", "to", "target"] for line in lines)
    assert "environments that differ" not in out
    assert "The configurations differ in batch.size." in err
    assert "A and C have the same configuration and data: 1 digest compared, equal." in err


def test_compare_writes_the_object_that_it_prints(command: Command) -> None:
    code, out, err = command("experiment", "compare", "one", "two", "--out", "found", "--json")
    assert code == 0
    (line,) = out.splitlines()
    assert json.loads(line) == json.loads(Path("found/compare.json").read_text())
    assert "<title>Comparison of 2 runs</title>" in Path("found/compare.html").read_text()
    assert err.splitlines() == ["wrote found/compare.html", "wrote found/compare.json"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("one",), "one RUN is given; must be two or more"),
        (("one", "./one"), "RUN one is given twice"),
        (("one", "home"), "home"),
        (("one", "digits.toml"), "digits.toml: is no directory"),
        (("one", "two", "--target", "loss<=1"), '--target is "loss<=1"; must be'),
    ],
)
def test_compare_refuses_what_it_cannot_compare(
    command: Command, words: tuple[str, ...], message: str
) -> None:
    code, out, err = command("experiment", "compare", *words, "--out", "found", "--json")
    assert code == 2
    assert message in " ".join(err.split())
    assert "Traceback" not in err
    told = json.loads(out)
    assert (told["status"], told["exit_code"]) == ("failed", 2)
    assert not Path("found").exists()
