"""What two processes that want one run on object storage see of each other."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from distsgd import Callback, TrainConfig, Trainer
from distsgd.base import leases
from distsgd.base.locations import Location
from distsgd.cli.app import app
from distsgd.errors import NumericsError, PublishError, RunError
from distsgd.parallel.server.step_runner import StepView
from distsgd.store.remote_run import RemoteRun
from tests.storage.proxy import FaultProxy

DIGITS = Path(__file__).parents[2] / "distsgd" / "examples" / "digits.toml"


@pytest.fixture(scope="module")
def config() -> TrainConfig:
    pairs = ["train.epochs=2", "parallel.workers=0", "checkpoint.every_s=0"]
    return TrainConfig.from_toml(DIGITS).with_overrides(pairs)


@pytest.fixture(scope="module")
def cache_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def trainer_with(
    config: TrainConfig, run: Location, cache_dir: Path, at: int, do: Callable[[], object]
) -> Trainer:
    """One that does something at a step."""

    def on_step(view: StepView) -> None:
        if view.step == at:
            do()

    callbacks = [Callback(on_step=on_step)]
    return Trainer(config, run_dir=str(run), cache_dir=cache_dir, callbacks=callbacks)


def interrupted(config: TrainConfig, run: Location, cache_dir: Path) -> None:
    """A run that ends at a step, with a checkpoint: where a hook raises, no thread is asked."""

    def fail() -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        trainer_with(config, run, cache_dir, 15, fail).fit()


def test_loser_ends_at_a_step_without_waiting_for_a_checkpoint(
    config: TrainConfig, cache_dir: Path, bucket: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "LEASE_S", 0.3)
    seen: list[int] = []

    def is_taken() -> None:
        with RemoteRun(bucket / "run").lease("2 on b", take_over=True):
            threading.Event().wait(0.5)  # A renewal finds out.

    trainer = trainer_with(config, bucket / "run", cache_dir, 5, is_taken)
    trainer._callbacks._callbacks[0].on_epoch_end = lambda end: seen.append(end.step)  # type: ignore[method-assign]
    with pytest.raises(RunError, match="nothing more is written"):
        trainer.fit()
    assert not seen


def test_bits_that_were_accepted_stand_in_the_record(
    config: TrainConfig, cache_dir: Path, bucket: Location, tmp_path: Path
) -> None:
    run = RemoteRun(bucket / "run")
    interrupted(config, run.location, cache_dir)
    place = run.fetch(tmp_path / "copy")
    environment = json.loads((place / "environment.json").read_text())
    environment["numerics"]["probe"] = "of another machine"
    (place / "environment.json").write_text(json.dumps(environment))
    with run.lease("1 on a") as lease:
        lease.publish(place)
    again = Trainer(config, run_dir=str(run.location), cache_dir=cache_dir)
    with pytest.raises(NumericsError, match=f"{run.location} was made under another"):
        again.fit(resume="auto")
    again.fit(resume="auto", accept_numerics=True)
    record = json.loads((run.fetch(tmp_path / "after") / "environment.json").read_text())
    (entry,) = record["accepted_numerics"]
    assert entry["after_step"] > 10


def test_commands_take_the_address_and_show_who_trains(
    config: TrainConfig,
    cache_dir: Path,
    bucket: Location,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = RemoteRun(bucket / "run")
    interrupted(config, run.location, cache_dir)

    def shown(*words: str) -> dict[str, object]:
        done = CliRunner().invoke(app, [*words, str(run.location), "--json"])
        assert done.exit_code == 0, done.output
        return dict(json.loads(done.stdout))

    assert shown("show")["status"] == "not finished"
    assert f"--run-dir {run.location} --resume auto" in str(shown("show")["resume_with"])
    monkeypatch.setattr(leases, "LEASE_S", 0.6)
    with run.lease("1 on a"):
        now = shown("show")
        assert (now["status"], now["process"]) == ("training", "1 on a")
    Trainer(config, run_dir=str(run.location), cache_dir=cache_dir).fit(resume="auto")
    assert shown("show")["status"] == "done"
    assert shown("evaluate", "--cache-dir", str(cache_dir))["rows"]
    assert shown("verify", "--cache-dir", str(cache_dir))
    assert not list(tmp_path.glob("s3:*"))


def test_command_whose_end_is_not_published_says_how_it_is_resumed(
    cache_dir: Path, bucket: Location, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "LEASE_S", 0.3)

    def fail_for_good(line: str) -> None:
        if "/objects/1-" in line:  # The first checkpoint.
            proxy.refusals = 10**6

    proxy.on_request = fail_for_good
    where = ["--run-dir", f"{bucket}/run", "--cache-dir", str(cache_dir)]
    words = ["train", str(DIGITS), "--workers", "0", *where, "--set", "train.epochs=1"]
    error = CliRunner().invoke(app, words).exception
    assert isinstance(error, PublishError)
    assert error.exit_code == 4
    said = str(error)
    assert f"{bucket}/run: the end could not be published within 0.3 s" in said
    assert f"resume with: distsgd train {DIGITS} --set train.epochs=1 --workers 0" in said
    assert f"--run-dir {bucket}/run --cache-dir {cache_dir} --resume auto" in said
