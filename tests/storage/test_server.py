"""Tests of object storage are not left out in silence."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.storage.server import MUST_BE_THERE, moto_server


@pytest.mark.parametrize(
    ("value", "raised"), [("", pytest.skip.Exception), ("1", pytest.fail.Exception)]
)
def test_missing_server_is_an_error_in_whole_runs_and_a_skip_with_its_reason_elsewhere(
    monkeypatch: pytest.MonkeyPatch, value: str, raised: type[BaseException]
) -> None:
    monkeypatch.setenv(MUST_BE_THERE, value)
    monkeypatch.setitem(sys.modules, "moto.server", None)
    with pytest.raises(raised, match=r"needs moto\[server\].*scripts/env --with test"):
        moto_server()


def test_script_that_runs_all_tests_has_it_there() -> None:
    script = Path(__file__).parents[2] / "scripts" / "test"
    assert f" {MUST_BE_THERE}=1" in script.read_text()
