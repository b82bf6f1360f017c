"""Products of PyTorch do not depend on where their arrays lie in memory."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytest.importorskip("torch", reason="PyTorch is not installed")

AT_ONCE = """
import os
from distsgd.models.torch.steady import _SIZES, _bits, require_steady

before = dict(os.environ)
require_steady()
assert dict(os.environ) == before
print(max(len(_bits(*sizes)) for sizes in _SIZES))
"""
TOO_LATE = """
from distsgd.errors import NumericsError
from distsgd.models.torch.steady import _SIZES, _bits, require_steady

depends = max(len(_bits(*sizes)) for sizes in _SIZES) > 1  # So it is with some processors.
try:
    require_steady()
except NumericsError as error:
    assert 'set MKL_CBWR="AUTO" before Python starts' in str(error), error
    assert "MKL_CBWR is not set and" in str(error), error
    print(depends)
else:
    print(not depends)
"""


@pytest.mark.parametrize(("code", "said"), [(AT_ONCE, "1"), (TOO_LATE, "True")])
def test_a_process_is_made_steady_before_its_first_product_or_refused(code: str, said: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "MKL_CBWR"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout.strip() == said, done.stderr
