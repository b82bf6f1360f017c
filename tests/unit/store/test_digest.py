from pathlib import Path
from typing import Any

import numpy as np
import pytest
from blake3 import blake3
from numpy.typing import NDArray

from distsgd.errors import CheckpointError
from distsgd.store import DigestChain, DigestLog, DigestRow, weights_digest


def test_digest_chain_is_its_formula() -> None:
    chain, value = DigestChain(), bytes(32)
    assert chain.value == value.hex()
    for step in (0, 100, 2**40):
        weights = np.arange(7, dtype=np.float32) + step
        value = blake3(value + step.to_bytes(8, "little") + weights.tobytes()).digest()
        assert chain.extend(step, weights) == value.hex() == chain.value


def test_digest_chain_goes_on_from_its_value() -> None:
    weights = np.ones(5)
    chain = DigestChain()
    chain.extend(1, weights)
    assert DigestChain(chain.value).extend(2, weights) == chain.extend(2, weights)


def test_digest_tells_steps_weights_signs_of_zero_and_dtypes_apart() -> None:
    zeros = np.zeros(4, np.float32)
    cases: list[tuple[int, NDArray[Any]]] = [
        (1, zeros),
        (2, zeros),
        (1, -zeros),
        (1, zeros.astype(np.float64)),
        (1, zeros[:3]),
    ]
    assert len({DigestChain().extend(*case) for case in cases}) == len(cases)


def test_digest_of_a_view_is_that_of_its_bytes_in_order() -> None:
    table = np.arange(12.0).reshape(3, 4)
    assert weights_digest(table[:, 1]) == weights_digest(table[:, 1].copy())
    assert weights_digest(table) == blake3(table.tobytes()).hexdigest()
    assert weights_digest(table[:0]) == blake3(b"").hexdigest()


@pytest.mark.parametrize("value", ["", "0" * 63, "g" * 64, "A" * 64, "0" * 64 + "\n"])
def test_digest_chain_refuses_a_value_that_is_none(value: str) -> None:
    with pytest.raises(CheckpointError, match="must be 64 hexadecimal digits"):
        DigestChain(value)


def test_digest_log_keeps_what_was_flushed(tmp_path: Path) -> None:
    log = DigestLog(tmp_path / "digests.jsonl")
    assert log.read() == ()
    log.flush()
    assert not (tmp_path / "digests.jsonl").exists()
    log.append(100, "a" * 64)
    assert log.read() == ()
    log.flush()
    log.append(200, "b" * 64)
    log.flush()
    log.flush()
    assert log.read() == (DigestRow(100, "a" * 64), DigestRow(200, "b" * 64))
    assert (tmp_path / "digests.jsonl").stat().st_mode & 0o777 == 0o600


def test_digest_log_drops_what_lies_beyond_a_step(tmp_path: Path) -> None:
    log = DigestLog(tmp_path / "digests.jsonl")
    for step in (100, 200, 300):
        log.append(step, "a" * 64)
    log.flush()
    log.append(400, "b" * 64)
    log.drop_after(200)
    log.append(300, "c" * 64)
    log.flush()
    assert [(row.step, row.digest[0]) for row in log.read()] == [
        (100, "a"),
        (200, "a"),
        (300, "c"),
    ]


def test_digest_log_passes_over_a_line_that_was_cut_off_and_then_removes_it(tmp_path: Path) -> None:
    path = tmp_path / "digests.jsonl"
    log = DigestLog(path)
    log.append(1, "a" * 64)
    log.flush()
    whole = path.read_bytes()
    for cut in range(len(whole)):
        path.write_bytes(whole + whole[:cut].replace(b"1", b"2", 1))
        assert [row.step for row in log.read()] == [1]
        log.drop_after(1)
        log.append(3, "c" * 64)
        log.flush()
        assert [row.step for row in log.read()] == [1, 3]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{}", "line 2: its step is None; must be an integer above 5"),
        ('{"step": 5, "digest": "%s"}' % ("a" * 64), "line 2: its step is 5; must be"),
        ('{"step": true, "digest": "%s"}' % ("a" * 64), "line 2: its step is True"),
        ('{"step": 6, "digest": "abc"}', "line 2: digest is 'abc'; must be 64"),
        ('{"step": 6, "digest": "%s"}}' % ("a" * 64), "line 2: is not JSON"),
        ("", "line 2: is not JSON"),
        ("[6]", "line 2: its step is None"),
    ],
)
def test_digest_log_names_a_damaged_line(tmp_path: Path, line: str, reason: str) -> None:
    path = tmp_path / "digests.jsonl"
    log = DigestLog(path)
    log.append(5, "a" * 64)
    log.flush()
    with path.open("a") as file:
        file.write(line + "\n")
    with pytest.raises(CheckpointError, match=f"digests.jsonl: {reason}"):
        log.read()
