"""What may stand in a setting, by type and bounds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import pytest

from distsgd.base.settings import Setting, count, wrong_settings


@dataclass(frozen=True)
class Oven:
    trays: Annotated[int, count("how many")]
    heat: Annotated[float, Setting("degrees", "above 0 and at most 300", gt=0, le=300)] = 180.0
    door: Annotated[bool, Setting("is it open", "true or false")] = False
    mode: Annotated[Literal["fan", "grill"] | None, Setting("how", '"fan", "grill"')] = None
    slots: Annotated[tuple[int, ...], Setting("heights", "a list", ge=1)] = (1,)
    name: str = "given by the program"


RIGHT: dict[str, list[Any]] = {
    "trays": [1, 10**9],
    "heat": [1, 0.5, 300, np.float32(2.0)],
    "door": [True, False],
    "mode": ["fan", "grill", None],
    "slots": [(1,), (3, 2, 1)],
    "name": [object()],
}
WRONG: dict[str, list[Any]] = {
    "trays": [0, -1, 1.0, True, "1", None, np.int64(1)],
    "heat": [0, 300.5, float("nan"), float("inf"), True, "1", None],
    "door": [0, 1, "true", None],
    "mode": ["", "Fan", 1, ()],
    "slots": [(), (0,), (1, 1.0), [1], 1],
}


@pytest.mark.parametrize(("name", "value"), [(n, v) for n, values in RIGHT.items() for v in values])
def test_value_of_its_type_and_within_bounds_is_right(name: str, value: object) -> None:
    assert not list(wrong_settings(Oven, {name: value}))


@pytest.mark.parametrize(("name", "value"), [(n, v) for n, values in WRONG.items() for v in values])
def test_value_of_another_type_or_beyond_a_bound_is_wrong(name: str, value: object) -> None:
    ((found, key),) = wrong_settings(Oven, {name: value})
    assert found == name
    assert key.setting.rule


def test_every_wrong_setting_is_found() -> None:
    found = wrong_settings(Oven, {"trays": 0, "heat": 20, "door": 1, "unknown": 3})
    assert [name for name, _ in found] == ["trays", "door"]
