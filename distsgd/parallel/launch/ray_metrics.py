"""Numbers of a run as metrics of the Ray that this process has joined, which exports them."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from typing import Any


class RayMetrics:
    """Gauges with the labels ``run`` and ``phase``; nothing where this process has joined no Ray.

    Args:
        run: What the run is called.
        texts: Name and description of each gauge.
    """

    def __init__(self, run: str, texts: Mapping[str, str]) -> None:
        self._run, self._texts = run, texts
        self._gauges: dict[str, Any] = {}

    def set(self, name: str, value: float, phase: str = "") -> None:
        """Set a gauge; costs some microseconds, and waits for nothing."""
        ray = sys.modules.get("ray")  # Not loaded where there are no workers.
        if ray is None or not ray.is_initialized():
            return
        labels = {"run": self._run} | ({"phase": phase} if phase else {})
        if name not in self._gauges:
            metrics = importlib.import_module("ray.util.metrics")
            self._gauges[name] = metrics.Gauge(name, self._texts[name], tuple(labels))
        self._gauges[name].set(value, labels)
