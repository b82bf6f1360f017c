"""A run is found by its path, its address or its name. No Ray is started."""

from __future__ import annotations

from pathlib import Path

import pytest

from distsgd.parallel.launch.actors.named_servers import matching, new_name


def test_path_finds_its_own_run_among_others_of_the_same_name() -> None:
    names = [new_name(run) for run in ("/a/run.1", "/b/run.1", "s3://c/run.1", "/a/other")]
    assert matching(names, "/b/run.1") == [names[1]]
    assert matching(names, "s3://c/run.1") == [names[2]]
    assert matching(names, "run.1") == names[:3]
    assert matching(names, "somewhere/else/other") == [names[3]]
    assert matching(names, "nothing") == []


@pytest.mark.parametrize("run", ["/elsewhere/run", "s3://bucket/exp1/run", "gs://bucket/run"])
def test_path_and_address_never_reach_another_run_of_the_same_name(run: str) -> None:
    names = [new_name(it) for it in ("/a/run", "s3://bucket/exp2/run", "run")]
    assert matching(names, run) == []


def test_path_through_a_link_and_one_with_dots_are_the_same_run(tmp_path: Path) -> None:
    (tmp_path / "runs" / "a").mkdir(parents=True)
    (tmp_path / "link").symlink_to("runs")
    names = [new_name(str(tmp_path / "runs" / "a"))]
    assert matching(names, str(tmp_path / "link" / "a")) == names
    assert matching(names, f"{tmp_path}/runs/b/../a/") == names


def test_no_two_servers_have_the_same_name() -> None:
    assert new_name("/a/run") != new_name("/a/run")
