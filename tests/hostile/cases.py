"""Hostile inputs of every format: which file is damaged how, and who judges it.

An input is named by (format, seed, number): the same name gives the same bytes.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from distsgd.data.dataset import DataSet
from distsgd.data.manifest import (
    FORMAT,
    VERSION,
)
from distsgd.data.manifest_reader import read_manifest
from tests.hostile import rows, runs
from tests.hostile.mutation import Chance, damaged_bytes, damaged_json


class Judge(Protocol):
    """Writes input `number`, and gives what reads it.

    That raises what is not ours, or a DistSGDError where the input is refused.
    """

    def __call__(self, number: int) -> Callable[[], None]: ...


def _craft(name: str, number: int, path: Path) -> None:
    """Write a bomb, in a process of its own: what it takes is no matter of who reads it."""
    command = [sys.executable, "-m", "tests.hostile.rows", name, str(number), str(path)]
    subprocess.run(command, check=True, timeout=60)


@dataclass(frozen=True)
class Place:
    """Where inputs are written and read."""

    work: Path
    killed: runs.KilledRun
    seed: int

    def chance(self, name: str, number: int) -> Chance:
        """What decides about one input."""
        return np.random.default_rng([self.seed, zlib.crc32(name.encode()), number])


def _row_files(
    name: str,
    file: str,
    good: Callable[[], list[bytes]],
) -> Callable[[Place], Judge]:
    def prepared(place: Place) -> Judge:
        seeds, num_bombs = good(), len(rows.BOMBS[name])
        path = place.work / file
        if "images" in file:
            (place.work / "x-labels-idx1-ubyte").write_bytes(rows.idx_labels())

        def judge(number: int) -> Callable[[], None]:
            chance = place.chance(name, number)
            if number < num_bombs:
                _craft(name, number, path)
            else:
                path.write_bytes(damaged_bytes(seeds[number % len(seeds)], seeds, chance))
            return lambda: rows.judge(path, place.work)

        return judge

    return prepared


def _toml(place: Place) -> Judge:
    path, good = place.work / "run.toml", runs.toml_file()

    def judge(number: int) -> Callable[[], None]:
        chance = place.chance("toml", number)
        forged = runs.forged_toml(good.decode(), chance)
        path.write_bytes(forged if number % 2 else damaged_bytes(good, [good, forged], chance))
        return lambda: runs.judge_toml(path)

    return judge


def _weights(place: Place) -> Judge:
    path, good = place.work / "weights.safetensors", runs.weights_files()

    def judge(number: int) -> Callable[[], None]:
        chance = place.chance("weights", number)
        data = good[number % len(good)]
        forged = runs.forged_safetensors(data, chance)
        path.write_bytes(forged if number % 2 else damaged_bytes(data, good, chance))
        return lambda: runs.judge_weights(path, place.killed)

    return judge


def _data_manifest(place: Place) -> Judge:
    """The manifest of a prepared data set: damaged, or forged with a digest that fits."""
    directory = next(path for path in (place.killed.place / "cache").iterdir() if path.is_dir())
    copy = place.work / "prepared"
    shutil.copytree(directory, copy)
    good = (copy / "manifest.json").read_bytes()

    def judge(number: int) -> Callable[[], None]:
        chance = place.chance("data manifest", number)
        forged = damaged_json(good, chance)
        data = (damaged_bytes(good, [good], chance), forged, resealed(forged))[number % 3]
        (copy / "manifest.json").write_bytes(data)
        return lambda: _open(copy)

    return judge


def _open(directory: Path) -> None:
    assert DataSet.open(directory).train.num_rows == read_manifest(directory).train_rows


def resealed(manifest: bytes) -> bytes:
    """The manifest of a data set with the digest that fits it, as a forger would write it."""
    from blake3 import blake3

    try:
        value = json.loads(manifest)
    except (RecursionError, ValueError):  # Python has its limits as well.
        return manifest
    if not isinstance(value, dict):
        return manifest
    hidden = {"sources", "left_out", "digest", "format", "version"}
    bits = {key: inner for key, inner in value.items() if key not in hidden}
    try:
        text = json.dumps([FORMAT, VERSION, bits], sort_keys=True)
    except RecursionError:
        return manifest
    return json.dumps(value | {"digest": blake3(text.encode()).hexdigest()}).encode()


def _run_file(name: str, pattern: str, *, reseals: bool = False) -> Callable[[Place], Judge]:
    """A file of a killed run that is resumed; JSON is forged knowingly every second time."""

    def prepared(place: Place) -> Judge:
        def judge(number: int) -> Callable[[], None]:
            chance = place.chance(name, number)
            run = place.killed.copied()
            files = sorted(run.glob(pattern))
            path = files[int(chance.integers(len(files)))]
            good = path.read_bytes()
            knows = number % 2 == 1
            if knows and path.suffix == ".json":
                path.write_bytes(damaged_json(good, chance))
            elif knows and path.suffix == ".jsonl":
                path.write_bytes(_forged_lines(good, chance))
            elif knows and path.suffix == ".safetensors":
                path.write_bytes(runs.forged_safetensors(good, chance))
            else:
                others = [file.read_bytes() for file in files]
                path.write_bytes(damaged_bytes(good, others, chance))
            is_sealed = reseals and path.name != "MANIFEST.json"
            if is_sealed:
                runs.reseal(path.parent)
            return lambda: place.killed.go_on(is_forged=is_sealed)

        return judge

    return prepared


def _forged_lines(good: bytes, chance: Chance) -> bytes:
    lines = good.splitlines()
    at = int(chance.integers(len(lines)))
    lines[at] = damaged_json(lines[at], chance)
    if chance.integers(4) == 0:
        lines.insert(at, lines[int(chance.integers(len(lines)))])
    return b"\n".join(lines) + b"\n"


FORMATS: dict[str, Callable[[Place], Judge]] = {
    "parquet": _row_files("parquet", "x.parquet", rows.parquet_files),
    "arrow": _row_files("arrow", "x.arrow", rows.arrow_files),
    "csv": _row_files("csv", "x.csv", rows.csv_files),
    "csv.gz": _row_files("csv.gz", "x.csv.gz", rows.csv_gz_files),
    "idx": _row_files("idx", "x-images-idx3-ubyte", rows.idx_files),
    "idx.gz": _row_files("idx.gz", "x-images-idx3-ubyte.gz", rows.idx_gz_files),
    "toml": _toml,
    "start weights": _weights,
    "data manifest": _data_manifest,
    "checkpoint": _run_file("checkpoint", "checkpoints/step-*/*"),
    "checkpoint, resealed": _run_file("resealed", "checkpoints/step-*/*", reseals=True),
    "history": _run_file("history", "history/*.parquet"),
    "digests.jsonl": _run_file("digests", "digests.jsonl"),
    "evaluations.jsonl": _run_file("evaluations", "evaluations.jsonl"),
    "config.json": _run_file("config.json", "config.json"),
    "model.json": _run_file("model.json", "model.json"),
    "environment.json": _run_file("environment.json", "environment.json"),
}
