"""Without Ray installed, a run without workers trains, and one with workers says what to do."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
SCRIPT = """
import sys
import numpy as np
from distsgd import Run, TrainConfig, Trainer, errors

config = TrainConfig.from_dict({
    "model": {"layers": [{"type": "dense", "units": 1}], "loss": "quadratic"},
    "batch": {"size": 4}, "train": {"steps": 3}, "parallel": {"workers": 0},
})
rows = np.arange(16.0).reshape(8, 2), np.arange(8.0)
result = Trainer(config, data=rows, run_dir="run").fit()
assert Run.open("run").verify().steps == 3
assert not [name for name in sys.modules if name.partition(".")[0] == "ray"]
print((result.path / "environment.json").read_text())
try:
    Trainer(config.with_overrides(["parallel.workers=1"]), data=rows, run_dir="more").fit()
except errors.ClusterError as error:
    print(error)
"""


@pytest.fixture
def packages(tmp_path: Path) -> Path:
    """All packages that are installed here, but for Ray."""
    place = tmp_path / "packages"
    place.mkdir()
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if entry.name != "ray" and not entry.name.startswith("ray-"):
            (place / entry.name).symlink_to(entry)
    return place


def test_workers_zero_trains_without_ray_and_workers_say_what_is_missing(
    packages: Path, tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-S", "-c", SCRIPT],
        cwd=tmp_path,
        env={"PYTHONPATH": f"{ROOT}:{ROOT / 'workers'}:{packages}", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    assert '"ray": null' in done.stdout
    assert "workers need Ray, which is not installed; install it (pip install ray)" in done.stdout
    assert not (tmp_path / "more").exists()
