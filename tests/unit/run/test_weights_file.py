"""Weights of a run in a file of their own, and back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from distsgd.errors import DataError
from distsgd.run.run import Run
from distsgd.run.trainer import Trainer

X = np.random.default_rng(4).normal(size=(60, 3)).astype(np.float32)
KINDS = X.argmax(axis=1)
NETWORK = {"layers": [{"type": "dense", "units": 3}], "loss": "softmax_cross_entropy"}


def trained(place: Path, model: Any = None, **section: Any) -> Run:
    config = {
        "model": section,
        "train": {"steps": 5},
        "batch": {"size": 16},
        "data": {"standardise": "none"},
        "statistics": {"per_sample": False},
        "parallel": {"workers": 0},
    }
    return Trainer(config, data=(X, KINDS), model=model, run_dir=place).fit()


def test_weights_are_written_whole_to_a_new_file_and_begin_another_run(tmp_path: Path) -> None:
    run, file = trained(tmp_path / "run", **NETWORK), tmp_path / "w.safetensors"
    assert run.save_weights(file) == 2
    found = load_file(file)
    assert found.keys() == run.weights.keys()
    for name, array in run.weights.items():
        assert found[name].tobytes() == array.tobytes()
    again = trained(tmp_path / "again", **NETWORK, initial_weights=str(file))
    assert again.history["train_loss"][0].as_py() < run.history["train_loss"][0].as_py()
    assert [it.name for it in tmp_path.iterdir() if "staging" in it.name] == []


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("run/w.npz", "must end in .safetensors"),
        ("w.safetensors", "exists already"),
        ("no/w.safetensors", "its directory does not exist"),
    ],
)
def test_file_that_cannot_be_written_is_refused(name: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "w.safetensors").touch()
    run = trained(tmp_path / "run", **NETWORK)
    with pytest.raises(DataError, match=said):
        run.save_weights(tmp_path / name)


def test_weights_of_a_module_go_out_to_plain_torch_and_come_in_from_it(tmp_path: Path) -> None:
    torch: Any = pytest.importorskip("torch", reason="needs the extra 'torch'")
    from safetensors.torch import load_file as load_tensors
    from safetensors.torch import save_file

    made = torch.nn.Linear
    options = {"in_features": 3, "out_features": 3}
    said = {"loss": "softmax_cross_entropy", "options": options}
    run = trained(tmp_path / "run", made, **said)
    run.save_weights(tmp_path / "w.safetensors")
    net = made(3, 3)
    net.load_state_dict(load_tensors(tmp_path / "w.safetensors"))
    with torch.no_grad():
        shown = net(torch.tensor(X)).softmax(-1).numpy()
        net.weight.zero_()
        net.bias.zero_()
    np.testing.assert_allclose(run.predict_proba(X), shown, rtol=1e-5)
    save_file(net.state_dict(), tmp_path / "zeros.safetensors")
    again = trained(
        tmp_path / "again", made, **said, initial_weights=str(tmp_path / "zeros.safetensors")
    )
    first: float = again.history["train_loss"][0].as_py()
    assert first == pytest.approx(np.log(3), abs=1e-6)
