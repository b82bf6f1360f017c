"""What a newcomer does: train, open the run, ask it for predictions, an evaluation, a verdict."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from distsgd import Callback, Run, TrainConfig, Trainer
from distsgd.cli.app import app
from tests.own_parts import SignDescent

pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, digits: TrainConfig, cache_dir: Path) -> Run:
    path = tmp_path_factory.mktemp("first") / "run"
    said: list[str] = []
    here = digits.with_overrides(["parallel.workers=0"])
    trainer = Trainer(
        here, run_dir=path, cache_dir=cache_dir, callbacks=[Callback(on_message=said.append)]
    )
    trainer.fit()
    return Run.open(path)


@pytest.fixture(scope="module")
def file(digits: TrainConfig) -> Path:
    return Path(digits.data.paths[0])


def test_arrays_and_tables_are_predicted_as_the_command_does(
    run: Run, file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "predictions.parquet"
    done = CliRunner().invoke(
        app, ["predict", str(run.path), "--data", str(file), "--out", str(out)]
    )
    assert done.exit_code == 0, done.output
    said, table = pq.read_table(out), pq.read_table(file)
    columns = [table[name].to_numpy() for name in run.manifest.columns]
    x = np.stack(columns, axis=1) if run.manifest.list_width is None else np.stack(columns[0])
    assert run.predict(table).tolist() == said["prediction"].to_pylist()
    assert run.predict(x).tolist() == said["prediction"].to_pylist()
    probabilities = run.predict_proba(x)
    assert probabilities.tolist() == said["outputs"].to_pylist()
    assert probabilities.sum(axis=1) == pytest.approx(np.ones(len(x)), abs=1e-5)
    (label,) = run.manifest.labels
    assert run.evaluate((x, table[label].to_numpy())) == run.evaluate(file) == run.evaluate(table)
    assert run.evaluate(file).test_accuracy == np.mean(run.predict(x) == table[label].to_numpy())


def test_evaluation_is_that_of_the_result_and_the_run_verifies(run: Run, cache_dir: Path) -> None:
    found = run.evaluate(cache_dir=cache_dir)
    assert found.test_loss == run.metrics["test_loss"]
    assert found.test_accuracy == run.metrics["test_accuracy"]
    assert found.test_accuracy is not None
    assert found.test_accuracy > 0.96
    held = run.verify(cache_dir=cache_dir)
    assert held.steps == run.metrics["steps"] == run.history["step"][-1].as_py()
    assert run.model.num_parameters == sum(array.size for array in run.weights.values())


def test_callbacks_and_a_rule_of_ones_own_are_the_same_on_ray(
    digits: TrainConfig, cache_dir: Path, tmp_path: Path
) -> None:
    def train(workers: int) -> tuple[list[object], Run]:
        seen: list[object] = []
        callback = Callback(
            on_step=lambda view: seen.append((view.step, view.loss)),
            on_epoch_end=seen.append,
            on_evaluate=seen.append,
        )
        changes = [f"parallel.workers={workers}", "train.epochs=2", "optimizer.learning_rate=0.01"]
        trainer = Trainer(
            digits.with_overrides(changes),
            rule=SignDescent(beta=0.75),
            callbacks=[callback],
            run_dir=tmp_path / str(workers),
            cache_dir=cache_dir,
        )
        return seen, trainer.fit()

    (alone, run), (on_ray, again) = train(0), train(1)
    assert on_ray == alone
    assert len(alone) == run.metrics["steps"] + 2 + 2
    assert again.metrics["weights_digest"] == run.metrics["weights_digest"]
    assert again.verify(cache_dir=cache_dir).steps == run.metrics["steps"]


def test_error_of_a_callback_on_ray_ends_the_run_with_a_checkpoint(
    digits: TrainConfig, cache_dir: Path, tmp_path: Path
) -> None:
    def fail(_: object) -> None:
        raise ZeroDivisionError

    trainer = Trainer(
        digits.with_overrides(["parallel.workers=1", "train.epochs=2000"]),
        callbacks=[Callback(on_progress=fail)],
        run_dir=tmp_path / "run",
        cache_dir=cache_dir,
    )
    with pytest.raises(ZeroDivisionError):
        trainer.fit()
    assert Run.open(tmp_path / "run").checkpoint.step > 0
