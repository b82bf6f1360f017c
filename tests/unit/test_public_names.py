"""Public names: all in one table, each documented with what its arrays are."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import distsgd

MOST_WITHOUT_ARGS = 3
_ARRAYS = ("Array", "NDArray", "ndarray", "Float32", "Float64", "Int64")


_ROOMS = (
    "distsgd.autodiff",
    "distsgd.config",
    "distsgd.lessons",
    "distsgd.lessons.losses",
    "distsgd.lessons.pictures",
    "distsgd.nn",
    "distsgd.statistics",
    "distsgd.store",
)

# Rooms without a list of what they export: what stands in these files.
_FILES = (
    "distsgd.data.dataset",
    "distsgd.data.options",
    "distsgd.data.sampler",
    "distsgd.data.sources.source",
    "distsgd.optim.clip",
    "distsgd.optim.frozen",
    "distsgd.optim.rules",
    "distsgd.optim.schedules",
    "distsgd.optim.search",
    "distsgd.parallel.observer",
    "distsgd.parallel.worker",
)


def exported() -> Iterator[str]:
    """``module:name`` of all that the package and its rooms export."""
    for room in ("distsgd", *_ROOMS):
        for name in importlib.import_module(room).__all__:
            yield f"{room}:{name}"
    for file in _FILES:
        for name, thing in vars(importlib.import_module(file)).items():
            if not name.startswith("_") and getattr(thing, "__module__", "") == file:
                yield f"{file}:{name}"


EXPORTED = [*exported()]


def public(place: str) -> Any:
    room, _, name = place.partition(":")
    return getattr(importlib.import_module(room), name)


def members(place: str) -> Iterator[tuple[str, Callable[..., Any]]]:
    """The public functions of a public name, but for those of the libraries it is made with."""
    name, thing = place, public(place)
    if inspect.isfunction(thing):
        yield name, thing
    if not inspect.isclass(thing):
        return
    for attribute, value in inspect.getmembers(thing):
        function: Any = value.fget if isinstance(value, property) else value
        if inspect.ismethod(function):
            function = function.__func__
        is_ours = inspect.isfunction(function) and function.__module__.startswith("distsgd")
        if is_ours and not attribute.startswith("_"):
            yield f"{name}.{attribute}", function


def num_parameters(function: Callable[..., Any]) -> int:
    names = inspect.signature(function).parameters
    return len([name for name in names if name not in ("self", "cls")])


def test_the_table_lists_every_public_name() -> None:
    assert sorted(distsgd.PUBLIC) == sorted(distsgd.__all__)
    assert set(distsgd.PUBLIC) <= set(dir(distsgd))
    assert all(meaning for _, meaning in distsgd.PUBLIC.values())


@pytest.mark.parametrize("name", EXPORTED)
def test_public_name_is_documented_with_its_methods(name: str) -> None:
    assert inspect.getdoc(public(name))
    for place, function in members(name):
        assert inspect.getdoc(function), place


@pytest.mark.parametrize("name", EXPORTED)
def test_what_takes_four_arguments_or_more_says_what_each_is(name: str) -> None:
    for place, function in members(name):
        if num_parameters(function) > MOST_WITHOUT_ARGS:
            assert "Args:" in (inspect.getdoc(function) or "") or "See `" in str(
                function.__doc__
            ), place


@pytest.mark.parametrize("name", EXPORTED)
def test_what_takes_or_gives_arrays_says_their_shapes(name: str) -> None:
    for place, function in members(name):
        annotations = " ".join(map(str, function.__annotations__.values()))
        if any(word in annotations for word in _ARRAYS):
            doc = inspect.getdoc(function) or ""
            assert "[" in doc or "shape" in doc or "see `" in doc.lower(), place


def test_help_says_how_each_seam_is_filled() -> None:
    lines = [line.strip() for line in (distsgd.__doc__ or "").splitlines() if line[:4] == "    "]
    cells = [re.split(r"\s{2,}", line) for line in lines]
    assert len(cells) == 11
    for kind, base, place in cells:
        assert kind
        assert base in distsgd.PUBLIC
        assert "Trainer(" in place or "[" in place or "apply" in place
