"""Who is there, and how those who go are spoken of."""

from __future__ import annotations

from distsgd.parallel.messages import WorkerInfo
from distsgd.parallel.pool.autotuner import Planner
from distsgd.parallel.pool.membership import Membership
from distsgd.parallel.transport.interface import Joined, Lost


def test_worker_that_is_not_wanted_any_more_has_left_and_is_not_lost() -> None:
    said: list[str] = []
    membership = Membership(WorkerInfo(-1, "1", 1, "p", "d"), Planner("all"), say=said.append)
    for worker in range(3):
        membership.notice(Joined(worker, WorkerInfo(worker, "1", 100 + worker, "p", "d")))
    membership.most_expected = 2
    membership.notice(Lost(2, "end of file"))
    membership.notice(Lost(0, "end of file"))
    assert said[3:] == [
        "worker 2 has left, as was asked",
        "worker 0 is lost (end of file); others compute its blocks",
    ]
    assert membership.members == (1,)


def test_blocks_go_to_the_server_where_there_are_no_other_workers() -> None:
    said: list[str] = []
    membership = Membership(WorkerInfo(-1, "1", 1, "p", "d"), Planner("all"), say=said.append)
    for worker in range(2):
        membership.notice(Joined(worker, WorkerInfo(worker, "1", 100 + worker, "p", "d")))
    membership.waited_for(0, 7)
    membership.notice(Lost(1, "end of file"))
    membership.waited_for(0, 8)
    membership.backup_took_over(0, now_s=0.0, step=9)
    membership.notice(Lost(0, "end of file"))
    assert said[2:] == [
        "worker 0 is slow, seen at step 7; others compute its blocks",
        "worker 1 is lost (end of file); others compute its blocks",
        "worker 0 is slow, seen at step 8; the server computes its blocks",
        "worker 0 is late at step 9; the server computes its blocks",
        "worker 0 is lost (end of file); the server computes its blocks",
    ]
