"""Three hosts, the head without CPUs: who goes where, and what is said where there is no room."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import distsgd
from tests.cluster.clusters import NEEDS_HOSTS, cluster_of, prepare_place, train
from tests.cluster.hosts import Hosts

pytestmark = NEEDS_HOSTS
AUTO = ("parallel.address=auto", "parallel.assignment=all")


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        prepare_place(tmp_path_factory.mktemp("shared"), monkeypatch)
        yield from cluster_of(0, 4, 4)


@pytest.fixture(scope="module")
def digest_alone(hosts: Hosts) -> str:
    return str(train(hosts[1], "alone", "parallel.workers=0")["weights_digest"])


@pytest.mark.parametrize("driver", [0, 1])
def test_seven_workers_are_trained_from_a_head_without_cpus_and_from_a_workers_node(
    hosts: Hosts, digest_alone: str, driver: int
) -> None:
    found = train(hosts[driver], f"seven-{driver}", *AUTO, "parallel.workers=7")
    assert found["code"] == 0, found
    assert (found["num_workers"], found["weights_digest"]) == (7, digest_alone)


@pytest.mark.parametrize("driver", [0, 1])
def test_auto_is_what_the_cluster_has(hosts: Hosts, digest_alone: str, driver: int) -> None:
    found = train(hosts[driver], f"auto-{driver}", *AUTO, 'parallel.placement="spread"')
    assert found["code"] == 0, found
    assert (found["num_workers"], found["weights_digest"]) == (8, digest_alone)


def test_run_that_cannot_fit_says_so_within_ten_seconds_of_joining(hosts: Hosts) -> None:
    found = train(hosts[0], "nine", *AUTO, "parallel.workers=9")
    assert found["code"] == 4
    free = f"8 of 8 free (node {hosts[0].name} 0, node {hosts[1].name} 4, node {hosts[2].name} 4)"
    assert f"9 workers need 9 CPU; there are {free}" in found["error"]
    assert "[parallel] workers = [1, 9]" in found["error"]
    assert found["seconds_taken"] < 60  # Without a word beforehand it would be 120 and more.
    assert not Path("nine").exists()


def test_worker_that_does_not_see_the_data_is_told_of_with_its_node(hosts: Hosts) -> None:
    cache = Path("home/.cache").absolute()
    hosts[2].hide(cache)
    try:
        found = train(hosts[1], "hidden", *AUTO, "parallel.workers=7")
    finally:
        hosts[2].show(cache)
    assert found["code"] == 4
    assert f"on node {hosts[2].name}" in found["error"]
    assert str(cache) in found["error"]
    assert found["seconds_taken"] < 60


def test_server_stays_with_its_driver_where_no_other_node_sees_the_run(
    hosts: Hosts, digest_alone: str
) -> None:
    private = Path("private").absolute()
    private.mkdir()
    for host in (hosts[1], hosts[2]):
        host.hide(private)
    found = train(hosts[0], "private/run", *AUTO, "parallel.workers=3")
    assert found["code"] == 0, found["error"]
    assert found["weights_digest"] == digest_alone


def test_worker_on_a_node_that_cannot_import_the_program_is_told_of_with_its_node(
    hosts: Hosts,
) -> None:
    package = Path(distsgd.__file__).parent
    hosts[2].hide(package)
    broken = f"echo 'import numpy.of_another_make' > {package}/__init__.py"
    hosts[2].run(["sh", "-c", broken])
    try:
        found = train(hosts[1], "missing", *AUTO, "parallel.workers=7")
    finally:
        hosts[2].show(package)
    assert found["code"] == 4, found
    assert f"node {hosts[2].name}: ModuleNotFoundError" in found["error"]
    assert "distsgd on every node" in found["error"]
    assert found["seconds_taken"] < 60
