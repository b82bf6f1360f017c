"""A run is found by its path, its address or its name. No Ray is started."""

from __future__ import annotations

from distsgd.parallel.launch.actors.named_servers import matching, new_name


def test_path_finds_its_own_run_among_others_of_the_same_name() -> None:
    names = [new_name(run) for run in ("/a/run.1", "/b/run.1", "s3://c/run.1", "/a/other")]
    assert matching(names, "/b/run.1") == [names[1]]
    assert matching(names, "s3://c/run.1") == [names[2]]
    assert matching(names, "run.1") == names[:3]
    assert matching(names, "somewhere/else/other") == [names[3]]
    assert matching(names, "nothing") == []


def test_no_two_servers_have_the_same_name() -> None:
    assert new_name("/a/run") != new_name("/a/run")
