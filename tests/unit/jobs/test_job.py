"""A request, what becomes of it on the cluster, and what Ray's word on it means."""

from __future__ import annotations

import shlex
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from distsgd import __version__
from distsgd.cli.job import Submission
from distsgd.errors import ConfigError
from distsgd.jobs.job import RUN_ID, Job, JobRequest, default_name, job_of


def request(place: Path, **changes: Any) -> JobRequest:
    wanted = {"name": "digits", "config": place / "my digits.toml", "working_dir": place}
    return JobRequest(**{**wanted, **changes})


def job(status: str, driver_exit_code: int | None) -> Job:
    return Job("digits", "digits.12", status, "", "/runs/digits", 1.0, None, driver_exit_code)


def test_entry_point_is_text_for_a_shell_whatever_stands_in_it(tmp_path: Path) -> None:
    asked = request(tmp_path, overrides=("data.label=a b; $(rm -rf /)",), retries=2)
    words = shlex.split(asked.entry_point("s3://bucket/run 1"))
    assert words[:6] == ["python", "-m", "distsgd", "job", "drive", "my digits.toml"]
    options = ["--name", "digits", "--run-dir", "s3://bucket/run 1", "--retries", "2"]
    assert words[6:] == [
        *options,
        "--submitted-with",
        __version__,
        "--",
        "--set",
        "data.label=a b; $(rm -rf /)",
    ]


def test_options_that_a_running_job_does_not_have_are_told(tmp_path: Path) -> None:
    first = request(tmp_path, overrides=("train.epochs=9", "data.label=a b"), retries=2)
    running = replace(job("RUNNING", None), entry_point=first.entry_point("/runs/digits"))
    assert first.differs(running) == ""
    assert replace(first, retries=0).differs(running) == ""
    assert replace(first, overrides=first.overrides[::-1]).differs(running) == ""
    other = replace(first, overrides=("train.epochs=5", "data.label=a b"), cache_dir="s3://b/c")
    asked = "asked for is --set train.epochs=5, --cache-dir s3://b/c"
    assert other.differs(running) == f"{asked}; it has --set train.epochs=9"
    fewer = replace(first, overrides=("train.epochs=9",), arguments=("--accept-numerics",))
    asked = "asked for is --accept-numerics"
    assert fewer.differs(running) == f"{asked}; it has --set 'data.label=a b'"
    assert "--retries 3" in replace(first, retries=3).differs(running)
    assert "other.toml" in replace(first, config=tmp_path / "other.toml").differs(running)


@pytest.mark.parametrize(
    "stem", ["my.v2", "my run", "-x", "__", "", "größe", "模型", "a" * 200, "a." + "-" * 99]
)
def test_name_that_nobody_typed_can_be_that_of_a_job(tmp_path: Path, stem: str) -> None:
    now = datetime(2026, 11, 30, 16, 5, tzinfo=UTC)
    name = default_name(tmp_path / f"{stem}.toml", now)
    assert name.endswith("-20261130-160500")
    assert request(tmp_path, name=name).name == name


def test_name_that_is_typed_empty_is_refused(tmp_path: Path) -> None:
    asked = Submission(name="", working_dir=tmp_path)
    with pytest.raises(ConfigError, match='--name is ""'):
        asked.request(tmp_path / "a.toml")
    assert Submission(working_dir=tmp_path).request(tmp_path / "a b.toml").name.startswith("a-b-")


def test_place_of_prepared_data_is_told_to_the_driver(tmp_path: Path) -> None:
    words = shlex.split(request(tmp_path, cache_dir="s3://bucket/cache").entry_point("/runs/a"))
    assert words[words.index("--") :] == ["--", "--cache-dir", "s3://bucket/cache"]


def test_configuration_that_looks_like_an_option_stays_a_path(tmp_path: Path) -> None:
    asked = request(tmp_path, config=tmp_path / "-x.toml")
    assert "./-x.toml" in shlex.split(asked.entry_point("/runs/a"))


def test_what_is_sent_is_the_working_directory_without_runs(tmp_path: Path) -> None:
    sent = request(tmp_path).runtime_env()
    assert sent["working_dir"] == str(tmp_path)
    assert sent["excludes"] == ["/runs/"]
    assert int(sent["env_vars"]["RAY_JOB_STOP_WAIT_TIME_S"]) > 30
    asked = request(tmp_path, run_id="9" * 16)
    assert asked.runtime_env()["env_vars"]["DISTSGD_RUN_ID"] == asked.metadata("/a")[RUN_ID]
    recorded = request(tmp_path, config=tmp_path / "runs" / "a" / "config.json")
    assert recorded.runtime_env()["excludes"] == []


def test_image_has_the_configuration_and_nothing_is_sent() -> None:
    asked = request(Path("/elsewhere"), config=Path("/app/a.toml"), image="me/mine:1")
    assert set(asked.runtime_env()) == {"image_uri", "env_vars"}
    assert "/app/a.toml" in shlex.split(asked.entry_point("/runs/a"))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"name": "a.1"}, "must be 1 to 63 letters, digits, - and _"),
        ({"name": ""}, "--name is"),
        ({"name": "-a"}, "no - or _ first"),
        ({"name": "a b"}, "--name is"),
        ({"name": "a" * 64}, "--name is"),
        ({"run_dir": "runs/a"}, "must be s3://BUCKET/KEY"),
        ({"run_dir": "s4://bucket/a"}, "an address is"),
        ({"cache_dir": "cache"}, "--cache-dir is cache; must be s3://BUCKET/KEY"),
        ({"overrides": ("data.path=a.parquet",)}, "must be an address or a path from the root"),
        ({"overrides": ('data.test_path = ["a.csv"]',)}, "where it is relative to its directory"),
        ({"config": Path("/etc/hosts")}, "which is what is sent to the cluster"),
        ({"config": Path("a.toml"), "image": "me/mine"}, "must be a path from the root"),
    ],
)
def test_request_that_cannot_be_is_refused(
    tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError, match=words.replace("(", r"\(")):
        request(tmp_path, **changes)


@pytest.mark.parametrize("run_dir", ["~/runs/a", "/shared/a", "gs://bucket/a", "file:///a", None])
def test_place_that_the_cluster_can_find_is_taken(tmp_path: Path, run_dir: str | None) -> None:
    assert request(tmp_path, run_dir=run_dir).run_dir == run_dir


@pytest.mark.parametrize(
    ("status", "driver_exit_code", "code"),
    [
        ("PENDING", None, None),
        ("RUNNING", None, None),
        ("STOPPED", None, 6),
        ("SUCCEEDED", 0, 0),
        ("SUCCEEDED", None, 0),
        ("FAILED", 5, 5),
        ("FAILED", -9, 4),
        ("FAILED", None, 4),
    ],
)
def test_exit_code_is_that_of_the_run(
    status: str, driver_exit_code: int | None, code: int | None
) -> None:
    assert job(status, driver_exit_code).exit_code == code
    assert job(status, driver_exit_code).has_ended == (code is not None)


def test_job_is_read_from_what_ray_keeps(tmp_path: Path) -> None:
    details = SimpleNamespace(
        submission_id="digits.12",
        metadata=request(tmp_path).metadata("/runs/digits"),
        status="FAILED",
        message="Job entrypoint command failed with exit code 4, last available logs (x):\nlog",
        start_time=1500,
        end_time=2500,
        driver_exit_code=4,
        entrypoint="python -m distsgd",
    )
    found = job_of(details)
    message = "Job entrypoint command failed with exit code 4"
    known = ("digits", "digits.12", "FAILED", message, "/runs/digits", 1.5, 2.5, 4)
    assert found == Job(*known, details.metadata["distsgd_run_id"], "python -m distsgd")
    assert found.number == 12


def test_jobs_of_others_are_left_out() -> None:
    assert job_of(SimpleNamespace(submission_id="raysubmit_x", metadata=None)) is None
    assert job_of(SimpleNamespace(submission_id=None, metadata={"distsgd_name": "a"})) is None
