"""Text as rows of characters: nothing is lost, and nothing held out is trained on."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from distsgd.cli.help_text import character_tables, help_text

TEXT = "why? a row is a line of text; the next one follows, and so they do. " * 20


def texts_of(table: pa.Table, characters: str) -> tuple[str, str]:
    """What is seen, and what is next."""
    tokens, after = (np.array(table[name].to_pylist()).ravel() for name in ("tokens", "next"))
    return "".join(characters[it] for it in tokens), "".join(characters[it] for it in after)


def characters_of(table: pa.Table) -> str:
    found: Any = table.schema.metadata[b"characters"].decode()
    return str(found)


@pytest.mark.parametrize("places", [1, 8, 50])
def test_rows_follow_upon_each_other_and_end_before_what_is_held_out(places: int) -> None:
    training, held_out = character_tables(TEXT, places)
    characters = characters_of(training)
    assert characters_of(held_out) == characters
    cut = round(0.9 * len(TEXT))
    for table, part in ((training, TEXT[:cut]), (held_out, TEXT[cut:])):
        seen, after = texts_of(table, characters)
        assert len(seen) == table.num_rows * places > len(part) - 1 - places
        assert (seen, after) == (part[: len(seen)], part[1 : len(seen) + 1])


def test_tokens_are_the_places_of_characters_in_their_order() -> None:
    training, _ = character_tables("?abcab" * 30, 4)
    assert characters_of(training) == "?abc"
    assert training["tokens"][0].as_py() == [0, 1, 2, 3]
    assert training["next"][0].as_py() == [1, 2, 3, 1]


def test_a_character_that_is_not_trained_on_is_a_question_mark() -> None:
    text = "Z" + "?ab" * 60 + "Qab" * 6
    training, held_out = character_tables(text, 3)
    assert characters_of(training) == "?ab"
    assert training["tokens"][0].as_py() == [0, 0, 1]  # Z is nowhere what comes next.
    assert set(np.ravel(held_out["tokens"].to_pylist())) == {0, 1, 2}


def test_each_token_of_the_help_topics_is_seen_and_is_next_in_training() -> None:
    training, held_out = character_tables(help_text())
    every = set(range(len(characters_of(training))))
    for name in ("tokens", "next"):
        assert set(np.ravel(training[name].to_pylist())) == every
        assert set(np.ravel(held_out[name].to_pylist())) <= every


def test_paragraphs_of_the_help_topics_come_once() -> None:
    paragraphs = help_text().split("\n\n")
    assert len(paragraphs) == len(set(paragraphs)) > 1000
