"""What a child of an experiment does: see `distsgd.experiments.children`.

It is ``python -m distsgd.experiments.child PARENT``: it takes one JSON object a line from its
standard input, answers each with a line, and ends with its input, with its parent, and on SIGTERM
as soon as it can.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys

from distsgd.base.work import Stop, do_work

_PR_SET_PDEATHSIG = 1


def serve() -> None:
    """Do each work of the input in turn, until it ends or SIGTERM comes.

    An error of ours is answered as one line; any other ends this process.
    """
    _die_with_parent(int(sys.argv[1]))
    stop, is_busy = Stop(), False

    def terminate(*_: object) -> None:
        stop.ask()
        if not is_busy:
            sys.exit(0)

    signal.signal(signal.SIGTERM, terminate)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # What libraries print is no answer.
    while not stop.is_asked and (line := sys.stdin.readline()):
        is_busy = True
        work = json.loads(line)
        failure = do_work(work["function"], work["task"], stop)
        is_busy = False
        print(json.dumps(failure), file=answers, flush=True)


def _die_with_parent(parent: int) -> None:
    """A killed experiment leaves no process behind (Linux, prctl(2))."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # It died before.
        sys.exit(1)


if __name__ == "__main__":
    serve()
