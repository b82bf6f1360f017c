"""What is called while a run is trained. No hook changes a bit of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from distsgd.base.settings import refuse
from distsgd.parallel.server.step_runner import EpochEnd, EventHooks, StepView
from distsgd.run.progress import Progress
from distsgd.store.logs import EvaluationRow

if TYPE_CHECKING:
    from distsgd.run.run import Run

_HOOKS = (
    "on_train_start",
    "on_step",
    "on_epoch_end",
    "on_evaluate",
    "on_message",
    "on_progress",
    "on_train_end",
)


class Callback:
    """What is called while a run is trained: a subclass with some of these methods, or functions.

    Which hooks the run waits for:

    - ``on_train_start``, ``on_train_end``: always; they are called in the thread that called `fit`,
      before the first step and after the last.
    - ``on_step``, ``on_epoch_end``, ``on_evaluate``: without workers they are called in the thread
      that trains, and the run waits for them. On Ray they are called in the thread that called
      `fit`, in order, a little behind the run, which waits only where they fall far behind.
    - ``on_message``, ``on_progress``: never; they are called in the thread that called `fit`.

    An error that a hook raises while the run is trained ends it, with a checkpoint, and comes out
    of `fit`; one of ``on_train_start`` leaves no new run, one of ``on_train_end`` a finished one.
    A run that was finished before has no hooks called. No hook changes the run: a callback is no
    input to the bits.

    >>> losses = []
    >>> callback = Callback(on_step=lambda view: losses.append(view.loss))
    """

    def __init__(self, **hooks: Callable[[Any], object]) -> None:
        """Make one of functions.

        Args:
            **hooks: Functions by the name of their hook, each of one argument.

        Raises:
            ConfigError: There is no such hook, or it is no function.
        """
        for name, call in hooks.items():
            if name not in _HOOKS:
                refuse("a hook", name, f"one of {', '.join(_HOOKS)}")
            if not callable(call):
                refuse(name, call, "a function of one argument")
            setattr(self, name, call)

    def on_train_start(self, run: Run) -> None:
        """`run` is written down, and its first step, or its first after a resume, is to be made.

        A new run has no weights yet.
        """

    def on_step(self, view: StepView) -> None:
        """A step is made, before its update.

        A step that is made again after going back (``on_divergence``) is seen again.
        """

    def on_epoch_end(self, end: EpochEnd) -> None:
        """All rows were used once more."""

    def on_evaluate(self, evaluation: EvaluationRow) -> None:
        """The held-out rows were evaluated."""

    def on_message(self, text: str) -> None:
        """What a person should know; warnings among it."""

    def on_progress(self, progress: Progress) -> None:
        """Where the run is; about ten times a second."""

    def on_train_end(self, result: Run) -> None:
        """The run came to its end: not where it was interrupted, diverged or failed."""


class Callbacks:
    """Several callbacks as one, each called in its turn."""

    def __init__(self, callbacks: Sequence[Callback] = ()) -> None:
        if not isinstance(callbacks, Sequence) or not all(
            isinstance(callback, Callback) for callback in callbacks
        ):
            refuse(
                "callbacks", callbacks, "a list of distsgd.Callback: [Callback(on_message=print)]"
            )
        self._callbacks = tuple(callbacks)

    def train_start(self, run: Run) -> None:
        """See `Callback.on_train_start`."""
        for callback in self._callbacks:
            callback.on_train_start(run)

    def message(self, text: str) -> None:
        """See `Callback.on_message`."""
        for callback in self._callbacks:
            callback.on_message(text)

    def progress(self, progress: Progress) -> None:
        """See `Callback.on_progress`."""
        for callback in self._callbacks:
            callback.on_progress(progress)

    def train_end(self, result: Run) -> None:
        """See `Callback.on_train_end`."""
        for callback in self._callbacks:
            callback.on_train_end(result)

    def hooks(self) -> EventHooks:
        """Those that have something to do with the events of the loop."""
        return EventHooks(
            on_step=self._all("on_step"),
            on_epoch_end=self._all("on_epoch_end"),
            on_evaluate=self._all("on_evaluate"),
        )

    def _all(self, hook: str) -> Callable[[Any], None] | None:
        """One function that calls those that have `hook`; None where none has it."""
        calls = [
            getattr(callback, hook)
            for callback in self._callbacks
            if hook in vars(callback)
            or getattr(type(callback), hook) is not getattr(Callback, hook)
        ]
        if not calls:
            return None

        def call_all(event: Any) -> None:
            for call in calls:
                call(event)

        return call_all
