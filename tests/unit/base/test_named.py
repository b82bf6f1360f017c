from __future__ import annotations

from pathlib import Path

import pytest

from distsgd.base.named import Named, find_object, name_of
from distsgd.errors import ConfigError


def test_object_is_found_by_the_name_it_gives() -> None:
    name = name_of(Named)
    assert name == "distsgd.base.named:Named"
    assert find_object(name) is Named


def test_what_lies_in_a_class_has_a_name_too() -> None:
    assert find_object("pathlib:Path.home")() == Path.home()


def test_closure_and_lambda_have_no_name() -> None:
    def inside() -> None: ...

    assert name_of(inside) is None
    assert name_of(lambda: None) is None


def test_named_is_made_with_its_options() -> None:
    made = Named("fractions:Fraction", {"denominator": 4}).make(3)
    assert str(made) == "3/4"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("no_colon", "no name of an object"),
        ("no.such.module:thing", "cannot be found"),
        ("distsgd.base.named:Nobody", "Nobody"),
        (":x", "no name of an object"),
    ],
)
def test_name_that_names_nothing_is_refused_with_the_name(name: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as raised:
        find_object(name)
    assert name in str(raised.value)


def test_options_that_it_does_not_take_are_named() -> None:
    with pytest.raises(ConfigError, match=r"does not take the options \{depth = 3\}"):
        Named("fractions:Fraction", {"depth": 3}).make(1)
