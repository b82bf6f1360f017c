"""A stated number of injected faults, and the same bits: on the digits, and on synthetic rows.

Half of them on each; 1 to 4 workers on a Ray of their own, killed, stopped, slowed down and cut off
at random, and server and driver killed. Exit code 1 at the first round that gives another answer.
The last line of each data set names the seed to continue with.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

SYNTHETIC = """
[data]
path = "synthetic.parquet"
label = "kind"
test_fraction = 0.1
[model]
layers = [{type = "dense", units = 256, activation = "tanh"}, {type = "dense", units = 3}]
loss = "softmax_cross_entropy"
[batch]
size = 2048
"""
# So many steps, and so few between faults, that the 5 s in which Ray starts meet 50 faults or more:
# a killed server costs 2 s, and the workers come back meanwhile.
ROUNDS = {
    "digits": {"one_in": 100, "epochs": 1000, "evaluate_every_epochs": 20},
    "synthetic": {"one_in": 25, "epochs": 500, "evaluate_every_epochs": 5},
}


def write_data(work: Path) -> None:
    """The digits, and 20,000 rows of 20 numbers in three classes."""
    subprocess.run([sys.executable, "-m", "distsgd", "init", "digits"], cwd=work, check=True)
    x = np.random.default_rng(0).standard_normal((20_000, 20)).astype(np.float32)
    table = {f"x{i}": x[:, i] for i in range(20)} | {"kind": x[:, :3].argmax(axis=1)}
    pq.write_table(pa.table(table), work / "synthetic.parquet")
    (work / "synthetic.toml").write_text(SYNTHETIC)


def soak(work: Path, name: str, faults: int, seed: int) -> dict[str, Any]:
    """Rounds until so many faults were survived; what came of them."""
    chosen = ROUNDS[name]
    command = [sys.executable, "-m", "distsgd", "soak", f"{name}.toml", "--json"]
    command += ["--faults", str(faults), "--seed", str(seed), "--minutes", "100000"]
    command += ["--one-in", str(chosen["one_in"]), "--set", f"train.epochs={chosen['epochs']}"]
    command += ["--set", f"train.evaluate_every_epochs={chosen['evaluate_every_epochs']}"]
    command += ["--set", "checkpoint.every_s=0.5"]
    done = subprocess.run(command, cwd=work, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode not in (0, 1):
        raise SystemExit(done.returncode)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> int:
    """Soak both, and print what came of each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--faults", type=int, default=1000, help="in all")
    parser.add_argument("--seed", type=int, default=0, help="of the first round")
    options = parser.parse_args()
    seed = options.seed
    with tempfile.TemporaryDirectory(prefix="distsgd-soak-") as work:
        write_data(Path(work))
        for name in ROUNDS:
            found = soak(Path(work), name, -(-options.faults // len(ROUNDS)), seed)
            print(name, *(f"{key} {value}" for key, value in found.items()), sep="\n  ", flush=True)
            if found["failed_seed"] is not None:
                return 1
            seed = found["next_seed"]
    return 0


if __name__ == "__main__":
    sys.exit(main())
