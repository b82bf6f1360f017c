"""Checkpoints: the state of a run at a step, one directory each, whole or not there.

In it::

    step-000000001234/
      weights.safetensors     one file for each group of arrays
      optimizer.safetensors
      state.json              everything that is no array
      MANIFEST.json           size and blake3 of the others; whether it is the best so far

The mark of the best lies in the checkpoint itself, so that no kill can part them; of several
marked ones the newest counts, as each was better than those before it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distsgd.base.arrays import Array
from distsgd.base.files import (
    STAGING,
    as_run_error,
    lock_within,
    make_private_directory,
    staging_path,
    sync_directory,
)
from distsgd.errors import CheckpointError
from distsgd.store.checkpoint_files import is_marked_best, read_files, write_files

_NAME = re.compile(r"step-(\d{12})\Z")
_OLD = ".old-"
_LOCK_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True, repr=False)
class Checkpoint:
    """What was saved at `step`: arrays by group and name, the caller's to change; JSON state."""

    step: int
    arrays: Mapping[str, Mapping[str, Array]]
    state: Mapping[str, Any]

    def __repr__(self) -> str:
        groups = (f"{group}: {len(named)} arrays" for group, named in self.arrays.items())
        return f"Checkpoint(step={self.step}, {', '.join(groups)})"


class CheckpointStore:
    """The checkpoints in `directory`: the `keep` newest, and the best one.

    One process at a time saves (it holds the run's lock); others may read meanwhile.
    """

    def __init__(self, directory: Path | str, *, keep: int = 3) -> None:
        assert keep >= 1, "a run without a checkpoint cannot be resumed"
        self.directory, self.keep = Path(directory), keep

    def save(
        self,
        step: int,
        *,
        arrays: Mapping[str, Mapping[str, Array]],
        state: Mapping[str, Any],
        best: bool = False,
    ) -> Path:
        """Save the state after `step` updates, in place of an earlier one there; prune. Blocks.

        Args:
            step: 0 or more.
            arrays: Groups (lower-case words) of arrays of any shape by name; views are written
                as they lie.
            state: JSON.
            best: Whether this is the best so far, to be kept until a better one.

        Returns:
            The checkpoint's directory.

        Raises:
            RunError: The operating system refuses, or `state` is no JSON; earlier checkpoints are
                untouched.
        """
        make_private_directory(self.directory)
        final = self._path_of(step)
        with as_run_error(final), self._locked(_LOCK_TIMEOUT_S):
            with self._staging_directory(final) as staging:
                write_files(staging, step=step, arrays=arrays, state=state, best=best)
                self._publish(staging, final)
            self._prune(step)
        return final

    def latest(self, on_message: Callable[[str], None]) -> Checkpoint | None:
        """The newest checkpoint that is whole, or None where there is none at all.

        Each damaged one on the way is named to `on_message`. What interrupted saves left is
        removed; a save that another process is busy with is not.

        Raises:
            CheckpointError: There are checkpoints, and all of them are damaged.
        """
        self._recover()
        damaged = 0
        for step in reversed(self.steps()):
            try:
                return self._load_unless_pruned(step)
            except CheckpointError as error:
                damaged += 1
                on_message(f"DAMAGED CHECKPOINT, passed over: {error}")
            except FileNotFoundError:
                # It was pruned while we read, so a newer one is there.
                return self.latest(on_message)
        if damaged:
            raise CheckpointError(
                self.directory,
                f"all {damaged} checkpoints are damaged "
                "(restore one, or train into another --run-dir)",
            )
        return None

    def load(self, path: Path | str) -> Checkpoint:
        """The checkpoint in the directory `path`, every byte checked.

        Raises:
            CheckpointError: It is damaged; names the file and what is wrong with it.
        """
        path = Path(path)
        match = _NAME.match(path.name)
        if match is None:
            raise CheckpointError(path, "is no checkpoint; must be named step-<12 digits>")
        step = int(match[1])
        arrays, state = read_files(path, step=step)
        return Checkpoint(step, arrays, state)

    def best(self) -> Checkpoint | None:
        """The best checkpoint, or None where none is marked.

        Raises:
            CheckpointError: It is damaged.
        """
        step = self.best_step()
        return None if step is None else self.load(self._path_of(step))

    def best_step(self) -> int | None:
        """The step of the best checkpoint, or None where none is marked.

        One whose manifest is damaged is passed over; `latest` names it.
        """
        return self._newest_marked(self.steps())

    def _newest_marked(self, steps: Sequence[int]) -> int | None:
        for step in reversed(steps):
            with contextlib.suppress(CheckpointError):  # Damaged, or pruned meanwhile.
                if is_marked_best(self._path_of(step), step=step):
                    return step
        return None

    def steps(self) -> tuple[int, ...]:
        """The steps with a checkpoint, whole or not, ascending."""
        if not self.directory.is_dir():
            return ()
        matches = (_NAME.match(path.name) for path in self.directory.iterdir())
        return tuple(sorted(int(match[1]) for match in matches if match))

    def _path_of(self, step: int) -> Path:
        return self.directory / f"step-{step:012d}"

    def _load_unless_pruned(self, step: int) -> Checkpoint:
        """Load, again where it was replaced meanwhile; `FileNotFoundError` where it was pruned."""
        path = self._path_of(step)
        inode = path.stat().st_ino
        try:
            return self.load(path)
        except CheckpointError:
            if path.stat().st_ino == inode:
                raise
        return self._load_unless_pruned(step)

    @contextlib.contextmanager
    def _locked(self, timeout_s: float) -> Iterator[None]:
        """Have the directory for oneself, to write or clear; `TimeoutError` if another has it."""
        descriptor = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            if not lock_within(descriptor, timeout_s):
                reason = f"another process has been writing here for {timeout_s:g} s"
                raise TimeoutError(errno.ETIMEDOUT, reason)
            yield
        finally:
            os.close(descriptor)

    @contextlib.contextmanager
    def _staging_directory(self, final: Path) -> Iterator[Path]:
        staging = staging_path(final)
        staging.mkdir(mode=0o700)
        try:
            yield staging
        except BaseException:
            shutil.rmtree(staging, ignore_errors=True)
            raise

    def _publish(self, staging: Path, final: Path) -> None:
        # A directory cannot be replaced in one move. Between the two moves the old one has a name
        # that `_recover` knows.
        old = self._old_name(final)
        if final.exists():
            shutil.rmtree(old, ignore_errors=True)  # Of an earlier, interrupted save.
            final.rename(old)
        staging.rename(final)
        sync_directory(self.directory)
        shutil.rmtree(old, ignore_errors=True)

    def _old_name(self, final: Path) -> Path:
        return final.with_name(f"{_OLD}{final.name}")

    def _prune(self, newest: int) -> None:
        steps = self.steps()
        usable = [step for step in steps if step <= newest]
        kept = {*usable[-self.keep :], self._newest_marked(usable)}
        for step in steps:
            # One beyond the step just saved was refused when the run resumed, so it is damaged, or
            # it was put there.
            if step not in kept and (step < newest or not self._is_whole(step)):
                staging = staging_path(self._path_of(step))
                with as_run_error(self._path_of(step)):
                    # Renamed first, so that a reader never meets half a checkpoint.
                    self._path_of(step).rename(staging)
                shutil.rmtree(staging, ignore_errors=True)

    def _is_whole(self, step: int) -> bool:
        try:
            self.load(self._path_of(step))
        except CheckpointError:
            return False
        return True

    def _recover(self) -> None:
        """Clear what interrupted saves left, unless another process is saving just now."""
        if not self._leftovers():
            return  # The usual case: a reader takes no lock that its writer would wait for.
        with (
            as_run_error(self.directory),
            contextlib.suppress(TimeoutError),
            self._locked(0.0),
        ):
            self._clear_leftovers()

    def _leftovers(self) -> list[Path]:
        return [*self.directory.glob(f"{STAGING}*"), *self.directory.glob(f"{_OLD}step-*")]

    def _clear_leftovers(self) -> None:
        for path in self._leftovers():
            final = path.with_name(path.name.removeprefix(_OLD))
            if path.name.startswith(_OLD) and not final.exists():
                path.rename(final)
            elif path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
