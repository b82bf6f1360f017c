"""The report for programs: the verdicts with their figures, and all findings, as strict JSON. Pure.

JSON has no word for infinity or "not a number": as the end of an interval ``null`` means that it
is not bounded there, elsewhere that there is no number.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from distsgd.experiments.findings import Findings
from distsgd.experiments.report.verdicts import verdicts


def json_report(findings: Findings) -> dict[str, Any]:
    """What report.json holds."""
    told = verdicts(findings)
    return {
        "verdicts": [
            {"sentence": one.sentence, "is_alarm": one.is_alarm, "figures": plain(one.figures)}
            for one in told
        ],
        "findings": plain(findings),
        "reading": "null as the end of an interval: not bounded; seconds end in _s",
    }


def plain(value: Any) -> Any:
    """Dataclasses, mappings and sequences as JSON knows them; numbers that are none as None.

    >>> plain({"a": (1.0, float("inf"))})
    {'a': [1.0, None]}
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = (field.name for field in dataclasses.fields(value))
        return {name: plain(getattr(value, name)) for name in names}
    if isinstance(value, dict):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(one) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
