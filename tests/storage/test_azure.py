"""Data and runs on Azure's storage, where its emulator (azurite) is on the path."""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from distsgd import Run, TrainConfig, Trainer
from distsgd.base import azure, leases
from distsgd.base.locations import Location
from distsgd.data.options import PrepareOptions
from distsgd.data.prepare.prepare import prepare
from distsgd.errors import RunError, StorageError
from distsgd.store.remote_run import RemoteRun
from tests.integration.program import wait_until

DIGITS = Path(__file__).parents[2] / "distsgd" / "examples" / "digits.toml"
ACCOUNT = "devstoreaccount1"
# Of every such emulator; no secret.
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


def is_up(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(scope="module")
def container() -> Iterator[Location]:
    """A container of an emulator."""
    program = shutil.which("azurite-blob")
    if program is None:
        pytest.skip("needs azurite-blob on the path (npm install azurite)")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    # pyarrow speaks a newer version of the interface than it knows.
    options = ["--inMemoryPersistence", "--skipApiVersionCheck", "--disableTelemetry", "--silent"]
    command = [program, *options, "--blobPort", str(port)]
    with (
        pytest.MonkeyPatch.context() as patch,
        subprocess.Popen(command, stdout=subprocess.DEVNULL) as process,
    ):
        try:
            wait_until(lambda: is_up(port), 30, "azurite")
            patch.setenv(azure.KEY, KEY)
            patch.setenv(azure.ENDPOINT, f"http://127.0.0.1:{port}/{ACCOUNT}")
            place = Location(f"abfs://container@{ACCOUNT}.dfs.core.windows.net")
            system, path = place.file_system()
            system.create_dir(path)
            yield place
        finally:
            process.terminate()


def test_data_and_run_have_the_bits_of_those_on_a_disk(container: Location, tmp_path: Path) -> None:
    pairs = ["train.epochs=2", "parallel.workers=0"]
    config = TrainConfig.from_toml(DIGITS).with_overrides(pairs)
    on_disk = Trainer(config, run_dir=tmp_path / "run", cache_dir=tmp_path / "cache").fit()
    rows, run = f"{container}/rows", f"{container}/run"
    options = PrepareOptions(label=("digit",), test_fraction=0.2, standardise="mean_std")
    prepare(str(DIGITS.with_suffix(".parquet")), rows, options=options, cache_dir=tmp_path / "up")
    stored, there = config.with_overrides([f"data.path={rows}"]), tmp_path / "fetched"
    made = Trainer(stored, run_dir=run, cache_dir=there).fit()
    assert made.metrics["weights_digest"] == on_disk.metrics["weights_digest"]
    opened = Run.open(run)
    assert opened.metrics == made.metrics
    assert opened.verify(cache_dir=there).steps == made.metrics["steps"]


def test_one_of_two_owners_has_the_run_and_the_one_that_lost_writes_nothing_more(
    container: Location, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "LEASE_S", 0.6)
    run, place = RemoteRun(container / "owned"), tmp_path / "work"
    assert not run.weakness
    place.mkdir()
    (place / "config.json").write_text("{}")
    run.create(place)
    with run.lease("1 on a") as first:
        with pytest.raises(RunError, match="in use by process 1 on a"), run.lease("2 on b"):
            raise AssertionError
        with run.lease("2 on b", take_over=True) as second:
            (place / "mine").write_text("second")
            second.publish(place)
            (place / "mine").write_text("first")
            with pytest.raises(RunError, match="2 on b has taken it over; nothing more is written"):
                first.publish(place)
    assert (run.fetch(tmp_path / "copy") / "mine").read_text() == "second"


def test_container_that_is_not_there_is_named(container: Location) -> None:
    missing = Location(f"abfs://none@{ACCOUNT}.dfs.core.windows.net") / "rows"
    for look in (missing.files, missing.read_bytes, RemoteRun(missing).exists):
        with pytest.raises(StorageError, match=rf"none@.* does not exist.* {azure.ENDPOINT}"):
            look()
    assert (container / "rows").stat() is None


def test_refusal_that_pyarrow_has_no_name_for_is_one_of_the_storage(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv(azure.KEY, raising=False)
    monkeypatch.setenv(azure.ENDPOINT, "http://127.0.0.1:9")
    place = Location("abfs://rows@account.dfs.core.windows.net/a")
    with pytest.raises(StorageError, match=r"a: looking: .*Bearer token authentication"):
        place.stat()
