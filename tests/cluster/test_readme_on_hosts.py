"""The commands of the README's chapter on clusters, word for word, on three hosts."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from tests.cluster.clusters import NEEDS_HOSTS, prepare_place
from tests.cluster.hosts import Hosts

pytestmark = [*NEEDS_HOSTS, pytest.mark.long]
README = Path(__file__).parents[2] / "README.md"


def test_the_commands_on_a_cluster_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare_place(tmp_path, monkeypatch)
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=":")
    (block,) = re.findall(
        r"^```sh\n(ray start.*?)^```", README.read_text(), re.MULTILINE | re.DOTALL
    )
    caches = tmp_path / "home" / ".cache"
    caches.mkdir(parents=True, exist_ok=True)
    with Hosts(3) as hosts:
        for host in hosts:
            host.hide(caches)  # Each has its own.
        known = {"HEAD": hosts[0].address, "/shared": str(tmp_path)}
        lines = [
            re.sub("HEAD|/shared", lambda found: known[found[0]], it) for it in block.splitlines()
        ]
        head, node, train, status = lines
        hosts[0].run(["bash", "-c", head])
        for host in (hosts[1], hosts[2]):
            host.run(["bash", "-c", node])
        done = hosts[2].run(["bash", "-c", train])
        assert "test accuracy" in done.stderr
        assert "status" in hosts[0].run(["bash", "-c", status]).stdout
