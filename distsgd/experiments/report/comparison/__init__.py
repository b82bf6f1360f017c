"""Runs side by side: a comparison as sentences, tables, pictures, a page and JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from distsgd.base.files import encode_json, make_private_directory, write_bytes_atomic
from distsgd.experiments.compare import Comparison
from distsgd.experiments.report.comparison.page import html_comparison
from distsgd.experiments.report.comparison.sentences import sentences
from distsgd.experiments.report.json_report import plain

__all__ = ["json_comparison", "write_comparison"]


def json_comparison(comparison: Comparison) -> dict[str, Any]:
    """What compare.json holds, and what ``--json`` prints."""
    return {
        "verdicts": [plain(one) for one in sentences(comparison)],
        "comparison": plain(comparison),
        "reading": "null: not known, its reason stands next to it; seconds end in _s or are so "
        "named; values of settings and environments are in the order of the runs",
    }


def write_comparison(comparison: Comparison, directory: Path) -> list[Path]:
    """Write compare.html and compare.json into `directory`, each replaced as a whole; blocks.

    Raises:
        RunError: The operating system refuses.
    """
    page, data = directory / "compare.html", directory / "compare.json"
    files = {
        page: html_comparison(comparison).encode(),
        data: encode_json(data, json_comparison(comparison), indent=1),
    }
    make_private_directory(directory)
    for path, content in files.items():
        write_bytes_atomic(path, content)
    return list(files)
