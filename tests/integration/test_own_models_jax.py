"""Functions of JAX as a model: the same bits for any number of workers, and through kills."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("jax", reason="models of JAX need JAX")

from distsgd.config import TrainConfig
from distsgd.parallel.launch.launch import train_in_process
from tests.integration.pools import server_spec, train_with_threads
from tests.integration.program import Program, digest_alone, settings, wait_until

pytestmark = pytest.mark.timeout(240)

MODEL = """
import jax
import jax.numpy as jnp

from distsgd.models import jax_model


@jax_model
def make(inputs, outputs, width=32):
    def init(key):
        first, second = jax.random.split(key)
        return {
            "hidden": {"w": jax.random.normal(first, (inputs, width)) / 8, "b": jnp.zeros(width)},
            "last": {"w": jax.random.normal(second, (width, outputs)) / 6, "b": jnp.zeros(outputs)},
        }

    def apply(parameters, x, key):
        hidden = jax.nn.relu(x @ parameters["hidden"]["w"] + parameters["hidden"]["b"])
        if key is not None:
            hidden = hidden * jax.random.bernoulli(key, 0.8, hidden.shape) / 0.8
        return hidden @ parameters["last"]["w"] + parameters["last"]["b"]

    def sample_losses(outputs, target):
        return -jnp.take_along_axis(jax.nn.log_softmax(outputs), target[:, None], 1)[:, 0]

    return init, apply, sample_losses, jax.nn.softmax
"""
WORKER = "distsgd_workers.gradient_worker:GradientWorker"
SECTION = '[model]\nfactory = "own_jax:make"\noptions = {width = 24}\n\n'


def test_any_number_of_workers_gives_the_same_bits(
    digits: TrainConfig, tmp_path: Path, cache_dir: Path
) -> None:
    raw = digits.model_dump(mode="json", exclude_unset=True)
    raw |= {"model": {"factory": "tests.unit.models.jax.factories:dropout"}}
    config = TrainConfig.from_dict(raw).with_overrides(
        ["train.steps=40", "parallel.assignment=all", "batch.size=180", "parallel.block_rows=50"]
    )
    alone = config.with_overrides(["parallel.workers=0"])
    spec = server_spec(alone, tmp_path / "0", cache_dir=cache_dir)
    found = {train_in_process(spec, WORKER, lambda _: False).weights_digest}
    for workers in (1, 2, 3):
        own = config.with_overrides([f"parallel.workers={workers}"])
        spec = server_spec(own, tmp_path / str(workers), cache_dir=cache_dir)
        found.add(train_with_threads(spec).weights_digest)
    assert len(found) == 1


def test_killed_workers_and_servers_in_processes_of_ray_change_no_bit(place: Path) -> None:
    (place / "own_jax.py").write_text(MODEL)
    text = (place / "digits.toml").read_text()
    before, _, after = text.partition("[model]")
    (place / "digits.toml").write_text(before + SECTION + after[after.index("[optimizer]") :])
    own = ["train.steps=300", "parallel.assignment=all", "checkpoint.every_steps=50"]
    faults = ["kill worker at step 100 after_compute", "kill server at step 180 before_update"]
    inject = [part for fault in faults for part in ("--inject", fault)]
    program = Program(place, "--workers", "3", *settings(*own), *inject)
    code, found, said = program.result(timeout_s=200)
    assert code == 0, said
    assert len(found["faults"]) == len(faults)
    assert found["weights_digest"] == digest_alone(place, *own)
    wait_until(lambda: not program.processes(), 20, "all processes to end")
