"""Code of the user's own that a run is made with: its names, and digests of its sources.

What another process can import is named in the configuration, as ``module:qualname`` with options,
whether it stood there or was handed to the trainer; its source is digested in the run's record.
What has no such name (a notebook's class, one made in a function) is used as it is, in this process
only; the record says so, and such a run cannot be made again from its directory.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

from blake3 import blake3

from distsgd.base.named import find_module, name_of
from distsgd.config import TrainConfig
from distsgd.errors import ConfigError, RunError
from distsgd.models import Factory, Model
from distsgd.nn.network import Network
from distsgd.optim.rules import UpdateRule
from distsgd.optim.search import SearchRule
from distsgd.parallel.runner import MakeWorker
from distsgd.store.run_directory import RunDirectory

RECORD = "own_code"  # In environment.json.
_OURS = ("distsgd", "distsgd_workers")
_MOST_SHOWN = 4  # Parameters that differ.
WAY_OUT = "move it into a module of its own"


@dataclass(frozen=True, slots=True)
class OwnCode:
    """What was handed to the trainer and has no name by which another process finds it."""

    model: Network | None = None
    factory: Factory | None = None
    worker: MakeWorker | None = None
    rule: UpdateRule | SearchRule | None = None
    callbacks: tuple[type, ...] = ()  # Classes, with a name or without; no input to the bits.
    input_shape: tuple[int, ...] | None = None  # That a model which was handed in is made for.

    def nameless(self) -> dict[str, object]:
        """Those that were handed in, by what they are."""
        found = {"model": self.model or self.factory, "worker": self.worker, "rule": self.rule}
        return {what: thing for what, thing in found.items() if thing is not None}


NO_OWN_CODE = OwnCode()


def described(model: Model) -> dict[str, Any]:
    """The model as plain values; of layers that are not ours, what they say of themselves."""
    try:
        return model.to_dict()
    except (AttributeError, TypeError):
        if not isinstance(model, Network):
            raise
        layers = [shown_kind(layer) for layer in model.layers]
        return {"layers": layers, "loss": model.loss.name, "input_shape": list(model.input_shape)}


def record(config: TrainConfig, own: OwnCode) -> list[dict[str, Any]]:
    """All code that is not ours: what it is, its name, the digest of its source (None for none)."""
    named = [
        _entry(what, name, name)
        for what, name in named_code(config)
        if what != "model" or own.factory is None
    ]
    nameless = [_entry(what, None, shown_kind(it)) for what, it in own.nameless().items()]
    callbacks = [
        _entry("callback", name_of(kind), shown_kind(kind))
        for kind in own.callbacks
        if not _is_ours(kind.__module__)
    ]
    return [*named, *nameless, *callbacks]


def check_own_code(run: RunDirectory, own: OwnCode = NO_OWN_CODE) -> tuple[str, ...]:
    """What has changed of the code that `run` was begun with, for people.

    Args:
        run: To be resumed, or made again.
        own: What is handed in now.

    Raises:
        RunError: It was begun with code that has no name, and that is not handed in again; or the
            other way round.
    """
    recorded = _recorded(run)
    lacking = {entry["what"]: entry["shown"] for entry in recorded if entry["name"] is None}
    now = own.nameless()
    for what in lacking.keys() - now.keys():
        settings = ", as a dataclass of its settings," if what == "rule" else ""
        raise RunError(
            run.place,
            f"was trained with the {what} {lacking[what]}, which has no name by which it can be "
            f"found; hand it to Trainer again to resume, or {WAY_OUT}{settings} and train anew "
            "(then it can be verified)",
        )
    for what in now.keys() - lacking.keys():
        raise RunError(
            run.place, f"was begun without a {what} handed in; leave it out, or train anew"
        )
    named = [entry for entry in recorded if entry["name"] is not None]
    unsure = [
        f"the {what} {shown} was handed in without a name: it cannot be compared with that before"
        for what, shown in sorted(lacking.items())
    ]
    return (*filter(None, map(_doubt, named)), *unsure)


def _doubt(entry: dict[str, Any]) -> str:
    """Why code that is recorded by its name may be other code now; "" where it is the same."""
    what, then = f"the {entry['what']} {entry['name']}", entry["source"]
    try:
        now = source_digest(entry["name"])
    except ConfigError as error:
        return f"{what} cannot be compared with that before: {'; '.join(error.problems)}"
    if now == then:
        return ""
    if now is None or then is None:
        when = "now" if now is None else "when the run was begun"
        return f"{what} cannot be compared with that before: it had no source file {when}"
    return f"the source of {what} has changed since the run was begun; other bits may come out"


def check_found_again(run: RunDirectory, *whats: str) -> None:
    """Raises RunError where one of these parts of `run` has no name by which it can be found."""
    for entry in _recorded(run):
        if entry["name"] is None and entry["what"] in whats:
            raise RunError(
                run.place,
                f"was trained with the {entry['what']} {entry['shown']}, which has no name by "
                f"which it can be found; use what fit() returned, or {WAY_OUT} and train anew",
            )


def check_model(run: RunDirectory, model: Model) -> None:
    """Raises RunError unless `model`, made anew, is the one that `run` was begun with."""
    then, now = run.read_json(run.model_path), json.loads(json.dumps(model.to_dict()))
    if then == now:
        return
    reason = "is not the network of config.json; one of them was changed, restore it"
    if "factory" in now and then == now | {"parameters": then.get("parameters")}:
        pairs = zip_longest(list(then["parameters"] or ()), now["parameters"])
        changed = [f"{_parameter(a)}, now {_parameter(b)}" for a, b in pairs if a != b]
        reason = (
            f"is not what the factory {now['factory']} makes: {'; '.join(changed[:_MOST_SHOWN])}"
            f"{' and more' if len(changed) > _MOST_SHOWN else ''}; its source, or what that "
            "imports, was changed since the run was begun (restore it, or train anew)"
        )
    raise RunError(run.model_path, reason)


def _parameter(entry: Sequence[Any] | None) -> str:
    """Name and shape; of a parameter that is not there, so."""
    return "none" if entry is None else " ".join(map(str, entry))


def _recorded(run: RunDirectory) -> list[dict[str, Any]]:
    """The record but for callbacks, which are no input to the bits."""
    found = run.read_json(run.environment_path).get(RECORD, [])
    keys = {"what", "name", "shown", "source"}
    if not isinstance(found, list) or not all(
        isinstance(entry, dict) and entry.keys() == keys for entry in found
    ):
        reason = f"{RECORD} is no list of code; restore the file, or train anew"
        raise RunError(run.environment_path, reason)
    return [entry for entry in found if entry["what"] != "callback"]


def named_code(config: TrainConfig) -> Iterator[tuple[str, str]]:
    """All that the configuration names as ``module:qualname`` and that is not ours."""
    named: Sequence[tuple[str, str | None]] = (
        ("model", config.model.factory),
        ("worker", config.parallel.worker),
        ("rule", config.optimizer.type),
        ("sampler", config.batch.sampler),
        ("loss", config.model.loss),
    )
    for what, name in named:
        if name is not None and ":" in name and not _is_ours(name.partition(":")[0]):
            yield what, name


def _entry(what: str, name: str | None, shown: str) -> dict[str, Any]:
    source = None
    if name is not None:
        with suppress(ConfigError):  # It trains in a process that finds it, or not at all.
            source = source_digest(name)
    return {"what": what, "name": name, "shown": shown, "source": source}


def source_digest(name: str) -> str | None:
    """blake3 of the file that the module of `name` was read from; None where there is none.

    Raises:
        ConfigError: There is no such module.
    """
    module = find_module(name)
    try:
        file = inspect.getsourcefile(module)
        return None if file is None else blake3(Path(file).read_bytes()).hexdigest()
    except (OSError, TypeError):
        return None


def _is_ours(module: str) -> bool:
    return module.partition(".")[0] in _OURS


def shown_kind(thing: object) -> str:
    """The class of a thing, or the class or factory itself, by its name."""
    if isinstance(thing, Factory):
        return f"{thing.__module__}.{getattr(thing, '__qualname__', 'factory')}"
    kind = thing if isinstance(thing, type) else type(thing)
    return f"{kind.__module__}.{kind.__qualname__}"
