from __future__ import annotations

from typing import Any

import pytest

from distsgd.config import TrainConfig, aliases
from distsgd.config.aliases import INJECTION, with_new_names
from distsgd.errors import ConfigError

VALUES: dict[str, Any] = {
    "data": {"path": "/rows.parquet", "label": "y"},
    "model": {"layers": [{"type": "dense", "units": 1}], "loss": "squared_error"},
}


@pytest.fixture(autouse=True)
def old_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aliases, "KEYS", {"batch.rows": "batch.size"})
    monkeypatch.setattr(aliases, "VALUES", {"batch.size": {"all": "full"}})


def test_old_name_gives_the_new_one_and_a_warning() -> None:
    with pytest.warns(FutureWarning, match=r"batch\.rows is now batch\.size"):
        raw = with_new_names({"batch": {"rows": 8}})
    assert raw == {"batch": {"size": 8}}


def test_old_value_of_an_old_name_warns_of_both() -> None:
    with pytest.warns(FutureWarning) as warned:
        raw = with_new_names({"batch": {"rows": "all"}})
    assert raw == {"batch": {"size": "full"}}
    assert len(warned) == 2


def test_old_and_new_name_together_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"batch\.rows is the old name of batch\.size"):
        with_new_names({"batch": {"rows": 8, "size": 8}})


def test_what_was_given_is_not_changed() -> None:
    values = {"batch": {"rows": 8}}
    with pytest.warns(FutureWarning):
        with_new_names(values)
    assert values == {"batch": {"rows": 8}}


def test_configuration_with_an_old_name_is_the_same_as_with_the_new_one() -> None:
    with pytest.warns(FutureWarning):
        old = TrainConfig.from_dict(VALUES | {"batch": {"rows": "all"}})
    assert old == TrainConfig.from_dict(VALUES | {"batch": {"size": "full"}})
    assert old.to_dict()["batch"]["size"] == "full"


def test_override_by_an_old_name_wins_over_the_file() -> None:
    config = TrainConfig.from_dict(VALUES | {"batch": {"size": 8}})
    with pytest.warns(FutureWarning, match=r"batch\.rows is now batch\.size"):
        assert config.with_overrides(["batch.rows=4"]).batch.size == 4


FAULTS = ["kill server at step 3"]


def test_old_table_of_faults_gives_the_observer_that_injects_them() -> None:
    with pytest.warns(FutureWarning, match=r"chaos\.faults = .* is now parallel\.observer"):
        old = TrainConfig.from_dict(VALUES | {"chaos": {"faults": FAULTS}})
    parallel = {"observer": INJECTION, "observer_options": {"faults": FAULTS}}
    assert old == TrainConfig.from_dict(VALUES | {"parallel": parallel})
    with pytest.warns(FutureWarning):
        none = old.with_overrides(["chaos.faults=[]"])
    assert none.parallel.observer_options == {"faults": ()}


@pytest.mark.parametrize("table", [{}, {"faults": []}])
def test_old_table_without_faults_is_nothing(table: dict[str, Any]) -> None:
    assert with_new_names({"batch": {"size": 8}, "chaos": table}) == {"batch": {"size": 8}}


def test_old_table_of_faults_with_another_observer_is_refused() -> None:
    values = {"chaos": {"faults": FAULTS}, "parallel": {"observer": "mine:Observer"}}
    with pytest.raises(ConfigError, match="a run has one observer"):
        with_new_names(values)


def test_old_table_with_other_keys_is_told_as_unknown() -> None:
    with pytest.raises(ConfigError, match="chaos is not known"):
        TrainConfig.from_dict(VALUES | {"chaos": {"fault": []}})
