"""Files of a configuration and of a run: good ones to be damaged; judged by who reads them.

A run that was killed is resumed: it ends with the weights of the undisturbed one, or is refused.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import safetensors.numpy
from blake3 import blake3

from distsgd.config import TrainConfig
from distsgd.models.weights import weights_vector
from distsgd.run.callbacks import Callback
from distsgd.run.run import Run
from distsgd.run.run_files import read_weights
from distsgd.run.trainer import Trainer
from distsgd.store.logs import DigestLog, EvaluationLog, read_history
from distsgd.store.run_directory import RunDirectory

_STEPS, _CHECKPOINT_EVERY = 9, 3
_TOML = """\
[data]
path = "rows.parquet"
label = "label"
test_fraction = 0.2
standardise = "mean_std"

[model]
layers = [
  {type = "dense", units = 4, activation = "relu"},
  {type = "dense", units = 2},
]
loss = "softmax_cross_entropy"

[optimizer]
type = "momentum"
learning_rate = 0.1
clip_norm = 5.0

[schedule]
type = "cosine"
warmup_steps = 2

[batch]
size = 8

[train]
steps = 9
seed = 3
digest_every = 2

[parallel]
workers = 0

[checkpoint]
every_steps = 3

[statistics]
per_sample = true
"""
# What is put in place of a value of the TOML file.
ODD_TOML = (
    "-1",
    "0",
    "9" * 5000,
    "1e309",
    "nan",
    "-inf",
    "true",
    '""',
    '"../../x"',
    '"a\\u0000b"',
    "[]",
    "[[]]",
    "{}",
    "1979-05-27T07:32:00Z",
    "[" * 3000 + "]" * 3000,
    '"' + "x" * 100_000 + '"',
    "{a" + ".a" * 3000 + " = 1}",
)


@dataclass(frozen=True)
class KilledRun:
    """A run that ended after step 6 of 9 without saying so, and what becomes of it in peace."""

    place: Path

    @classmethod
    def make(cls, place: Path) -> KilledRun:
        """Train it below the empty directory `place`."""
        chance = np.random.default_rng(4)
        columns = {name: chance.standard_normal(40) for name in "abc"}
        pq.write_table(
            pa.table({**columns, "label": chance.integers(0, 2, 40)}), place / "rows.parquet"
        )
        (place / "run.toml").write_text(_TOML)
        made = cls(place)
        result = made.trained("whole")
        (place / "digest").write_text(result["weights_digest"])
        shutil.copytree(place / "whole", place / "killed")
        killed = place / "killed"
        (killed / "result.json").unlink()
        shutil.rmtree(killed / "checkpoints" / f"step-{_STEPS:012d}")
        return made

    @cached_property
    def config(self) -> TrainConfig:
        """Of the run."""
        return TrainConfig.from_toml(self.place / "run.toml")

    def trained(self, run: str, say: Callable[[str], None] = lambda _: None) -> dict[str, Any]:
        """Train, or go on with, the run of this name; its metrics."""
        trainer = Trainer(
            self.config,
            run_dir=self.place / run,
            cache_dir=self.place / "cache",
            callbacks=[Callback(on_message=say)],
        )
        return trainer.fit(resume="auto").metrics

    def copied(self) -> Path:
        """The killed run anew, to be damaged."""
        run = self.place / "run"
        shutil.rmtree(run, ignore_errors=True)
        shutil.copytree(self.place / "killed", run)
        return run

    def go_on(self, *, is_forged: bool) -> None:
        """Resume the copy and read all that it left."""
        metrics = self.trained("run")
        whole = (self.place / "digest").read_text()
        assert is_forged or metrics["weights_digest"] == whole, metrics
        assert metrics["steps"] == _STEPS
        read_back(self.place / "run")


def read_back(run: Path) -> None:
    """Read a run as evaluation, `show` and `verify` do."""
    directory = RunDirectory.open(run)
    read_history(directory.history)
    DigestLog(directory.digests_path).read()
    EvaluationLog(directory.evaluations_path).read()
    if directory.result_path.exists():
        directory.read_json(directory.result_path)
    saved = Run.open(run)
    assert np.isfinite(saved.weights_P).all()
    saved.data(run.parent / "cache")


def reseal(checkpoint: Path) -> None:
    """Make the manifest of a damaged checkpoint fit it, as a forger would."""
    path = checkpoint / "MANIFEST.json"
    manifest = json.loads(path.read_bytes())
    for name in manifest["files"]:
        data = (checkpoint / name).read_bytes()
        manifest["files"][name] = {"size_bytes": len(data), "blake3": blake3(data).hexdigest()}
    path.write_text(json.dumps(manifest))


def weights_files() -> list[bytes]:
    """Start weights for the network of the configuration."""
    chance = np.random.default_rng(5)
    shapes = {"0.weight": (3, 4), "0.bias": (4,), "1.weight": (4, 2), "1.bias": (2,)}
    files = []
    for dtype in ("float32", "float64", "float16"):
        arrays = {name: chance.standard_normal(s).astype(dtype) for name, s in shapes.items()}
        files.append(safetensors.numpy.save(arrays))
    return files


def forged_safetensors(data: bytes, chance: np.random.Generator) -> bytes:
    """The same arrays behind a header that lies."""
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    name = list(header)[int(chance.integers(len(header)))]
    deed = int(chance.integers(7))
    if deed == 0:
        header[name]["shape"] = [2**40, 2**40]
    elif deed == 1:
        header[name]["shape"] = [-1]
    elif deed == 2:
        header[name]["data_offsets"] = [0, 2**62]
    elif deed == 3:
        header[name]["dtype"] = str(chance.choice(["BF16", "F8_E4M3", "I64", "X", "BOOL", "C64"]))
    elif deed == 4:
        header |= {f"x{i}": header[name] for i in range(5000)}
    elif deed == 5:
        header["__metadata__"] = {"a": "b" * 1000}
    else:
        header[name] = [[[header[name]]]]
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data[8 + size :]


def judge_weights(path: Path, killed: KilledRun) -> None:
    """Take a file as start weights, as the trainer does."""
    vector = weights_vector(
        Run.open(killed.place / "whole").model, read_weights(path), np.dtype("float32")
    )
    assert np.isfinite(vector).all()


def judge_toml(path: Path) -> None:
    """Read a configuration, and read it back from what it says of itself."""
    config = TrainConfig.from_toml(path)
    assert TrainConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def forged_toml(text: str, chance: np.random.Generator) -> bytes:
    """The configuration with one of its values exchanged, or a line twice, or a key unknown."""
    lines = text.splitlines()
    settings = [i for i, line in enumerate(lines) if " = " in line]
    at = settings[int(chance.integers(len(settings)))]
    deed = int(chance.integers(8))
    if deed == 0:
        lines.insert(at, lines[at])
    elif deed == 1:
        lines[at] = "un" + lines[at]
    elif deed == 2:
        lines.insert(at, "[" + "a." * 2000 + "a]")
    else:
        key = lines[at].split(" = ")[0]
        lines[at] = f"{key} = {ODD_TOML[int(chance.integers(len(ODD_TOML)))]}"
    return "\n".join(lines).encode(errors="surrogatepass")


def toml_file() -> bytes:
    """A good one."""
    return _TOML.encode()
