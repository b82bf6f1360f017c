"""What columns cost: preparing tables of very many columns, next to pyarrow's reading of the file.

Processor seconds of one thread, since others may use the machine; the ratio is the figure. Run:
.venv/bin/python scripts/bench/wide.py --columns 12500,25000,50000
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from markdown_table import Table

from distsgd.config import TrainConfig
from distsgd.data.options import PrepareOptions
from distsgd.data.prepare.prepare import prepare
from distsgd.data.sources.formats import SourceSpec
from distsgd.data.tables import table_source
from distsgd.run.trainer import Trainer

OPTIONS = PrepareOptions(("y",), test_fraction=0.2, standardise="mean_std")
NETWORK = {
    "layers": [{"type": "dense", "units": 8}, {"type": "dense", "units": 3}],
    "loss": "softmax_cross_entropy",
}


def seconds(spec: Callable[[], object]) -> float:
    """Processor seconds that a spec takes."""
    start = time.process_time()
    spec()
    return time.process_time() - start


def wide_table(num_columns: int, num_rows: int) -> pa.Table:
    """Columns of chance and a label."""
    chance = np.random.default_rng(0)
    features = {f"c{i}": chance.standard_normal(num_rows) for i in range(num_columns)}
    return pa.table(features | {"y": chance.integers(0, 3, num_rows)})


def timed(num_columns: int, num_rows: int, work: Path) -> list[float]:
    """Reading by pyarrow; preparing from Parquet, Arrow and memory; training from Parquet."""
    table = wide_table(num_columns, num_rows)
    parquet, arrow = work / "wide.parquet", work / "wide.arrow"
    pq.write_table(table, parquet)
    with pa.OSFile(str(arrow), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)
    figures = [seconds(lambda: pq.read_table(parquet, use_threads=False))]
    sources: list[SourceSpec] = [parquet, arrow, table_source(table)]
    for number, source in enumerate(sources):
        out = work / f"out{number}"
        figures.append(
            seconds(lambda source=source, out=out: prepare(source, out, options=OPTIONS))
        )
    config = TrainConfig.from_dict(
        {
            "data": {"path": str(parquet), "label": "y", "test_fraction": 0.2},
            "model": NETWORK,
            "optimizer": {"learning_rate": 0.001},
            "train": {"epochs": 1},
            "parallel": {"workers": 0},
        }
    )
    trainer = Trainer(config, run_dir=work / "run", cache_dir=work / "cache")
    return [*figures, seconds(trainer.fit)]


def main() -> None:
    """Print one line for each number of columns."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--columns", default="12500,25000,50000")
    parser.add_argument("--rows", type=int, default=200)
    arguments = parser.parse_args()
    heads = ("columns", "pyarrow reads", "Parquet", "Arrow", "in memory", "train", "train / read")
    table = Table(
        f"Processor seconds to prepare {arguments.rows} rows, and to train on them", *heads
    )
    for columns in map(int, arguments.columns.split(",")):
        with tempfile.TemporaryDirectory(prefix="distsgd-wide-") as work:
            read, *ours = timed(columns, arguments.rows, Path(work))
        table.row(f"{columns:,}", *(f"{s:.2f}" for s in (read, *ours)), f"{ours[-1] / read:.2f}")


if __name__ == "__main__":
    main()
