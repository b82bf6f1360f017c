"""The report of an experiment: its findings as a page, as JSON and as pictures.

Nothing here computes a figure of the experiment: it is told `Findings`, says them in sentences, a
table and pictures, and writes the files.
"""

from __future__ import annotations

from pathlib import Path

from distsgd.base.files import encode_json, write_bytes_atomic
from distsgd.experiments.findings import Findings
from distsgd.experiments.report.html import html_report
from distsgd.experiments.report.json_report import json_report
from distsgd.experiments.report.pictures import pictures
from distsgd.experiments.report.png import Rasterizer
from distsgd.experiments.report.verdicts import Verdict, verdicts

__all__ = ["Verdict", "verdicts", "write_report"]


def write_report(findings: Findings, directory: Path, *, png: bool = False) -> list[Path]:
    """Write report.html, report.json and with `png` a PNG for each panel into `directory`.

    Each file is replaced as a whole. Blocks until the disk has them.

    Returns:
        The files, the page first.

    Raises:
        MissingExtraError: `png` needs what is not installed; nothing is written then.
        RunError: The operating system refuses, or a finding is nothing that JSON can hold.
    """
    rasterizer = Rasterizer() if png else None
    page, data = directory / "report.html", directory / "report.json"
    files = {
        page: html_report(findings).encode(),
        data: encode_json(data, json_report(findings), indent=1),
    }
    if rasterizer is not None:
        panels = [panel for picture in pictures(findings) for panel in picture.panels]
        files |= {directory / f"{one.name}.png": rasterizer.png(one.svg) for one in panels}
    for path, content in files.items():
        write_bytes_atomic(path, content)
    return list(files)
