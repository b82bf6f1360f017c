"""The first promise on a real Ray: one digest for any number of workers, batch size and plan.

Trains every combination with the command line, each with a Ray of its own; takes a quarter of an
hour. Prints a table, exit code 1 where a digest differs. `--quick` leaves out most combinations.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

STEPS = {"1": 300, "10": 300, "64": 200, "1000": 60, "full": 6}
SYNTHETIC = """
[data]
path = "synthetic.parquet"
label = "kind"
test_fraction = 0.1
[model]
layers = [{type = "dense", units = 32, activation = "tanh"}, {type = "dense", units = 3}]
loss = "softmax_cross_entropy"
"""


def train(config: Path, batch: str, workers: int, plan: str) -> str:
    """The digest of the weights after some steps."""
    settings = [f"batch.size={batch}", f"train.steps={STEPS[batch]}", "train.epochs=100000"]
    command = [sys.executable, "-m", "distsgd", "train", config.name, "--json", "--quiet"]
    for setting in (*settings, f"parallel.assignment={plan}"):
        command += ["--set", setting]
    command += ["--workers", str(workers)]
    done = subprocess.run(
        command, cwd=config.parent, capture_output=True, text=True, timeout=300, check=False
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])["weights_digest"]


def write_data(work: Path) -> list[Path]:
    """The digits, and 100,000 rows of 50 numbers in three classes."""
    subprocess.run([sys.executable, "-m", "distsgd", "init", "digits"], cwd=work, check=True)
    x = np.random.default_rng(0).standard_normal((100_000, 50)).astype(np.float32)
    table = {f"x{i}": x[:, i] for i in range(50)} | {"kind": x[:, :3].argmax(axis=1)}
    pq.write_table(pa.table(table), work / "synthetic.parquet")
    (work / "synthetic.toml").write_text(SYNTHETIC)
    return [work / "digits.toml", work / "synthetic.toml"]


def main() -> int:
    """Train all combinations and compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="workers 0, 2 and 3 and plan all only")
    quick = parser.parse_args().quick
    wrong = 0
    with tempfile.TemporaryDirectory() as work:
        for config in write_data(Path(work)):
            for batch in STEPS:
                alone = train(config, batch, 0, "all")
                for plan in ("all",) if quick else ("all", "autotune"):
                    counts = (2, 3) if quick else (1, 2, 3, 5, 7)
                    same = [train(config, batch, count, plan) == alone for count in counts]
                    wrong += same.count(False)
                    found = (
                        "one digest"
                        if all(same)
                        else f"DIFFERENT: {dict(zip(counts, same, strict=True))}"
                    )
                    print(f"{config.stem:10} batch {batch:>5} {plan:9} 0 {counts}: {found}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
