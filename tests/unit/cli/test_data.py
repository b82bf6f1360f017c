"""The commands on data: what they print, how they end."""

from collections.abc import Callable
from pathlib import Path

DIGITS = str(Path(__file__).parents[3] / "distsgd" / "examples" / "digits.parquet")


Command = Callable[..., tuple[int, str, str]]


def test_prepare_then_check_hold_the_rows_of_digits(command: Command, tmp_path: Path) -> None:
    out = str(tmp_path / "prepared")
    words = ["data", "prepare", DIGITS, "--label", "digit", "--test-fraction", "0.2", "--out", out]
    code, said, _ = command(*words)
    assert code == 0
    assert "10 classes (0, 1, 2, 3, 4, 5, 6, 7, 8, 9)" in said
    code, said_again, err = command("data", "check", out)
    assert (code, said_again) == (0, said)
    assert "can be used" in err


def test_check_of_a_raw_file_lists_its_columns(command: Command) -> None:
    code, out, _ = command("data", "check", DIGITS)
    assert code == 0
    assert "1,797" in out
    assert "pixel_63" in out


def test_missing_file_ends_with_three_and_is_named_once(command: Command, tmp_path: Path) -> None:
    path = str(tmp_path / "none.parquet")
    code, _, err = command("data", "check", path)
    assert code == 3
    assert err.replace("\n", "").count(path) == 1


def test_missing_label_column_ends_with_three_and_leaves_nothing(
    command: Command, tmp_path: Path
) -> None:
    out = tmp_path / "prepared"
    words = ["data", "prepare", DIGITS, "--label", "letter", "--out", str(out)]
    code, _, err = command(*words)
    assert code == 3
    assert "letter" in err
    assert list(tmp_path.iterdir()) == []


def test_wrong_test_fraction_ends_with_two(command: Command, tmp_path: Path) -> None:
    out = str(tmp_path / "prepared")
    words = ["data", "prepare", DIGITS, "--label", "digit", "--test-fraction", "1.5", "--out", out]
    assert command(*words)[0] == 2
