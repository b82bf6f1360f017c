"""Work done on a cluster, where ``[parallel] address`` is one: tasks of one CPU, on all its nodes.

The experiment, the cache and the rows must lie on a disk that all nodes share. What they do:
`do_task`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from distsgd.base.locations import place_of
from distsgd.config import TrainConfig
from distsgd.data.manifest import MANIFEST_FILE
from distsgd.data.sources.formats import expand_paths
from distsgd.experiments.children import Done, RunAll, Work, run_all

if TYPE_CHECKING:
    from distsgd.parallel.launch.tasks import Tasks


@contextmanager
def run_all_of(config: TrainConfig, directory: Path, data: Path) -> Iterator[RunAll]:
    """What does all works of an experiment in `directory` on the prepared `data`, where it runs.

    The cluster is joined for the first of them, and left at the end.
    """
    if config.parallel.wanted_placement.address == "local":
        yield run_all
        return
    with ExitStack() as stack:
        yield _OnCluster(config, directory, data, stack).run_all


@dataclass(slots=True)
class _OnCluster:
    """A cluster that is joined once there is work for it."""

    config: TrainConfig
    directory: Path
    data: Path
    stack: ExitStack
    _tasks: Tasks | None = field(default=None)

    def run_all(self, works: Iterable[Work], *, is_over: Callable[[], bool]) -> Iterator[Done]:
        """See `distsgd.experiments.children.run_all`.

        Raises:
            ClusterError: The cluster cannot be used, or one of its nodes.
        """
        given = list(works)
        if not given or is_over():
            return
        tasks = [(work.function, work.task) for work in given]
        for number, failure in self._joined().run(tasks, is_over):
            yield Done(given[number].piece, failure)

    def _joined(self) -> Tasks:
        if self._tasks is None:
            from distsgd.parallel.launch.tasks import tasks_at  # noqa: PLC0415 -- loads much.

            tasks = tasks_at(
                self.config.parallel.wanted_placement,
                self.directory.absolute(),
                [*_needed(self.config, self.data)],
                self.config.train.dtype,
            )
            self._tasks = self.stack.enter_context(tasks)
        return self._tasks


def _needed(config: TrainConfig, data: Path) -> Iterator[Path]:
    """The files by which a node is seen to have the prepared rows, and to know that they are."""
    yield data.absolute() / MANIFEST_FILE
    for paths in (config.data.paths, config.data.test_paths):
        local = [place for place in map(place_of, paths) if isinstance(place, Path)]
        if local and local != [data]:
            yield from (file for file in expand_paths(local) if isinstance(file, Path))
