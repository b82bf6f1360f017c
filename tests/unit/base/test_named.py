from __future__ import annotations

import sys
from fractions import Fraction
from pathlib import Path

import pytest

from distsgd.base.named import Kind, Named, find_object, name_of
from distsgd.errors import ConfigError

NUMBER = Kind("a.number", rule="a Fraction", way_out="derive one", base=Fraction)


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
    made = Named("fractions:Fraction", {"denominator": 4}).make(NUMBER, 3)
    assert str(made) == "3/4"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("no_colon", "no name of an object"),
        ("no.such.module:thing", "cannot be found"),
        ("distsgd.base.named:Nobody", "Nobody"),
        (":x", "no name of an object"),
        (".x:Y", "no name of an object"),
        ("x..y:Z", "no name of an object"),
        ("os:path.", "no name of an object"),
    ],
)
def test_name_that_names_nothing_is_refused_with_the_name(name: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as raised:
        find_object(name)
    assert name in str(raised.value)


def test_options_that_it_does_not_take_are_named() -> None:
    with pytest.raises(ConfigError, match=r"does not take the options \{depth = 3\}"):
        Named("fractions:Fraction", {"depth": 3}).make(NUMBER, 1)


def test_class_method_of_a_class_of_the_kind_is_made() -> None:
    assert Named("fractions:Fraction.from_float").make(NUMBER, 0.5) == Fraction(1, 2)


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("subprocess:getoutput", "a function"),
        ("os:system", "a builtin_function_or_method"),
        ("subprocess:Popen", "another class"),
        ("pathlib:Path.home", "a method"),
        ("os:environ.setdefault", "a method"),
        ("os:sep", "a str"),
    ],
)
def test_what_is_of_another_kind_is_refused_before_it_is_called(
    name: str, what: str, tmp_path: Path
) -> None:
    canary = tmp_path / "canary"
    with pytest.raises(ConfigError, match="must be a Fraction") as raised:
        Named(name).make(NUMBER, f"touch {canary}")
    assert f'a.number is "{name}", which is {what};' in str(raised.value)
    assert not canary.exists()


def test_methods_that_a_class_has_not_are_named() -> None:
    kind = Kind("key", rule="r", way_out="w", methods=(("limit_denominator", "fly"), ("a", "b")))
    with pytest.raises(ConfigError, match="a class without fly; must be r"):
        Named("fractions:Fraction").make(kind)


def test_error_of_a_constructor_is_told_with_the_name() -> None:
    with pytest.raises(ConfigError, match=r"Fraction\", which raises ZeroDivisionError: .*mend it"):
        Named("fractions:Fraction", {"denominator": 0}).make(NUMBER, 1)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nobody", "module broken_module raises NameError: name 'nobody' is not defined"),
        ("(", "module broken_module raises SyntaxError"),
        ("None.nothing", "module broken_module raises AttributeError"),
        ("import no_such_package", "raises ModuleNotFoundError: No module named 'no_such_package'"),
        ("import sys; sys.exit(3)", "module broken_module raises SystemExit: 3"),
    ],
)
def test_error_of_a_module_while_it_is_imported_is_told_as_such(
    text: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_module.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match=r"while it is imported \(mend it\)") as raised:
        find_object("broken_module:Thing")
    assert said in str(raised.value)


def test_current_directory_is_looked_in_last_and_for_names_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place])
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lies_here.py").write_text("Thing = 1")
    (tmp_path / "fractions.py").write_text("Fraction = 1")
    before = list(sys.path)
    with pytest.raises(ConfigError, match="cannot be found"):
        find_object("lies_nowhere:Thing")
    assert find_object("fractions:Fraction") is Fraction
    assert sys.path == before
    assert find_object("lies_here:Thing") == 1
    assert sys.path == [*before, str(tmp_path)]
    del sys.modules["lies_here"]
