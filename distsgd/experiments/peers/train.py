"""One peer, trained in a process of its own: see `do_work`."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

from distsgd.base.files import make_private_directory, write_json_atomic
from distsgd.base.work import Stop
from distsgd.experiments.peers.training import PeerTask, tables, train_to_target

CLASSES = {"sklearn": "SklearnPeer", "torch": "TorchPeer", "jax": "JaxPeer"}


def train(task: dict[str, Any], stop: Stop) -> None:
    """Train one peer to the target; its finding goes to the file that the task names."""
    stop.taken_by(sys.exit)  # There is nothing to keep.
    out = Path(task.pop("out"))
    found = _found(task.pop("peer"), PeerTask.from_dict(task))
    make_private_directory(out.parent)
    write_json_atomic(out, found)


def _found(name: str, task: PeerTask) -> dict[str, Any]:
    try:
        module = importlib.import_module(f"distsgd.experiments.peers.{name}_peer")
    except ModuleNotFoundError as missing:
        return {"reason": f"{missing.name} is not installed"}
    train, test = tables(task)
    peer = getattr(module, CLASSES[name])(task, train, test)
    return train_to_target(task, peer, len(train.x))
