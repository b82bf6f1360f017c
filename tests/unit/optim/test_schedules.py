import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distsgd.base.settings import keys_of
from distsgd.optim.schedules import SCHEDULES, Constant, Cosine, Schedule, Step


@pytest.mark.parametrize(
    "schedule",
    [
        Constant(0.4, warmup_steps=4),
        Step(0.4, every_steps=3, factor=0.5, warmup_steps=4),
        Cosine(0.4, total_steps=20, warmup_steps=4),
    ],
)
def test_schedule_warms_up_linearly_to_the_whole_rate(schedule: Schedule) -> None:
    assert [schedule.rate(step) for step in range(4)] == pytest.approx([0.1, 0.2, 0.3, 0.4])
    assert schedule.rate(3) == 0.4
    assert schedule.rate(4) == 0.4


@pytest.mark.parametrize("warmup_steps", [0, 1])
def test_schedule_without_warmup_starts_with_the_whole_rate(warmup_steps: int) -> None:
    assert Constant(0.3, warmup_steps).rate(0) == 0.3
    assert Step(0.3, 5, 0.1, warmup_steps).rate(0) == 0.3
    assert Cosine(0.3, 5, 0.0, warmup_steps).rate(0) == 0.3


def test_step_drops_after_every_so_many_updates_since_the_warmup() -> None:
    schedule = Step(1.0, every_steps=3, factor=0.5, warmup_steps=2)
    assert [schedule.rate(step) for step in range(9)] == [0.5, 1, 1, 1, 1, 0.5, 0.5, 0.5, 0.25]


def test_cosine_is_half_a_cosine_and_stays_at_its_last_value() -> None:
    schedule = Cosine(2.0, total_steps=10, final_fraction=0.1, warmup_steps=2)
    for step in range(2, 10):
        expected = 0.2 + 1.8 * (1 + math.cos(math.pi * (step - 2) / 8)) / 2
        assert schedule.rate(step) == pytest.approx(expected, rel=1e-14)
    assert schedule.rate(10) == schedule.rate(1_000_000) == pytest.approx(0.2)


@given(
    total=st.integers(0, 30),
    warmup=st.integers(0, 40),
    step=st.integers(0, 60),
    final=st.floats(0.0, 1.0),
)
def test_cosine_stays_between_zero_and_the_whole_rate(
    total: int, warmup: int, step: int, final: float
) -> None:
    assert 0.0 <= Cosine(0.5, total, final, warmup).rate(step) <= 0.5 * (1 + 1e-15)


def test_keys_of_a_schedule_are_its_settings_and_not_what_the_run_gives() -> None:
    keys = {name: list(keys_of(schedule)) for name, schedule in SCHEDULES.items()}
    assert keys == {
        "constant": ["warmup_steps"],
        "step": ["every_steps", "factor", "warmup_steps"],
        "cosine": ["final_fraction", "warmup_steps"],
    }
    assert [name for name, key in keys_of(Step).items() if key.is_needed] == ["every_steps"]
