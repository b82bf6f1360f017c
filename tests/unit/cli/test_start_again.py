"""A command that starts again in its own place leaves nothing of its first beginning."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

PROGRAM = """
import os, tempfile
from pathlib import Path
from distsgd.base.private_directories import directory_of
from distsgd.cli.terminal.start_again import StartAgain

class Owner:
    pass

def begin():
    owner = Owner()
    directory_of(owner, "held")
    raise StartAgain({"AGAIN": "1"})

if "AGAIN" in os.environ:
    print([path.name for path in Path(tempfile.gettempdir()).iterdir()])
else:
    try:
        begin()
    except StartAgain as again:
        again.replace_process()
"""


def test_what_the_command_held_is_gone_when_it_starts_again(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=os.environ | {"TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout == "[]\n"
