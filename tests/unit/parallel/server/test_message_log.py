"""A server's messages: each is told once, and no more are kept than a status should carry."""

from __future__ import annotations

from distsgd.parallel.server.message_log import MOST_KEPT, MessageLog


def test_each_message_is_told_once_to_whoever_says_how_many_it_knows() -> None:
    log, known, told = MessageLog(), 0, list[str]()
    for number in range(5):
        log.add(f"message {number}")
        if number % 2:
            known, fresh = log.after(known)
            told += fresh
    known, fresh = log.after(known)
    assert (known, [*told, *fresh]) == (5, [f"message {number}" for number in range(5)])
    assert log.after(known) == (5, ())


def test_messages_are_bounded_and_those_dropped_are_counted() -> None:
    log = MessageLog()
    for number in range(3 * MOST_KEPT):
        log.add(str(number))
    count, told = log.after(MOST_KEPT // 2)
    assert count == 3 * MOST_KEPT
    assert len(told) == MOST_KEPT + 1
    assert told[0] == f"{2 * MOST_KEPT - MOST_KEPT // 2:,} messages were dropped here"
    assert told[1:] == tuple(str(number) for number in range(2 * MOST_KEPT, 3 * MOST_KEPT))
    assert log.after(count - 1) == (count, (str(count - 1),))
