"""A circuit drawn: values forward and gradients backward on each edge, as text and as a picture."""

from __future__ import annotations

from collections.abc import Callable
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from distsgd import autodiff as f
from distsgd.autodiff import GradientTape, Variable
from distsgd.errors import ModelError
from distsgd.lessons import draw_svg, draw_text
from distsgd.lessons.circuits.text import vertices

Circuit = tuple[GradientTape, Variable, dict[str, Variable]]


def neuron() -> Circuit:
    w, x, theta = Variable([-1.0, -1.5]), Variable([-3.0, 2.0]), Variable(0.5)
    with GradientTape() as tape:
        v = (w * x).sum() + theta
        prediction = f.sigmoid(v)
        loss = (prediction - 2.0) ** 2
    return tape, loss, {"W": w, "X": x, "θ": theta, "v": v, "ŷ": prediction, "L": loss}


def stages() -> Circuit:
    x, y = Variable(3.0), Variable(-4.0)
    with GradientTape() as tape:
        out = (x + f.sigmoid(y)) / (f.sigmoid(x) + (x + y) ** 2)
    return tape, out, {"x": x, "y": y, "out": out}


def words(tape: GradientTape, target: Variable, names: dict[str, Variable]) -> list[list[str]]:
    return [line.split() for line in draw_text(tape, target, names=names).splitlines()]


def test_neuron_drawn_as_text_has_every_value_and_gradient() -> None:
    lines = words(*neuron())
    for line in (
        ["W", "[-1,", "-1.5]", "[1.942,", "-1.295]"],
        ["X", "[-3,", "2]", "[0.6475,", "0.9712]"],
        ["θ", "0.5", "-0.6475"],
        ["v", "=", "add", "0.5", "-0.6475"],
        ["ŷ", "=", "sigmoid", "0.6225", "-2.755"],
        ["L", "=", "power", "1.898", "1"],
    ):
        assert line in lines


def test_text_is_aligned_and_the_same_each_time() -> None:
    tape, out, names = stages()
    text = draw_text(tape, out, names=names)
    assert text == draw_text(tape, out, names=names)
    head, *lines = text.splitlines()
    with_gradient = [line for line in lines if not line.startswith("y  ")]
    assert {len(line) for line in with_gradient} == {len(head)}


def test_edges_of_a_branch_add_up_to_the_gradient() -> None:
    tape, out, names = stages()
    drawn = vertices(tape, out, names=names)
    by_label = {vertex.label: vertex for vertex in drawn}
    for label, whole in (("x", 2.059570), ("y", 1.592233)):
        vertex = by_label[label]
        shares = [e.gradient for v in drawn for e in v.edges if e.source == vertex.number]
        assert len(shares) == (3 if label == "x" else 2)
        assert sum(float(s) for s in shares if s is not None) == pytest.approx(whole, abs=5e-7)
        assert vertex.gradient == pytest.approx(whole, abs=5e-7)


@pytest.mark.parametrize("circuit", [neuron, stages])
def test_picture_is_well_formed_and_shows_what_the_text_shows(
    circuit: Callable[[], Circuit],
) -> None:
    tape, target, names = circuit()
    picture = draw_svg(tape, target, names=names)
    assert picture == draw_svg(tape, target, names=names)
    root = ET.fromstring(picture)  # noqa: S314 -- our own text.
    texts = [element.text for element in root.iter() if element.tag.endswith("text")]
    assert set(names) <= set(texts)
    drawn = vertices(tape, target, names=names)
    edges = [edge for vertex in drawn for edge in vertex.edges]
    paths = [element for element in root.iter() if element.tag.endswith("path")]
    assert len(paths) == len(edges)
    numbers = len(edges) + sum(edge.gradient is not None for edge in edges)
    assert len(texts) >= numbers + len(drawn) + 2


def test_names_are_escaped_and_large_arrays_told_by_shape_and_range() -> None:
    x = Variable(np.arange(12.0).reshape(3, 4))
    with GradientTape() as tape:
        y = x.sum()
    text = draw_text(tape, y, names={"a < b & c": x})
    assert "3x4 in [0, 11]" in text
    picture = draw_svg(tape, y, names={"a < b & c": x})
    assert "a &lt; b &amp; c" in picture
    ET.fromstring(picture)  # noqa: S314 -- our own text.


def test_a_circuit_can_be_drawn_only_while_its_tape_holds_it() -> None:
    tape, out, names = stages()
    tape.gradient(out, list(names.values()))
    with pytest.raises(ModelError, match="persistent=True"):
        draw_text(tape, out)
