"""A run is found by its path, its address or its name. No Ray is started."""

from __future__ import annotations

import types
from pathlib import Path
from typing import Any

import pytest

from distsgd.errors import ClusterError, WaitTimeoutError
from distsgd.parallel.launch.actors import named_servers
from distsgd.parallel.launch.actors.named_servers import (
    NAMESPACE,
    NamedRun,
    matching,
    new_name,
)
from distsgd.parallel.launch.session.session import Session


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


class RayActorError(Exception):
    actor_init_failed = False


class ActorUnavailableError(RayActorError):
    pass


class GetTimeoutError(Exception):
    pass


class FakeServer:
    """A server's actor: answers to the end, which comes when it is asked to stop, or not at all."""

    def __init__(self, run: str, *at_the_end: Exception | str) -> None:
        self.name, self._run = new_name(run), run
        self._at_the_end = list(at_the_end)
        self.asked: list[str] = []

    def __getattr__(self, method: str) -> Any:
        def call(*_: object) -> tuple[FakeServer, str]:
            return self, method

        remote = types.SimpleNamespace(remote=call)
        return types.SimpleNamespace(options=lambda **_: remote)

    def answer(self, method: str) -> dict[str, Any]:
        self.asked.append(method)
        status = "training"
        if method == "wait_for_end":
            end = self._at_the_end.pop(0) if self._at_the_end else "training"
            if isinstance(end, Exception):
                raise end
            status = end
        return {"run": self._run, "status": status, "step": 7}


class FakeRay:
    """Named actors; those before the first that lives are dead, and still have their names."""

    exceptions = types.SimpleNamespace(
        RayActorError=RayActorError,
        ActorUnavailableError=ActorUnavailableError,
        GetTimeoutError=GetTimeoutError,
    )

    def __init__(self, *servers: FakeServer) -> None:
        self._servers = {it.name: it for it in servers}
        self._dead: set[str] = set()
        self.util = types.SimpleNamespace(
            list_named_actors=lambda all_namespaces: [
                {"name": name, "namespace": NAMESPACE} for name in self._servers if all_namespaces
            ]
        )
        self.hidden: dict[str, FakeServer] = {}  # There once another has died.

    def get_actor(self, name: str, namespace: str) -> FakeServer:
        assert namespace == NAMESPACE
        return self._servers[name]

    def get(self, ref: tuple[FakeServer, str], *, timeout: float) -> Any:
        assert timeout > 0
        server, method = ref
        if server.name in self._dead:
            raise RayActorError("its process is gone")
        try:
            return server.answer(method)
        except RayActorError as error:
            if type(error) is RayActorError:
                self._dead.add(server.name)
                self._servers |= self.hidden
            raise


def stopped(ray: FakeRay, run: str, timeout_s: float = 30.0) -> dict[str, Any]:
    return NamedRun(Session(ray, is_local=False), run, "head:1").stopped(timeout_s)


def test_run_that_ends_as_it_was_asked_says_how() -> None:
    server = FakeServer("/a/run", "training", "interrupted")
    assert stopped(FakeRay(server), "run")["status"] == "interrupted"
    assert server.asked == ["report", "want_stop", "wait_for_end", "wait_for_end"]


def test_server_that_follows_one_that_died_is_asked_to_stop_too() -> None:
    first = FakeServer("/a/run", RayActorError("killed"))
    second, other = FakeServer("/a/run", "interrupted"), FakeServer("/b/run")
    ray = FakeRay(first)
    ray.hidden = {it.name: it for it in (second, other)}
    assert stopped(ray, "run")["run"] == "/a/run"
    assert "want_stop" in second.asked
    assert "want_stop" not in other.asked


def test_server_that_dies_and_is_not_followed_has_not_stopped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(named_servers, "RESTART_TIMEOUT_S", 0.0)
    ray = FakeRay(FakeServer("/a/run", RayActorError("killed")))
    with pytest.raises(ClusterError, match="whether it was saved before that is not known"):
        stopped(ray, "/a/run")


def test_answer_that_gets_lost_is_no_end() -> None:
    server = FakeServer("/a/run", ActorUnavailableError("lost"), "interrupted")
    assert stopped(FakeRay(server), "run")["status"] == "interrupted"
    assert server.asked.count("want_stop") == 1


def test_server_that_does_not_answer_or_does_not_end_has_not_stopped() -> None:
    with pytest.raises(WaitTimeoutError, match="for the run to end"):
        stopped(FakeRay(FakeServer("/a/run", GetTimeoutError())), "run")
    with pytest.raises(WaitTimeoutError, match="the run to end after its present step"):
        stopped(FakeRay(FakeServer("/a/run")), "run", timeout_s=0.05)


def test_run_that_failed_says_so() -> None:
    assert stopped(FakeRay(FakeServer("/a/run", "failed")), "run")["status"] == "failed"
