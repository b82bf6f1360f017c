"""Words, sizes and signs: each breach is found where it was planted, and sound code passes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HOUSE = Path(__file__).parents[3] / "scripts" / "house.py"
SOUND = '"""Adds: `total` of `distsgd.sums`."""\n\n\ndef total(a: int) -> int:\n    return a\n'


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for room in ("distsgd", "workers", "scripts", "tests"):
        (tmp_path / room).mkdir()
    (tmp_path / "distsgd" / "sums.py").write_text(SOUND)
    (tmp_path / "README.md").write_text("See `distsgd/sums.py` and `distsgd.sums.total(1)`.\n")
    return tmp_path


def checked(project: Path) -> tuple[int, list[str]]:
    done = subprocess.run(
        [sys.executable, str(HOUSE), str(project)], capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
    return done.returncode, done.stdout.splitlines()


def test_sound_project_passes_in_silence(project: Path) -> None:
    assert checked(project) == (0, [])


@pytest.mark.parametrize(
    ("planted", "line", "what"),
    [
        ("class Crew:\n    pass\n", 1, "Crew"),
        ("\nfrom distsgd import written_aside\n", 2, "written_aside"),
        ("import distsgd.chaos.plan\n", 1, "distsgd.chaos.plan"),
        ("def f(chaos: int) -> int:\n    return chaos\n", 1, "chaos"),
        ("x = 1\ny = x.HotAndCold\n", 2, "HotAndCold"),
        ('raise ValueError("the run goes on without it")\n', 1, '"goes on"'),
        ('x = f"{1} and whoever comes"\n', 1, '"whoever"'),
        ('"""Ends.\n\nAll that is\nthere.\n"""\n', 3, '"is there"'),
        ("x = 1\n" * 351, 1, "351 lines; at most 350"),
        ("def f() -> None:\n" + "    pass\n" * 55, 1, "f has 56 lines; at most 55"),
        ("def f(a, b, c, d, *, e, f, g, h, i): ...\n", 1, "f has 9 parameters; at most 8"),
        ("class A:\n    def __init__(self, a, b, c, d, e, f, g, h, i): ...\n", 2, "9 parameters"),
        ('"""See `nothing` there."""\n', 1, "`nothing` does not exist"),
        ('"""See\n`sums.nothing`."""\n', 2, "`sums.nothing` does not exist"),
        ('"""See `distsgd/none.py`."""\n', 1, "`distsgd/none.py` does not exist"),
    ],
)
def test_planted_breach_is_listed_with_its_line(
    project: Path, planted: str, line: int, what: str
) -> None:
    (project / "distsgd" / "planted.py").write_text(planted)
    code, found = checked(project)
    assert code == 1
    assert any(one.startswith(f"distsgd/planted.py:{line}: ") and what in one for one in found)


def test_file_of_an_old_name_is_found(project: Path) -> None:
    (project / "workers" / "roster.py").write_text("")
    assert checked(project)[0] == 1


@pytest.mark.parametrize(
    "sound",
    [
        "space = ideal = dealt = 1\n",
        "x = {'chaos': 1}  # A key of old files, in no name.\n",
        "def chaos() -> None:  # house: old name\n    pass\n",
        '"""Uses ``nothing`` of another library."""\n',
        "def f(self, cls, a, b, c, d, e, f, g, h): ...\n",
    ],
)
def test_what_only_looks_like_a_breach_passes(project: Path, sound: str) -> None:
    (project / "distsgd" / "sound.py").write_text(sound)
    assert checked(project) == (0, [])


def test_tests_are_held_to_sizes_and_constructors_alone(project: Path) -> None:
    many = "def test_it(a, b, c, d, e, f, g, h, i): ...\n"
    (project / "tests" / "test_it.py").write_text('"""Whoever goes on."""\n' + many)
    assert checked(project)[0] == 0
    (project / "tests" / "test_it.py").write_text(many * 351)
    assert checked(project)[0] == 1


def test_readme_that_names_a_file_which_is_gone_is_found(project: Path) -> None:
    (project / "README.md").write_text("one\n`distsgd/gone.py`\n`distsgd.gone`\n")
    code, found = checked(project)
    assert code == 1
    assert [one.split(" ")[0] for one in found] == ["README.md:2:", "README.md:3:"]
