"""A model of one's own in processes that Ray starts: its error is told once, with its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.program import Program, settings

pytestmark = pytest.mark.timeout(240)
pytest.importorskip("torch", reason="PyTorch is not installed")

FAILING = """
import torch


class Net(torch.nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.last = torch.nn.Linear(inputs, outputs)
        torch.nn.init.zeros_(self.last.bias)

    def forward(self, x):
        if self.last.bias.abs().max() > 0.03:
            raise ValueError("the bias has grown")
        return self.last(x)


def make(inputs, outputs):
    return Net(inputs, outputs), torch.nn.CrossEntropyLoss(reduction="none")
"""


def test_error_in_forward_is_told_once_by_all_processes(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(place / "inductor"))  # Else it is temporary.
    (place / "failing_net.py").write_text(FAILING)
    config = (place / "digits.toml").read_text()
    before, _, after = config.partition("[model]")
    after = after[after.index("\n[") :]
    (place / "digits.toml").write_text(f'{before}[model]\nfactory = "failing_net:make"\n{after}')
    own = settings("parallel.assignment=all", "batch.size=256")
    code, found, said = Program(place, "--workers", "2", *own).result(200)
    assert code == 2, said
    assert "failing_net:make raises ValueError: the bias has grown at step " in found["error"]
    assert f'File "{place}/failing_net.py", line 13, in forward' in found["error"]
    assert said.count("Traceback") == 0
    assert said.count("ValueError: the bias has grown at step") == 1
    assert "processes died" not in said
