"""Make distsgd/examples/digits.parquet from scikit-learn's copy of the UCI handwritten digits.

Needs the extra `compare`; run it once: ``python scripts/make_digits.py``. Same input, same bytes.
"""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from sklearn.datasets import load_digits

OUT = Path(__file__).parents[1] / "distsgd" / "examples" / "digits.parquet"


def main() -> None:
    """Write 1,797 rows: 64 columns of pixels from 0 to 16, and the column digit from 0 to 9."""
    digits = load_digits()
    pixels = digits.data.astype(np.int8)
    assert np.array_equal(pixels, digits.data)
    assert pixels.shape == (1797, 64)
    columns = {f"pixel_{index:02}": pixels[:, index] for index in range(pixels.shape[1])}
    table = pa.table(columns | {"digit": digits.target.astype(np.int8)})
    pq.write_table(table, OUT, compression="zstd", compression_level=19, write_page_checksum=True)
    print(f"{OUT}: {table.num_rows} rows, {table.num_columns} columns, {OUT.stat().st_size} bytes")


if __name__ == "__main__":
    main()
