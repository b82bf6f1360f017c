"""What ``[parallel]`` cannot be: each mistake is told, with value, rule and way out."""

from __future__ import annotations

from typing import Any

import pytest

from distsgd.lab.faults.injection import NAME as INJECTION
from tests.unit.config.test_train_config import least, problems_of


def injected(*faults: str) -> dict[str, Any]:
    return {"observer": INJECTION, "observer_options": {"faults": [*faults]}}


def test_every_line_that_is_no_fault_is_told_at_once_and_with_other_mistakes() -> None:
    sections = {"parallel": injected("kill everybody", "nonsense"), "batch": {"size": 0}}
    assert len(problems_of(least(**sections))) == 3


@pytest.mark.parametrize(
    ("sections", "problem"),
    [
        (
            {"parallel": injected("kill everybody")},
            'parallel.observer_options: faults has "kill everybody", which',
        ),
        (
            {"parallel": {"workers": 0} | injected("kill worker at step 1")},
            "names workers and parallel.workers is 0",
        ),
        (
            {"parallel": {"observer": INJECTION, "observer_options": {"fault": []}}},
            "FaultInjection does not take the options {fault = ()}",
        ),
        ({"parallel": {"observer": "no_such_module:Observer"}}, "cannot be found"),
        ({"parallel": {"observer": "no name"}}, 'write it as "module:name"'),
        ({"parallel": {"observer_options": {"faults": []}}}, "without parallel.observer"),
        (
            {"parallel": {"observer": INJECTION, "observer_options": {"faults": {1}}}},
            "no plain values",
        ),
        ({"parallel": {"workers": [4, 1]}}, "the fewest come first"),
        ({"parallel": {"workers": [0, 1]}}, "[fewest, most] with fewest 1 or more"),
        ({"parallel": {"workers": [1, 2, 3]}}, "[fewest, most] with fewest 1 or more"),
        ({"parallel": {"resources": {"num_cpus": 2}}}, "set CPU in [parallel] resources"),
        ({"parallel": {"resources": {"object_store_memory": 1}}}, "it from [parallel] resources"),
        ({"parallel": {"resources": {"GPU": 1.5}}}, "has GPU = 1.5; must be a whole number"),
        ({"parallel": {"resources": {"CPU": 0}}}, "any number of such workers has room"),
        ({"parallel": {"label_selector": {"zone": "in(a"}}}, 'has "zone" = "in(a"; must be a'),
    ],
)
def test_observers_and_bounds_that_cannot_be_are_refused(
    sections: dict[str, Any], problem: str
) -> None:
    (text,) = problems_of(least(**sections))
    assert problem in text
