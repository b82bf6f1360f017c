"""The files of docker/: that they parse, say what their readers know, and fit the program."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from distsgd.run.metrics import samples_of
from tests.unit.run.test_metrics import STATUS

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "docker"
MANIFESTS = sorted((DOCKER / "kuberay").glob("*.yaml"))
yaml = pytest.importorskip("yaml", reason="needs PyYAML, which comes with ray")
jsonschema = pytest.importorskip("jsonschema", reason="needs jsonschema, which comes with ray")


def parsed(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.stem)
def test_manifest_for_kuberay_has_known_fields_only(path: Path) -> None:
    schema = json.loads((Path(__file__).parent / "kuberay_fields.json").read_text())
    validator = jsonschema.Draft202012Validator(schema)
    kind = parsed(path)["kind"]
    found = validator.evolve(schema={**schema, "oneOf": [{"$ref": f"#/$defs/{kind}"}]})
    assert [error.message for error in found.iter_errors(parsed(path))] == []


def cluster_of(path: Path) -> Any:
    spec = parsed(path)["spec"]
    return spec.get("rayClusterSpec", spec)


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.stem)
def test_cluster_wants_a_token_is_of_this_ray_and_drains_its_workers(path: Path) -> None:
    cluster = cluster_of(path)
    assert cluster["rayVersion"] == version("ray")
    assert cluster["authOptions"] == {"mode": "token"}
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        pod = group["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"]
    for group in cluster["workerGroupSpecs"]:
        pod = group["template"]["spec"]
        (container,) = pod["containers"]
        (*_, script) = container["lifecycle"]["preStop"]["exec"]["command"]
        deadline = re.search(r"--deadline-remaining-seconds (\d+)", script)
        assert "ray drain-node" in script
        assert deadline is not None
        assert int(deadline[1]) < pod["terminationGracePeriodSeconds"]


def test_job_for_kuberay_continues_its_run() -> None:
    spec = parsed(DOCKER / "kuberay" / "rayjob.yaml")["spec"]
    words = shlex.split(spec["entrypoint"])
    assert words[:2] == ["distsgd", "train"]
    assert words[words.index("--resume") + 1] == "auto"
    assert words[words.index("--run-dir") + 1].startswith("s3://")
    assert spec["backoffLimit"] > 0


def test_compose_file_has_a_head_without_cpus_workers_storage_and_a_job() -> None:
    services = parsed(DOCKER / "compose.yaml")["services"]
    assert set(services) == {"head", "worker", "storage", "bucket", "job"}
    assert "--num-cpus=0" in services["head"]["command"]
    for name in ("head", "worker", "job"):
        environment = services[name]["environment"]
        assert environment["RAY_AUTH_MODE"] == "token"
        assert "?" in environment["RAY_AUTH_TOKEN"]  # Compose refuses to start without one.
    assert "--follow" in services["job"]["command"]
    for service in services.values():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))


def compose() -> list[str] | None:
    """Docker Compose as a command; None where there is none."""
    for words in (["docker", "compose"], ["docker-compose"]):
        if shutil.which(words[0]):
            done = subprocess.run([*words, "version"], capture_output=True, check=False)
            if done.returncode == 0:
                return words
    return None


def test_compose_file_is_taken_by_compose() -> None:
    words = compose()
    if words is None:
        pytest.skip("Docker Compose is not installed")
    done = subprocess.run(
        [*words, "-f", DOCKER / "compose.yaml", "config", "--quiet"],
        env={
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "RAY_AUTH_TOKEN": "a",
            "STORAGE_PASSWORD": "b",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_slurm_script_is_bash_and_says_how_it_is_used() -> None:
    script = DOCKER / "slurm.sh"
    assert subprocess.run(["bash", "-n", script], check=False).returncode == 0
    done = subprocess.run(["bash", script], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "usage: sbatch" in done.stderr


def test_dashboard_shows_metrics_that_exist() -> None:
    board = json.loads((DOCKER / "grafana" / "distsgd.json").read_text())
    shown = {
        name
        for panel in board["panels"]
        for target in panel["targets"]
        for name in re.findall(r"distsgd_(\w+)", target["expr"])
    }
    assert shown == {sample.name for sample in samples_of(STATUS)} | {"test_loss"}


def test_image_has_what_its_file_copies_and_nothing_of_the_tests() -> None:
    kept = (ROOT / ".dockerignore").read_text().splitlines()
    text = (DOCKER / "Dockerfile").read_text()
    for line in re.findall(r"^COPY (?!--from)(.+) \S+$", text, re.MULTILINE):
        for name in line.split():
            assert f"!{name}" in kept
            assert (ROOT / name).exists()
    assert "requirements-test.lock" not in text
    assert re.search(r"^USER (?!root)", text, re.MULTILINE)
