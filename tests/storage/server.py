"""The S3 server of the tests, which must be there where all of them are run."""

from __future__ import annotations

import importlib
import os
from typing import Any

import pytest

MUST_BE_THERE = "DISTSGD_TEST_STORAGE"  # Set by scripts/test.


def moto_server() -> Any:
    """The module; where it is missing, a test is skipped, and fails in ``scripts/test``."""
    try:
        return importlib.import_module("moto.server")
    except ModuleNotFoundError as missing:
        reason = f"needs moto[server] ({missing}): scripts/env --with test"
    if os.environ.get(MUST_BE_THERE):
        pytest.fail(reason)
    pytest.skip(reason)
