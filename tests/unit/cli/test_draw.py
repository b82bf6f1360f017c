"""The commands ``draw ...`` and ``show --plots``: a file to look at, or what is wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("matplotlib", reason="needs the extra 'plots'")

Command = Callable[..., tuple[int, str, str]]
PNG = b"\x89PNG"


@pytest.fixture(autouse=True)
def trained(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run of 23 steps in the directory ``run``."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    command("init", "digits")
    words = ["--workers", "0", "--run-dir", "run", "--quiet", "--set", "train.epochs=1"]
    assert command("train", "digits.toml", *words)[0] == 0


@pytest.mark.parametrize(
    "words",
    [
        ("images", "digits.parquet", "--label", "digit"),
        ("images", "digits.parquet", "--label", "digit", "--rows", "1790:1800", "--shape", "4x16"),
        ("weights", "run"),
        ("weights", "run", "--layer", "1", "--shape", "8x8"),
        ("input-gradient", "run", "--data", "digits.parquet"),
        ("loss", "run", "--weight", "layers.1.weight[3,4]", "--steps", "5"),
        ("error", "run", "--weight", "layers.1.bias[0]", "--steps", "1"),  # The name before.
        ("histories", "run"),
        ("histories", "run", "run"),
    ],
)
def test_draw_writes_a_picture(command: Command, words: tuple[str, ...]) -> None:
    code, out, err = command("draw", *words, "--out", "pictures/a.png")
    assert (code, out, err) == (0, "", "wrote pictures/a.png\n")
    assert Path("pictures/a.png").read_bytes().startswith(PNG)


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("images", "digits.parquet"), 2, "which is no square; set --shape HxW, or leave a label"),
        (("images", "digits.parquet", "--label", "x"), 3, "has no label column 'x'"),
        (("images", "digits.parquet", "--rows", "5:5"), 2, "must be FIRST:END"),
        (("images", "digits.parquet", "--rows", "0:999"), 2, "of 1 to 100 rows"),
        (("images", "digits.parquet", "--rows", "5000:5001"), 3, "no row 5000"),
        (("weights", "run", "--shape", "7x8"), 2, "of 64 numbers in all"),
        (("weights", "run", "--layer", "7"), 2, "choose of: 0, 1"),
        (("weights", "nothing"), 2, "must be that of a run"),
        (("input-gradient", "run", "--data", "digits.parquet", "--rows", "a"), 2, "FIRST:END"),
        (
            ("input-gradient", "run", "--data", "digits.parquet", "--rows", "2000:2001"),
            3,
            "no row 2000",
        ),
        (("error", "run", "--weight", "w[0]"), 2, "the parameters are layers.0.weight [64, 64]"),
        (("error", "run", "--weight", "layers.0.bias[64]"), 2, "choose a place in it"),
    ],
)
def test_draw_says_what_cannot_be_drawn(
    command: Command, words: tuple[str, ...], code: int, message: str
) -> None:
    found, _, err = command("draw", *words, "--out", "a.png")
    assert found == code
    assert message in err
    assert "Traceback" not in err
    assert not Path("a.png").exists()


def test_steps_made_again_are_those_of_the_run(command: Command) -> None:
    import numpy as np

    from distsgd.lessons.inspect import steps_again
    from distsgd.run.run import Run

    saved = Run.open(Path("run"))
    weights_TP = steps_again(saved, saved.data(), max_steps=100)
    assert len(weights_TP) == 24
    assert np.array_equal(weights_TP[-1], saved.weights_P)
    assert command("draw", "histories", "run", "--out", "a.svg")[0] == 0


def test_a_circuit_is_drawn_as_text_and_as_svg(command: Command) -> None:
    words = ("draw", "circuit", "run", "--data", "digits.parquet", "--row", "3")
    code, out, _ = command(*words)
    assert code == 0
    assert {"layers.1.bias", "relu", "loss"} <= set(out.split())
    assert command(*words, "--out", "a.svg")[0] == 0
    assert Path("a.svg").read_text().startswith("<svg")
    assert command(*words, "--out", "a.png")[0] == 2
    assert command(*words[:-1], "9999")[0] == 3


def test_show_with_plots_draws_how_the_run_went(command: Command) -> None:
    assert command("show", "run")[2] == ""
    assert not Path("run/plots").exists()
    code, _, err = command("show", "run", "--plots")
    names = ["accuracy.png", "gradient_norm.png", "loss.png", "noise_scale.png"]
    assert code == 0
    assert sorted(path.name for path in Path("run/plots").iterdir()) == names
    assert all(name in err for name in names)
