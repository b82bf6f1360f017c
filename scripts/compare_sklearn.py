"""Hold distsgd's accuracy on digits against scikit-learn's MLPClassifier: same shape, solver, rows.

Needs the extra `compare`. Prints a table of five seeds; exit code 1 if the means differ by more
than one point.
"""

import statistics
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier

from distsgd import TrainConfig, Trainer
from distsgd.data.dataset import DataSet
from distsgd.data.options import PrepareOptions
from distsgd.data.prepare.prepare import prepare

EXAMPLE = Path(__file__).parents[1] / "distsgd" / "examples" / "digits.toml"
SEEDS = range(5)
ALLOWED_POINTS = 1.0


def main() -> int:
    """Train ten networks and compare the means."""
    config = TrainConfig.from_toml(EXAMPLE).with_overrides(
        ["parallel.workers=0", "schedule.type=constant", "optimizer.learning_rate=0.05"]
    )
    ours, theirs = [], []
    print("seed  distsgd  MLPClassifier")
    with tempfile.TemporaryDirectory() as work:
        for seed in SEEDS:
            run_dir = Path(work) / f"run-{seed}"
            seeds = [f"train.seed={seed}", f"data.split_seed={seed}"]
            trainer = Trainer(config.with_overrides(seeds), run_dir=run_dir)
            ours.append(100 * trainer.fit().metrics["test_accuracy"])
            theirs.append(100 * their_accuracy(config, seed, Path(work) / f"data-{seed}"))
            print(f"{seed:4}  {ours[-1]:7.2f}  {theirs[-1]:13.2f}")
    difference = statistics.fmean(ours) - statistics.fmean(theirs)
    print(f"mean  {statistics.fmean(ours):7.2f}  {statistics.fmean(theirs):13.2f}")
    print(f"difference {difference:+.2f} points; allowed {ALLOWED_POINTS:g}")
    return int(abs(difference) > ALLOWED_POINTS)


def their_accuracy(config: TrainConfig, seed: int, directory: Path) -> float:
    """Accuracy of MLPClassifier on the very rows that distsgd trains and tests on."""
    options = PrepareOptions(
        label=config.data.labels,
        test_fraction=config.data.test_fraction,
        standardise=config.data.standardise,
        split_seed=seed,
    )
    prepare(config.data.paths, directory, options=options)
    data = DataSet.open(directory)
    (x_train, y_train), (x_test, y_test) = rows_of(data, "train"), rows_of(data, "test")
    network = MLPClassifier(
        hidden_layer_sizes=(64,),
        solver="sgd",
        momentum=config.optimizer.momentum,
        nesterovs_momentum=False,
        learning_rate_init=config.optimizer.learning_rate,
        batch_size=config.batch.size,
        max_iter=config.train.epochs,
        alpha=0.0,
        tol=0.0,
        n_iter_no_change=config.train.epochs,
        random_state=seed,
    )
    with warnings.catch_warnings():
        # It trains for a fixed number of epochs on purpose, as distsgd does.
        warnings.simplefilter("ignore", ConvergenceWarning)
        network.fit(x_train, y_train)
    return float(network.score(x_test, y_test))


def rows_of(data: DataSet, split: str) -> tuple[np.ndarray, np.ndarray]:
    """All rows of one split: features and classes."""
    rows = data.train if split == "train" else data.test
    x = np.empty((rows.num_rows, data.manifest.num_features), data.manifest.dtype)
    y = np.empty(rows.num_rows, np.int64)
    rows.gather_range_inplace(0, rows.num_rows, x_NI=x, target=y, squared_norms_N=None)
    return x, y


if __name__ == "__main__":
    sys.exit(main())
