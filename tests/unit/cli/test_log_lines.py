"""What a job says reaches people whole, whatever pieces it comes in, without a program's lines."""

from __future__ import annotations

import pytest

from distsgd.cli.terminal.log_lines import LogLines

OBJECT = '{"status": "failed", "error": "a\\nb"}'


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
@pytest.mark.parametrize(
    ("said", "shown"),
    [
        (f"step 1\n{OBJECT}\nstep 2\n", "step 1\nstep 2\n"),
        (f"{OBJECT}\n{OBJECT}", ""),
        ("step 1\n\nno end", "step 1\n\nno end"),
        ('{"of": "another"}\n{"status\n[1]\n', '{"of": "another"}\n{"status\n[1]\n'),
        ("", ""),
    ],
)
def test_lines_for_programs_are_left_out(said: str, shown: str, size: int) -> None:
    written: list[str] = []
    lines = LogLines(written.append)
    for first in range(0, len(said), size):
        lines(said[first : first + size])
    lines.end()
    assert "".join(written) == shown
