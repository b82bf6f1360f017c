"""How the program ends in real processes: signals, closed pipes and terminals, two at one run."""

from __future__ import annotations

import json
import os
import pty
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from distsgd.store import read_history
from tests.integration.program import wait_until

# Every evaluation is a line, so that the first comes early in a run.
PROGRAM = (
    "from distsgd.cli.terminal import progress; progress.EVALUATION_EVERY_S = 0.0; "
    "from distsgd.__main__ import main; main()"
)
DISTSGD = [sys.executable, "-c", PROGRAM]
TRAIN = ["train", "digits.toml", "--workers", "0", "--set", "schedule.type=constant"]
LONG = ["--set", "train.epochs=4000"]  # Half a minute and more.
NUM_STEPS = 300 * 23
SHORT = ["--set", "train.epochs=300"]
SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]

pytestmark = pytest.mark.timeout(240)


@pytest.fixture(autouse=True)
def at_place(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)


def started(*words: str, **options: Any) -> subprocess.Popen[str]:
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([*DISTSGD, *words], text=True, **(pipes | options))


def said_until(stream: IO[str] | None, begins: str) -> None:
    assert stream is not None
    seen = []
    for line in stream:
        seen.append(line)
        if begins in line:
            return
    pytest.fail(f"never said {begins!r}: {''.join(seen)}")


def ended(process: subprocess.Popen[str]) -> tuple[int, dict[str, Any], str]:
    """Exit code, the object of the last line, what else was said."""
    out, said = process.communicate(timeout=200)
    lines = out.strip().splitlines()
    assert "Traceback" not in said
    return process.returncode, json.loads(lines[-1]) if lines else {}, said


def finished(*words: str) -> tuple[int, dict[str, Any], str]:
    return ended(started(*words))


@pytest.mark.parametrize("number", SIGNALS)
def test_each_signal_ends_training_with_a_checkpoint_and_a_command_that_goes_on(
    number: signal.Signals,
) -> None:
    process = started(*TRAIN, *LONG, "--run-dir", "a run", "--json")
    said_until(process.stderr, "step ")
    process.send_signal(number)
    code, values, said = ended(process)
    assert (code, values["status"]) == (6, "interrupted")
    assert values["steps"] > 0
    command = shlex.split(said.partition("resume with: ")[2].strip())
    assert command[0] == "distsgd"
    assert command[-2:] == ["--resume", "auto"]
    process = started(*command[1:])
    said_until(process.stderr, f"continuing after step {values['steps']}")
    process.send_signal(number)
    code, again, _ = ended(process)
    assert code == 6
    assert again["steps"] >= values["steps"]
    assert len(read_history(Path("a run/history"))) == again["steps"]


def test_ignored_hang_up_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # As nohup does; it is inherited.
    try:
        process = started(*TRAIN, *SHORT, "--run-dir", "run", "--json")
    finally:
        signal.signal(signal.SIGHUP, before)
    said_until(process.stderr, "step ")
    process.send_signal(signal.SIGHUP)
    code, values, _ = ended(process)
    assert (code, values["status"], values["steps"]) == (0, "done", NUM_STEPS)


def test_terminal_that_closes_ends_training_with_a_checkpoint() -> None:
    pid, master = pty.fork()
    if pid == 0:
        os.execv(sys.executable, [*DISTSGD, *TRAIN, *LONG, "--run-dir", "run"])  # noqa: S606
    shown = b""
    while b"step " not in shown:
        shown += os.read(master, 4096)
    os.close(master)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 6
    result = json.loads(Path("run/result.json").read_text())
    assert result["status"] == "interrupted"
    assert result["steps"] > 0


@pytest.mark.parametrize("streams", ["stderr", "both"])
def test_training_outlives_the_reader_of_its_pipe(streams: str) -> None:
    options: dict[str, Any] = {"stderr": subprocess.STDOUT} if streams == "both" else {}
    process = started(*TRAIN, *SHORT, "--run-dir", "run", "--json", **options)
    read = process.stdout if streams == "both" else process.stderr
    said_until(read, "step ")
    assert read is not None
    read.close()
    assert process.wait(timeout=200) == 0
    result = json.loads(Path("run/result.json").read_text())
    assert (result["status"], result["steps"]) == ("done", NUM_STEPS)
    if streams == "stderr":
        assert process.stdout is not None
        assert json.loads(process.stdout.read())["status"] == "done"
        process.stdout.close()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a run of 23 steps."""
    home = tmp_path_factory.mktemp("trained")
    words = "init digits && {0} train digits.toml --workers 0 --run-dir run --set train.epochs=1"
    script = f"{{0}} {words}".format(shlex.join(DISTSGD))
    environment = {**os.environ, "HOME": str(home)}
    subprocess.run(["bash", "-c", script], cwd=home, check=True, env=environment)
    return home


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("show run | head -1", 0),
        ("show run --json | true", 0),
        ("verify run 2>&1 | true", 0),
        ("--help | true", 0),
        ("show nothing 2>&1 | true", 2),
        ("show run >&-", 0),
        ("show run 2>&-", 0),
        ("train digits.toml --workers 0 --run-dir run 2>/dev/full", 2),
        ("show run >/dev/full", 4),
    ],
)
def test_closed_pipes_and_full_disks_change_no_exit_code_but_where_results_are_lost(
    trained: Path, words: str, code: int
) -> None:
    script = f'{shlex.join(DISTSGD)} {words}; exit "${{PIPESTATUS[0]}}"'
    shell = ["bash", "-c", script]
    done = subprocess.run(shell, cwd=trained, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert "Exception" not in done.stderr


def written_to_a_terminal(environment: dict[str, str], *words: str) -> bytes:
    pid, master = pty.fork()
    if pid == 0:
        os.execve(sys.executable, [*DISTSGD, *words], {**os.environ, **environment})  # noqa: S606
    shown = b""
    try:
        while part := os.read(master, 4096):
            shown += part
    except OSError:  # How Linux says that nobody writes there any more.
        pass
    os.close(master)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0, shown
    return shown


@pytest.mark.parametrize(
    ("environment", "screen"),
    [
        ({"TERM": "dumb"}, "plain"),
        ({"TERM": "xterm", "NO_COLOR": ""}, "redrawn"),
    ],
)
def test_terminal_that_cannot_redraw_gets_plain_lines(
    environment: dict[str, str], screen: str
) -> None:
    shown = written_to_a_terminal(environment, *TRAIN, *SHORT, "--run-dir", "run")
    assert (b"\x1b[" in shown) == (screen == "redrawn")
    if screen == "plain":
        steps = [int(n.replace(b",", b"")) for n in re.findall(rb"(?m)^step ([\d,]+)/", shown)]
        assert steps[-1] == NUM_STEPS
        assert len(steps) > 1
        assert steps == sorted(steps)


def test_verify_that_is_interrupted_gives_no_verdict() -> None:
    assert finished(*TRAIN, *SHORT, "--run-dir", "run")[0] == 0
    for number in SIGNALS:
        process = started("verify", "run", "--json")
        said_until(process.stderr, "step ")
        process.send_signal(number)
        code, values, said = ended(process)
        assert (code, values["status"], values["first_wrong_step"]) == (6, "interrupted", None)
        assert "nothing was found out about the run" in said
        assert "wrong" not in said


@pytest.fixture(scope="module")
def many_rows(trained: Path) -> Path:
    """The digits two hundred times, so that whatever reads them takes a while."""
    digits = pq.read_table(trained / "digits.parquet")
    path = trained / "many.parquet"
    pq.write_table(pa.concat_tables([digits] * 200), path)
    return path


@pytest.mark.parametrize(
    ("command", "number"),
    [("prepare", signal.SIGINT), ("prepare", signal.SIGHUP), ("predict", signal.SIGTERM)],
)
def test_command_that_is_interrupted_while_it_writes_leaves_nothing(
    place: Path, trained: Path, many_rows: Path, command: str, number: signal.Signals
) -> None:
    words = {
        "prepare": ["data", "prepare", str(many_rows), "--label", "digit", "--out", "out/a"],
        "predict": ["predict", str(trained / "run"), "--data", str(many_rows)],
    }[command]
    (place / "out").mkdir()
    process = started(*words, *([] if command == "prepare" else ["--out", "out/a.parquet"]))
    wait_until(lambda: list((place / "out").iterdir()), 60, "something half-written")
    process.send_signal(signal.SIGSTOP)
    assert all(path.name.startswith(".") for path in (place / "out").iterdir())
    process.send_signal(number)
    process.send_signal(signal.SIGCONT)
    code, _, said = ended(process)
    assert code == 6
    assert "interrupted" in said
    assert list((place / "out").iterdir()) == []


@pytest.fixture
def paused() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts training, and stops it (SIGSTOP) in the middle, while it has its run."""
    found: list[subprocess.Popen[str]] = []

    def start(*words: str) -> subprocess.Popen[str]:
        process = started(*TRAIN, *SHORT, "--run-dir", "run", "--json", *words)
        found.append(process)
        said_until(process.stderr, "step ")
        process.send_signal(signal.SIGSTOP)
        return process

    yield start
    for process in found:
        if process.poll() is None:
            process.kill()
            process.communicate()


def test_second_resume_that_waited_sees_that_there_is_nothing_to_do(
    paused: Callable[..., subprocess.Popen[str]],
) -> None:
    first = paused("--resume", "auto")
    second = started(*TRAIN, *SHORT, "--run-dir", "run", "--json", "--resume", "auto")
    said_until(second.stderr, "has this run; waiting")
    first.send_signal(signal.SIGCONT)
    code, values, _ = ended(first)
    assert (code, values["status"]) == (0, "done")
    written = Path("run/result.json").stat().st_mtime_ns
    code, again, said = ended(second)
    assert code == 0
    assert "is finished; nothing to do" in said
    assert "going on" not in said
    assert again == values
    assert Path("run/result.json").stat().st_mtime_ns == written


def test_second_plain_train_leaves_the_first_alone(
    paused: Callable[..., subprocess.Popen[str]],
) -> None:
    first = paused()
    plain = [*TRAIN, *SHORT, "--run-dir", "run", "--json"]
    code, values, said = finished(*plain)
    assert (code, values["status"]) == (2, "failed")
    assert "holds a run already" in said
    first.send_signal(signal.SIGCONT)
    assert ended(first)[0] == 0
    kept = Path("run/result.json").read_bytes()
    assert finished(*plain)[0] == 2
    assert Path("run/result.json").read_bytes() == kept


@pytest.mark.parametrize("resume", ["never", "auto"])
def test_of_two_that_start_at_once_one_trains(resume: str) -> None:
    words = [*TRAIN, *SHORT, "--run-dir", "run", "--json", "--resume", resume]
    both = [ended(process) for process in [started(*words), started(*words)]]
    codes = sorted(code for code, _, _ in both)
    assert codes == ([0, 2] if resume == "never" else [0, 0]), both
    done = [values for code, values, _ in both if code == 0]
    assert all(values == done[0] for values in done)
    assert read_history(Path("run/history"))["step"].to_pylist() == list(range(1, NUM_STEPS + 1))
