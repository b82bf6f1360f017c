"""``[parallel]``: lanes and blocks, which the bits depend on; workers, which they do not.

No I/O here.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, Field

from distsgd.base.named import NAMED, Named
from distsgd.config.problems import in_words
from distsgd.config.section import Name, Section, key
from distsgd.parallel.launch.nodes.placement import MEMORY, Placement, PlacementKind
from distsgd.parallel.launch.session.address import chosen_address
from distsgd.parallel.pool.autotuner import AssignmentKind
from distsgd.parallel.transport import TransportKind

_UNITS = {"K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(Ki|Mi|Gi|K|M|G|T)?B?")


def _in_bytes(resources: object) -> object:
    """With ``memory = "2G"`` in bytes, and a CPU if none is told; what is no size is left as it is.

    >>> _in_bytes({"memory": "2G"})
    {'CPU': 1.0, 'memory': 2000000000.0}
    """
    if not isinstance(resources, dict):
        return resources
    resources = {"CPU": 1.0, **resources}
    memory = resources.get(MEMORY)
    if isinstance(memory, str) and (size := _SIZE.fullmatch(memory.strip())):
        resources[MEMORY] = float(round(float(size[1]) * _UNITS.get(size[2], 1)))
    return resources


class ParallelSection(Section):
    """Lanes and blocks, which the bits depend on; workers and transport, which they do not."""

    workers: Annotated[
        Literal["auto"]
        | Annotated[int, Field(ge=0)]
        | tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]],
        key(
            'worker processes; 0: in this process, without Ray; "auto": one for each core, on a '
            "cluster as many as have room; [1, 4]: what the cluster gives, as nodes come and leave",
            '"auto", 0 or more, or [fewest, most] with fewest 1 or more',
        ),
    ] = "auto"
    lanes: Annotated[
        int,
        key(
            "parts of a mini-batch at most, each of one or more blocks; streams of rows where "
            "windows are shuffled",
            "a whole number, 1 to 65536",
            ge=1,
            le=65_536,
        ),
    ] = 16
    lane_rows: Annotated[
        Literal["auto"] | Annotated[int, Field(ge=1)],
        key(
            "rows of a lane at least, or there are fewer lanes",
            '"auto" or a whole number, 1 or more',
        ),
    ] = "auto"
    block_rows: Annotated[
        int, key("rows computed at once at most", "a whole number, 1 to 65536", ge=1, le=65_536)
    ] = 256
    worker: Annotated[
        str,
        key(
            "the class that computes a block",
            "module:class, which each process can import",
            pattern=NAMED,
        ),
    ] = "distsgd_workers.gradient_worker:GradientWorker"
    assignment: Annotated[
        AssignmentKind,
        key(
            "which workers a step uses",
            '"autotune" (as many as make it fastest) or "all" (every one in every step)',
        ),
    ] = "autotune"
    transport: Annotated[
        TransportKind,
        key("how arrays travel", in_words(get_args(TransportKind))),
    ] = "auto"
    spin: Annotated[
        bool,
        key(
            "let processes with a core each wait for messages without falling asleep, up to 2 ms, "
            "where that is faster",
            "true or false",
        ),
    ] = True
    address: Annotated[
        Name | None,
        key(
            "the Ray cluster; left out: that of the job inside a Ray job, else a Ray of one's own",
            '"local", "auto" (the Ray that is running), or host:port',
        ),
    ] = None
    resources: Annotated[
        dict[str, Annotated[float, Field(ge=0)]],
        BeforeValidator(_in_bytes),
        key(
            "what a worker takes on a cluster, by Ray's names; a CPU unless told otherwise",
            'a table of amounts, 0 or more: {CPU = 1, memory = "2G"}',
        ),
    ] = Field(default_factory=lambda: {"CPU": 1.0})
    label_selector: Annotated[
        dict[str, str],
        key(
            "labels of the nodes that workers may be on, by Ray's rules",
            'a table of texts: {"ray.io/market-type" = "!spot"}',
        ),
    ] = Field(default_factory=dict)
    placement: Annotated[
        PlacementKind,
        key("workers on few nodes of a cluster, or over many", in_words(get_args(PlacementKind))),
    ] = "pack"
    step_timeout_s: Annotated[
        float,
        key(
            "longest wait for a worker before its blocks are computed elsewhere",
            "a number of seconds above 0",
            gt=0,
        ),
    ] = 60.0
    observer: Annotated[
        Name | None,
        key("what is told of the phases of the loop", '"module:name" of an observer'),
    ] = None
    observer_options: Annotated[
        dict[str, Any], key("what the observer is made with", "a table of plain values")
    ] = Field(default_factory=dict)

    @property
    def wanted_placement(self) -> Placement:
        """Where the processes of the run go."""
        settings = self.settings_for(Placement) | {"address": chosen_address(self.address)}
        return Placement(**settings)

    @property
    def named_observer(self) -> Named | None:
        """The observer and its options; None where there is none."""
        return None if self.observer is None else Named(self.observer, self.observer_options)
