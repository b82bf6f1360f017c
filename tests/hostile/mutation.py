"""Ways to damage a file: blindly (bytes) or knowingly (JSON values), each from a seeded chance."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

Chance = np.random.Generator

# Numbers that sizes, counts and offsets are forged to.
_FORGED = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 2**24, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1)
_LARGE = 10**400
ODD_VALUES: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    2**31,
    2**63,
    2**64,
    _LARGE,
    -0.0,
    1e308,
    1e-320,
    "",
    "x" * 10_000,
    "..",
    "../../etc/passwd",
    "/etc/passwd",
    "a\0b",
    "\ud7ff\u202e",
    "nan",
    [],
    [[]],
    [None],
    [1e308] * 3,
    ["../x", "/x"],
    {},
    {"": None},
    {"step": -1},
)


def _truncated(data: bytes, _: Sequence[bytes], chance: Chance) -> bytes:
    return data[: int(chance.integers(len(data)))]


def _flipped(data: bytes, _: Sequence[bytes], chance: Chance) -> bytes:
    damaged = bytearray(data)
    for _flip in range(int(chance.integers(1, 9))):
        damaged[int(chance.integers(len(damaged)))] ^= 1 << int(chance.integers(8))
    return bytes(damaged)


def _flipped_near_an_end(data: bytes, _: Sequence[bytes], chance: Chance) -> bytes:
    """Headers and footers hold what decides about everything else."""
    damaged = bytearray(data)
    near = min(len(data), int(2 ** chance.integers(3, 11)))
    for _flip in range(int(chance.integers(1, 5))):
        at = int(chance.integers(near))
        damaged[at if chance.integers(2) else -1 - at] = int(chance.integers(256))
    return bytes(damaged)


def _forged_number(data: bytes, _: Sequence[bytes], chance: Chance) -> bytes:
    value = _FORGED[int(chance.integers(len(_FORGED)))]
    code = ("<I", ">I", "<Q", ">Q", "<H", "<B")[int(chance.integers(6))]
    width = struct.calcsize(code)
    packed = struct.pack(code, value % 2 ** (8 * width))
    near = min(len(data), int(2 ** chance.integers(3, 17)))
    at = int(chance.integers(near))
    at = at if chance.integers(2) else max(0, len(data) - 1 - at)
    return data[:at] + packed + data[at + width :]


def _spliced(data: bytes, others: Sequence[bytes], chance: Chance) -> bytes:
    other = others[int(chance.integers(len(others)))]
    cut, start = int(chance.integers(len(data) + 1)), int(chance.integers(len(other) + 1))
    return data[:cut] + other[start:]


def _repeated(data: bytes, _: Sequence[bytes], chance: Chance) -> bytes:
    first, last = sorted(chance.integers(len(data) + 1, size=2).tolist())
    return data[:last] + data[first:last] * int(chance.integers(1, 20)) + data[last:]


def _cut_out(data: bytes, _: Sequence[bytes], chance: Chance) -> bytes:
    first, last = sorted(chance.integers(len(data) + 1, size=2).tolist())
    return data[:first] + data[last:]


def _zeroed(data: bytes, _: Sequence[bytes], chance: Chance) -> bytes:
    first, last = sorted(chance.integers(len(data) + 1, size=2).tolist())
    return data[:first] + bytes(last - first) + data[last:]


def _noise(data: bytes, _: Sequence[bytes], chance: Chance) -> bytes:
    at = int(chance.integers(len(data) + 1))
    noise = chance.bytes(int(chance.integers(1, 200)))
    return data[:at] + noise + data[at + int(chance.integers(2)) * len(noise) :]


_BLIND: tuple[Callable[[bytes, Sequence[bytes], Chance], bytes], ...] = (
    _truncated,
    _flipped,
    _flipped_near_an_end,
    _flipped_near_an_end,
    _forged_number,
    _forged_number,
    _spliced,
    _repeated,
    _cut_out,
    _zeroed,
    _noise,
)


def damaged_bytes(data: bytes, others: Sequence[bytes], chance: Chance) -> bytes:
    """`data` after one to three blind damages; `others` are files to splice it with."""
    for _ in range(int(chance.choice([1, 1, 1, 2, 3]))):
        if data:
            data = _BLIND[int(chance.integers(len(_BLIND)))](data, others, chance)
    return data


def damaged_json(data: bytes, chance: Chance) -> bytes:
    """The JSON `data` with one to three of its values forged, moved, renamed or removed."""
    value = json.loads(data)
    for _ in range(int(chance.choice([1, 1, 1, 2, 3]))):
        _forge_inplace(value, chance)
    # Python's own digits limit would keep the largest number from being written.
    try:
        text = json.dumps(value)
    except RecursionError:  # Nestings within nestings.
        return data
    text = text.replace('"LARGE"', "1" + "0" * 400)
    if chance.integers(50) == 0:
        text = text.replace("null", "[" * 100_000 + "]" * 100_000, 1)
    return text.encode()


def _forge_inplace(value: Any, chance: Chance) -> None:
    places = list(_places(value))
    if not places:
        return
    container, key = places[int(chance.integers(len(places)))]
    deed = int(chance.integers(10))
    if deed == 0:
        del container[key]
    elif deed == 1 and isinstance(container, dict):
        container[f"{key}x"] = container.pop(key)
    elif deed == 2:
        other, at = places[int(chance.integers(len(places)))]
        container[key] = json.loads(json.dumps(other[at])) if at in _keys(other) else None
    elif deed == 3:
        nested: Any = 1
        for _ in range(int(chance.choice([3, 40, 300]))):
            nested = [nested] if chance.integers(2) else {"a": nested}
        container[key] = nested
    elif deed == 4 and isinstance(container[key], int | float):
        container[key] = container[key] * float(chance.choice([-1, 0.5, 2, 1e18])) + 1
    else:
        odd = ODD_VALUES[int(chance.integers(len(ODD_VALUES)))]
        container[key] = "LARGE" if odd == _LARGE else json.loads(json.dumps(odd))


def _places(value: Any) -> Any:
    for key in _keys(value):
        yield value, key
        yield from _places(value[key])


def _keys(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value)
    return list(range(len(value))) if isinstance(value, list) else []
