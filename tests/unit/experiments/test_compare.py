"""What a comparison finds in real runs: settings, bits, course, machines, and what is missing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distsgd import Callback, TrainConfig, Trainer
from distsgd.errors import CheckpointError, ConfigError, DivergedError, Interrupted, RunError
from distsgd.experiments.compare import Comparison, compare
from distsgd.experiments.compared_run import ComparedRun
from distsgd.experiments.course import Course
from distsgd.experiments.report.comparison.sentences import sentences
from tests.unit.experiments.rows import NUM_ROWS, config_of, write_rows

TARGET = "test_accuracy>=0.7"
BATCH, STEPS = 16, 90  # Of the run "base": 6 epochs of 240 rows.


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs in a directory, each by its name."""
    place = tmp_path_factory.mktemp("runs")
    rows = write_rows(place)
    (place / "elsewhere").mkdir()
    copied = shutil.copy(rows, place / "elsewhere")
    base = config_of(rows, digest_every=10).with_overrides([f"batch.size={BATCH}"])
    layers = 'model.layers=[{type="dense",units=4,activation="relu"},{type="dense",units=3}]'
    for name, overrides in {
        "base": [],
        "elsewhere/base": [f"data.path={copied}"],
        "wide": ["batch.size=full", "train.epochs=12", "optimizer.learning_rate=1.0"],
        "deep": [layers],
        "untested": ["data.test_fraction=0.0"],
        "diverged": [layers, "optimizer.learning_rate=1e38"],
        "sparse": ["train.history_every=1000"],
    }.items():
        train(base.with_overrides(overrides), place / name)
    train(base, place / "cut", stop_at=40)
    return place


def train(config: TrainConfig, run: Path, *, stop_at: int = 0) -> None:
    def look(view: Any) -> None:
        if view.step == stop_at:
            raise Interrupted("enough")  # Which leaves a checkpoint.

    callbacks = [Callback(on_step=look)] if stop_at else []
    config = config.with_overrides(["parallel.workers=0"])
    cache = run.parents[1] / f"cache-of-{run.parent.name}"
    trainer = Trainer(config, run_dir=run, cache_dir=cache, callbacks=callbacks)
    with suppress(Interrupted, DivergedError):
        trainer.fit()


@pytest.fixture
def changed(made: Path, tmp_path: Path) -> Callable[..., Path]:
    """A copy of the run "base", one of whose JSON files was changed."""

    def copy(file: str, change: Callable[[dict[str, Any]], object]) -> Path:
        run = tmp_path / f"copy-{len(list(tmp_path.iterdir()))}"
        shutil.copytree(made / "base", run)
        values = json.loads((run / file).read_text())
        change(values)
        (run / file).write_text(json.dumps(values))
        return run

    return copy


def told(found: Comparison) -> str:
    return " ".join(one.sentence for one in sentences(found))


def the(found: Comparison, label: str) -> ComparedRun:
    return next(run for run in found.runs if run.label == label)


def test_only_settings_that_differ_are_named(made: Path) -> None:
    found = compare([made / "base", made / "wide"])
    assert {row.key: row.values for row in found.settings} == {
        "batch.size": (BATCH, "full"),
        "train.epochs": (6, 12),
        "optimizer.learning_rate": (0.1, 1.0),
    }
    assert "differ in optimizer.learning_rate, batch.size and train.epochs" in told(found)
    assert "no bits are compared" in told(found)


def test_settings_of_layers_are_compared_layer_by_layer(made: Path) -> None:
    found = compare([made / "base", made / "deep"])
    rows = {row.key: row.values for row in found.settings}
    assert rows["model.layers.1.units"] == (3, 4)
    assert rows["model.layers.2.units"] == (None, 3)


def test_bits_of_one_configuration_are_compared_wherever_the_rows_lie(made: Path) -> None:
    found = compare([made / "base", made / "elsewhere" / "base"])
    (bits,) = found.bits
    assert (bits.runs, bits.first_difference, bits.reason) == (("A", "B"), None, "")
    assert bits.num_digests == STEPS // 10 + 1  # And that of the weights at the end.
    assert "A and B have the same configuration and data: 10 digests compared, all equal" in told(
        found
    )


def test_bits_of_a_run_that_was_cut_short_are_compared_as_far_as_it_came(made: Path) -> None:
    found = compare([made / "base", made / "cut"])
    assert found.settings == ()
    assert (found.bits[0].num_digests, found.bits[0].first_difference) == (4, None)
    assert the(found, "B").status == "not finished"
    assert "B is not finished; its record ends at step 40" in told(found)


def test_wrong_digest_is_an_alarm_and_names_its_step(
    made: Path, changed: Callable[..., Path]
) -> None:
    run = changed("config.json", lambda _: None)
    log = run / "digests.jsonl"
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    lines[2]["digest"] = "0" * 64
    log.write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = compare([made / "base", made / "cut", run])
    assert found.bits[0].first_difference == 30
    first = sentences(found)[0]
    assert first.is_alarm
    assert "the first that differ are at step 30" in first.sentence


def test_other_digests_of_another_numerics_profile_are_no_alarm(
    made: Path, changed: Callable[..., Path]
) -> None:
    other = changed("environment.json", lambda it: it["numerics"].update(probe="another"))
    (other / "digests.jsonl").write_text(json.dumps({"step": 10, "digest": "0" * 64}) + "\n")
    found = compare([made / "base", other])
    assert found.bits[0].first_difference == 10
    assert "numerics profiles" in found.bits[0].reason
    assert not any(one.is_alarm for one in sentences(found))
    assert [row.key for row in found.environments] == ["numerics.probe"]


def test_alarm_is_not_hidden_by_a_third_run_of_another_profile(
    made: Path, changed: Callable[..., Path]
) -> None:
    other = changed("environment.json", lambda it: it["numerics"].update(probe="another"))
    wrong = changed("result.json", lambda it: it.update(weights_digest="0" * 64))
    for runs in ([made / "base", other, wrong], [wrong, other, made / "base"]):
        assert sentences(compare(runs))[0].is_alarm


def test_runs_without_a_common_digest_say_so(made: Path, changed: Callable[..., Path]) -> None:
    other = changed("result.json", lambda it: it.clear())
    (other / "digests.jsonl").unlink()
    found = compare([made / "base", other])
    assert found.bits[0].num_digests == 0
    assert "no digest was compared, since no two of them" in told(found)


def test_target_is_met_at_the_first_evaluation_that_meets_it(made: Path) -> None:
    found = compare([made / "base", made / "wide", made / "untested"], target=TARGET)
    for run in found.runs[:2]:
        meeting = [it for it in run.evaluations if it.test_accuracy and it.test_accuracy >= 0.7]
        assert run.to_target is not None
        assert run.to_target.steps == meeting[0].step
        rows_a_step = NUM_ROWS if run.label == "B" else BATCH
        assert run.to_target.samples == meeting[0].samples == rows_a_step * meeting[0].step
    missing = the(found, "C").to_target
    assert missing is not None
    assert (missing.steps, missing.reason) == (None, "no evaluation")
    never = compare([made / "base", made / "cut"], target="test_loss<=1e-9")
    reasons = [run.to_target.reason for run in never.runs if run.to_target]
    assert reasons == ["not reached", "not reached, not finished"]
    assert "A did not meet the target test_loss <= 1e-09 (not reached)" in told(never)


def test_figures_are_those_of_the_result(made: Path) -> None:
    run = the(compare([made / "base", made / "wide"]), "A")
    result = json.loads((made / "base" / "result.json").read_text())
    assert (run.steps, run.samples) == (STEPS, 6 * NUM_ROWS)
    assert run.seconds == result["seconds"]
    assert (run.test_loss, run.test_accuracy) == (result["test_loss"], result["test_accuracy"])
    assert run.train_loss == pytest.approx(result["train_loss"], rel=1e-12)
    assert run.noise_scale is not None
    assert run.step_s is not None


def test_what_is_missing_has_its_reason(made: Path) -> None:
    places = [made / name for name in ("base", "untested", "diverged", "sparse")]
    found = compare(places, target=TARGET)
    untested, diverged, sparse = (the(found, label) for label in "BCD")
    assert (untested.test_loss, untested.evaluations) == (None, ())
    assert (diverged.status, diverged.train_loss) == ("diverged", None)
    assert diverged.to_target is not None
    assert diverged.to_target.reason.endswith(", diverged")
    assert "C diverged at step" in told(found)
    assert (sparse.samples, sparse.losses, sparse.steps) == (None, (), STEPS)
    assert sparse.step_s_reason
    assert sparse.to_target is not None
    assert sparse.to_target.steps is not None
    assert sparse.to_target.reason == "no history"
    assert found.metric == "test_accuracy"
    assert compare([made / "untested", made / "base"]).metric == "test_accuracy"


def test_result_of_an_earlier_session_is_not_taken_for_the_end(
    made: Path, changed: Callable[..., Path]
) -> None:
    other = changed("result.json", lambda it: it.update(steps=40, status="interrupted"))
    run = the(compare([made / "base", other]), "B")
    assert (run.status, run.steps) == ("not finished", STEPS)


def test_runs_of_two_machines_are_told_apart(made: Path, changed: Callable[..., Path]) -> None:
    other = changed("environment.json", lambda it: it.update(platform="Plan 9"))
    found = compare([made / "base", other, made / "wide"])
    assert found.machines == (("A", "C"), ("B",))
    assert "times of one are not compared" in told(found)
    assert "B" not in told(found).split("most samples a second")[1].split(".")[0]


@pytest.mark.parametrize(
    ("names", "target", "message"),
    [
        ((), None, "RUN is given 0 times; must be two or more"),
        (("base",), None, "one RUN is given; must be two or more"),
        (("base", "elsewhere/../base"), None, "is given twice"),
        (("base", "wide"), "accuracy>=2", '--target is "accuracy>=2"; must be'),
    ],
)
def test_wrong_request_is_refused(
    made: Path, names: tuple[str, ...], target: str | None, message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        compare([made / name for name in names], target=target)
    assert message in str(caught.value)
    assert "train.target" not in str(caught.value)
    assert "[train]" not in str(caught.value)


def test_what_is_no_run_is_refused_by_its_name(made: Path, changed: Callable[..., Path]) -> None:
    with pytest.raises(RunError, match="elsewhere: holds no config"):
        compare([made / "base", made / "elsewhere"])
    with pytest.raises(RunError, match="nowhere: is no directory"):
        compare([made / "base", made / "nowhere"])
    with pytest.raises(RunError, match="run format 1"):
        compare([made / "base", changed("environment.json", lambda it: it.pop("format"))])
    broken = changed("config.json", lambda _: None)
    (broken / "evaluations.jsonl").write_text('{"step": 1}\n')
    with pytest.raises(CheckpointError, match="evaluations"):
        compare([made / "base", broken])


def test_seconds_a_step_leave_evaluations_out() -> None:
    steps = np.arange(0.0, 41.0)
    evaluated = [4, 10, 40]
    gaps = np.where(np.isin(steps[:-1], evaluated), 9.0, 0.5)
    course = Course(steps, steps / 10, steps * 8, np.r_[0.0, np.cumsum(gaps)], steps, steps)
    found, reason = course.step_seconds(evaluated)
    assert found is not None
    assert (found.low, found.mid, found.high, reason) == (0.5, 0.5, 0.5, "")
    found, reason = course.step_seconds(range(36))
    assert (found, reason) == (
        None,
        "too few steps without an evaluation in between (4)",
    )


def test_losses_are_means_over_the_samples_and_of_all_of_them() -> None:
    steps = np.arange(0.0, 1001.0)
    loss = np.r_[0.0, np.linspace(2.0, 1.0, 1000)]
    course = Course(steps, steps / 100, steps * 4, steps * 0.1, loss, loss)
    points = course.losses()
    assert len(points) == 60
    assert points[-1].samples == 4000
    spans = np.diff([0, *(point.samples for point in points)])
    means = [point.train_loss for point in points]
    assert np.average(means, weights=spans) == pytest.approx(1.5, rel=1e-12)
