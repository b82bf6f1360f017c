"""A run that is kept on object storage is trained, read, resumed and verified as one on a disk."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from distsgd import Callback, Run, TrainConfig, Trainer
from distsgd.base import leases
from distsgd.base.locations import Location
from distsgd.errors import ConfigError, PublishError, RunError, TrainingInterrupted
from distsgd.experiments.compare import compare
from distsgd.lab.faults.injection import overrides
from distsgd.parallel.server.step_runner import StepView
from distsgd.run.control import control_of
from distsgd.run.progress import Progress
from distsgd.store.remote_run import RemoteRun
from tests.storage.proxy import FaultProxy

DIGITS = Path(__file__).parents[2] / "distsgd" / "examples" / "digits.toml"


@pytest.fixture(scope="module")
def config() -> TrainConfig:
    pairs = ["train.epochs=2", "parallel.workers=0", "checkpoint.every_steps=10"]
    return TrainConfig.from_toml(DIGITS).with_overrides(pairs)


@pytest.fixture(scope="module")
def cache_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def digest(config: TrainConfig, cache_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    on_disk = Trainer(config, run_dir=tmp_path_factory.mktemp("disk") / "run", cache_dir=cache_dir)
    return str(on_disk.fit().metrics["weights_digest"])


def stops_at(step: int) -> tuple[Callable[[Trainer], None], Callback]:
    """A callback that ends the run of a trainer, which it is told of afterwards."""
    trainers: list[Trainer] = []

    def on_step(view: StepView) -> None:
        if view.step == step:
            trainers[0].request_stop()
            threading.Event().wait(0.5)  # It is looked at from outside, by another thread.

    return trainers.append, Callback(on_step=on_step)


def test_run_at_an_address_has_the_bits_and_the_record_of_one_on_a_disk(
    config: TrainConfig, cache_dir: Path, digest: str, bucket: Location
) -> None:
    address = f"{bucket}/runs/a"
    made = Trainer(config, run_dir=address, cache_dir=cache_dir).fit()
    assert made.metrics["weights_digest"] == digest
    assert (made.metrics["run"], str(made.place)) == (address, address)
    run = Run.open(address)
    assert run.metrics == made.metrics
    assert len(run.history) == made.metrics["steps"]
    assert run.evaluate(cache_dir=cache_dir).test_accuracy == made.metrics["test_accuracy"]
    assert run.verify(cache_dir=cache_dir).steps == made.metrics["steps"]
    assert address in repr(run)
    copy = run.path
    assert copy.is_dir()
    del run
    assert not copy.exists()
    again = Trainer(config, run_dir=address, cache_dir=cache_dir).fit(resume="auto")
    assert again.metrics == made.metrics
    with control_of(address, "local") as control:
        report = control.report()
        with pytest.raises(RunError, match=rf"{address}: is not being trained.*done, step"):
            control.stop()
    assert (report["run"], report["status"]) == (address, "done")
    assert report["step"] == made.metrics["steps"]
    with pytest.raises(RunError, match=f"{address}: holds a run already"):
        Trainer(config, run_dir=address, cache_dir=cache_dir).fit()
    assert not Path("s3:").exists()


def test_interrupted_run_is_continued_from_its_newest_checkpoint_by_another_process(
    config: TrainConfig, cache_dir: Path, digest: str, bucket: Location
) -> None:
    address = f"{bucket}/runs/b"
    tell, callback = stops_at(15)
    first = Trainer(config, run_dir=address, cache_dir=cache_dir, callbacks=[callback])
    tell(first)
    with pytest.raises(TrainingInterrupted, match=f"resume with: .*{address}"):
        first.fit()
    said: list[str] = []
    callbacks = [Callback(on_message=said.append)]
    second = Trainer(config, run_dir=address, cache_dir=cache_dir, callbacks=callbacks)
    assert second.fit(resume="auto").metrics["weights_digest"] == digest
    assert any(text.startswith("continuing after step ") for text in said)


def test_storage_that_fails_ends_the_run_and_a_resume_gives_the_same_bits(
    config: TrainConfig,
    cache_dir: Path,
    digest: str,
    bucket: Location,
    proxy: FaultProxy,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(leases, "LEASE_S", 1.0)  # It could not be let go of.
    address = f"{bucket}/runs/c"

    def fail(view: StepView) -> None:
        if view.step == 25:
            proxy.refusals = 1000

    broken = Trainer(
        config, run_dir=address, cache_dir=cache_dir, callbacks=[Callback(on_step=fail)]
    )
    with pytest.raises(PublishError, match=f"{address}: the end could not .*resume with: "):
        broken.fit()
    proxy.refusals = 0
    done = Trainer(config, run_dir=address, cache_dir=cache_dir).fit(resume="auto")
    assert done.metrics["weights_digest"] == digest


def test_outage_at_a_checkpoint_ends_no_run(
    config: TrainConfig, cache_dir: Path, digest: str, bucket: Location, proxy: FaultProxy
) -> None:
    address, said = f"{bucket}/runs/f", list[str]()

    def fail_for_a_while(view: StepView) -> None:
        if view.step in (15, 35):
            proxy.refusals = 1000 if view.step == 15 else 0

    callbacks = [Callback(on_step=fail_for_a_while, on_message=said.append)]
    made = Trainer(config, run_dir=address, cache_dir=cache_dir, callbacks=callbacks).fit()
    assert made.metrics["weights_digest"] == digest
    about = [text for text in said if "publish" in text]
    assert ["step 20 is published with the next" in about[0], *about[1:]] == [
        True,
        f"{address} is published again, up to step 40",
    ]
    assert Run.open(address).metrics == made.metrics


def test_storage_that_ignores_conditions_is_named_by_the_run(
    config: TrainConfig, cache_dir: Path, digest: str, bucket: Location, proxy: FaultProxy
) -> None:
    proxy.has_conditions = False
    address, said = f"{bucket}/runs/h", list[str]()
    callbacks = [Callback(on_message=said.append)]
    made = Trainer(config, run_dir=address, cache_dir=cache_dir, callbacks=callbacks).fit()
    assert made.metrics["weights_digest"] == digest
    (warning,) = [text for text in said if text.startswith("WARNING")]
    assert warning.startswith(f"WARNING: {address}: processes that take this run at the same")
    assert "this storage ignores the conditions of writes (If-Match); have one at a" in warning


def test_what_only_a_run_on_a_disk_shows_is_not_written_into_a_working_copy(
    config: TrainConfig,
    cache_dir: Path,
    bucket: Location,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    seen: set[str] = set()

    def look(_: Progress) -> None:
        seen.update(path.name for path in tmp_path.rglob("*"))

    callbacks = [Callback(on_progress=look)]
    Trainer(config, run_dir=f"{bucket}/runs/g", cache_dir=cache_dir, callbacks=callbacks).fit()
    assert "config.json" in seen
    assert "status.json" not in seen


def test_second_driver_is_refused_and_when_told_supersedes_the_first_which_writes_no_more(
    config: TrainConfig,
    cache_dir: Path,
    digest: str,
    bucket: Location,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(leases, "LEASE_S", 1.0)
    address = f"{bucket}/runs/d"
    is_there, may_go_on = threading.Event(), threading.Event()

    def wait(view: StepView) -> None:
        if view.step == 12:
            is_there.set()
            assert may_go_on.wait(60)

    errors: list[BaseException] = []

    def train_first() -> None:
        callbacks = [Callback(on_step=wait)]
        try:
            Trainer(config, run_dir=address, cache_dir=cache_dir, callbacks=callbacks).fit()
        except RunError as error:
            errors.append(error)

    first = threading.Thread(target=train_first, daemon=True)
    first.start()
    assert is_there.wait(60)
    second = Trainer(config, run_dir=address, cache_dir=cache_dir)
    with pytest.raises(RunError, match=f"{address}: is in use by process .*--take-over"):
        second.fit(resume="auto")
    third = Trainer(config, run_dir=address, cache_dir=cache_dir)
    done = third.fit(resume="auto", take_over=True)
    assert done.metrics["weights_digest"] == digest
    may_go_on.set()
    first.join(60)
    (error,) = errors
    assert "has taken it over; nothing more is written" in str(error)
    assert Run.open(address).metrics == done.metrics


def test_run_that_never_began_leaves_nothing(
    config: TrainConfig, cache_dir: Path, bucket: Location
) -> None:
    def refuse(_: Run) -> None:
        raise ZeroDivisionError

    trainer = Trainer(
        config,
        run_dir=f"{bucket}/runs/e",
        cache_dir=cache_dir,
        callbacks=[Callback(on_train_start=refuse)],
    )
    with pytest.raises(ZeroDivisionError):
        trainer.fit()
    assert not RemoteRun(bucket / "runs" / "e").exists()


def test_what_a_run_on_storage_cannot_have_is_refused(config: TrainConfig) -> None:
    with pytest.raises(ConfigError, match="rows are in memory; must be a directory"):
        Trainer(config, data=([[0.0]], [0]), run_dir="s3://b/run")
    observed = config.with_overrides(overrides(["kill server at step 50"]))
    with pytest.raises(ConfigError, match=r"parallel\.observer is set"):
        Trainer(observed, run_dir="s3://b/run")
    with pytest.raises(ConfigError, match="must not be on hdfs, where what names a run's files"):
        Trainer(config, run_dir="hdfs://host:8020/run")
    with pytest.raises(ConfigError, match="begins with s3, gs"):
        Trainer(config, run_dir="http://b/run")


def test_run_at_an_address_is_compared_with_one_on_a_disk(
    config: TrainConfig, cache_dir: Path, bucket: Location, tmp_path: Path
) -> None:
    address = f"{bucket}/runs/compared"
    for place in (address, tmp_path / "run"):
        Trainer(config, run_dir=place, cache_dir=cache_dir).fit()
    found = compare([address, tmp_path / "run"], target="test_accuracy>=0.5")
    assert [run.place for run in found.runs] == [address, str(tmp_path / "run")]
    assert (found.settings, found.bits[0].first_difference) == ((), None)
    assert found.bits[0].num_digests == 1
    first, second = found.runs
    assert first.to_target
    assert second.to_target
    assert first.to_target.steps == second.to_target.steps
