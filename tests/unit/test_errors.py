from __future__ import annotations

import pickle

import pytest

from distsgd import errors

EXAMPLES: list[tuple[errors.DistSGDError, int, str]] = [
    (errors.DistSGDError("root"), 1, "root"),
    (
        errors.ConfigError(["batch.size is 0", "train.steps is 0"]),
        2,
        "batch.size is 0\ntrain.steps is 0",
    ),
    (errors.RunError("runs/a", "is in use"), 2, "runs/a: is in use"),
    (errors.DiskError("runs/a", "cannot be written"), 4, "runs/a: cannot be written"),
    (errors.ModelError("no layers"), 2, "no layers"),
    (errors.StorageError("s3://b/a", "reading: no route"), 4, "s3://b/a: reading: no route"),
    (
        errors.MissingExtraError("matplotlib", "plots"),
        2,
        (
            "matplotlib is not installed; install it in your clone of distsgd with: "
            "scripts/env --with plots, or: pip install -e '.[plots]'"
        ),
    ),
    (errors.DataError("a.parquet", "has no rows"), 3, "a.parquet: has no rows"),
    (errors.ShardError("a.arrow", "is damaged"), 3, "a.arrow: is damaged"),
    (errors.StorageError("s3://b/a", "no answer"), 4, "s3://b/a: no answer"),
    (
        errors.PublishError("s3://b/a", "no answer", "distsgd train a.toml"),
        4,
        (
            "s3://b/a: no answer; what was published before is kept; when the storage answers, "
            "resume with: distsgd train a.toml"
        ),
    ),
    (errors.CheckpointError("step-1", "is damaged"), 3, "step-1: is damaged"),
    (errors.ClusterError("no Ray"), 4, "no Ray"),
    (
        errors.WaitTimeoutError("worker 1", 2.5),
        4,
        "waited 2.5 s for worker 1, without an answer",
    ),
    (
        errors.HeadLostError("head:6379", 21),
        4,
        "the head of the Ray cluster at head:6379 has not answered for 21 s",
    ),
    (
        errors.HeadLostError("head:6379", 21, "runs/a", 7, True, "distsgd train a.toml"),
        4,
        (
            "the head of the Ray cluster at head:6379 has not answered for 21 s; the run was "
            "stopped after step 7, with a checkpoint in runs/a; on a cluster that runs, resume "
            "with: distsgd train a.toml"
        ),
    ),
    (errors.WorkerError(1, 7, "no rows"), 4, "worker 1, step 7: no rows"),
    (errors.NumericsError("other bits"), 4, "other bits"),
    (errors.DivergedError(7, "take a smaller rate"), 5, "step 7: take a smaller rate"),
    (
        errors.VerificationError("runs/a", 7, "another digest"),
        3,
        "runs/a: step 7 is the first that is wrong: another digest",
    ),
    (errors.Interrupted("nothing was written"), 6, "nothing was written"),
    (
        errors.TrainingInterrupted("runs/a", 7),
        6,
        (
            "interrupted after step 7, with a checkpoint; resume with: Trainer(config, "
            'run_dir="runs/a").fit(resume="auto")'
        ),
    ),
    (
        errors.StoppedAtOnce(False, "distsgd train a.toml"),
        6,
        "stopped before training began: no step was made; start it with: distsgd train a.toml",
    ),
    (
        errors.ReplayInterrupted("runs/a", 7, 9),
        6,
        (
            "runs/a: interrupted after 7 of 9 steps were computed again; nothing was found out "
            "about the run, start it again to find out"
        ),
    ),
]


def all_errors(
    root: type[errors.DistSGDError] = errors.DistSGDError,
) -> set[type[errors.DistSGDError]]:
    return {root}.union(*(all_errors(child) for child in root.__subclasses__()))


def test_examples_hold_every_error() -> None:
    ours = {kind for kind in all_errors() if kind.__module__ == errors.__name__}
    assert {type(error) for error, _, _ in EXAMPLES} == ours


@pytest.mark.parametrize(
    ("error", "exit_code", "text"), EXAMPLES, ids=lambda value: type(value).__name__
)
def test_error_survives_pickling_and_keeps_its_exit_code(
    error: errors.DistSGDError, exit_code: int, text: str
) -> None:
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        copy = pickle.loads(pickle.dumps(error, protocol))  # noqa: S301 -- made in the line itself.
        assert type(copy) is type(error)
        assert copy.args == error.args
        assert vars(copy) == vars(error)
        assert str(copy) == str(error) == text
    assert error.exit_code == exit_code


@pytest.mark.parametrize(
    "error", [error for error, _, _ in EXAMPLES], ids=lambda e: type(e).__name__
)
def test_error_is_drawn_with_its_exit_code(error: errors.DistSGDError) -> None:
    name = type(error).__name__
    (row,) = (row.split() for row in str(errors.__doc__).splitlines() if name in row.split())
    assert row[row.index(name) + 1] in {str(error.exit_code), "exit"}
