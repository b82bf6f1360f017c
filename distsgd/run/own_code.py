"""Code of the user's own that a run is made with: its names, and digests of its sources.

What another process can import is named in the configuration, as ``module:qualname`` with options,
whether it stood there or was handed to the trainer; its source is digested in the run's record.
What has no such name (a notebook's class, one made in a function) is used as it is, in this process
only; the record says so, and such a run cannot be made again from its directory.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

from blake3 import blake3

from distsgd.base.named import find_module, name_of
from distsgd.base.settings import refuse
from distsgd.config import TrainConfig
from distsgd.errors import ConfigError, ModelError, RunError
from distsgd.nn.network import Network
from distsgd.optim.rules import RULES, UpdateRule
from distsgd.optim.search import SearchRule
from distsgd.parallel.runner import MakeWorker
from distsgd.store.run_directory import RunDirectory

RECORD = "own_code"  # In environment.json.
_OURS = ("distsgd", "distsgd_workers")
_KEPT = ("learning_rate", "clip_norm", "frozen")  # Of [optimizer], whatever the rule.
_WAY_OUT = "move it into a module of its own"


@dataclass(frozen=True, slots=True)
class OwnCode:
    """What was handed to the trainer and has no name by which another process finds it."""

    model: Network | None = None
    worker: MakeWorker | None = None
    rule: UpdateRule | SearchRule | None = None
    callbacks: tuple[type, ...] = ()  # Classes, with a name or without; no input to the bits.
    num_features: int | None = None  # That a model which was handed in is made for.

    def nameless(self) -> dict[str, object]:
        """Those that were handed in, by what they are."""
        found = {"model": self.model, "worker": self.worker, "rule": self.rule}
        return {what: thing for what, thing in found.items() if thing is not None}


NO_OWN_CODE = OwnCode()


def with_handed_in(
    config: TrainConfig | Mapping[str, Any],
    *,
    model: Network | None,
    worker: MakeWorker | str | None,
    rule: UpdateRule | SearchRule | type | str | None,
) -> tuple[TrainConfig, OwnCode]:
    """The configuration with the names of what was handed in, and what has none.

    Args:
        config: Also as plain values (`TrainConfig.from_dict`), which need no ``[model]`` where a
            model is handed in.
        model: Instead of ``[model]``; its first weights are made as that says.
        worker: A class, or its ``module:class``.
        rule: An instance, whose fields are its options; or a class or ``module:class`` without any.

    Raises:
        ConfigError: They cannot be used together, or need workers that cannot import them.
    """
    if isinstance(config, TrainConfig):
        raw: dict[str, Any] = config.model_dump(mode="json", exclude_unset=True)
    elif isinstance(config, Mapping):
        raw = dict(config)
    else:
        refuse("config", config, "a TrainConfig (use TrainConfig.from_toml(path))")
    own: dict[str, Any] = {}
    if model is not None:
        _put_model(raw, model, own)
    if worker is not None:
        _put_worker(raw, worker, own)
    if rule is not None:
        _put_rule(raw, rule, own)
    is_changed = not (model is None and worker is None and rule is None)
    if is_changed or not isinstance(config, TrainConfig):
        config = TrainConfig.from_dict(raw)
    found = OwnCode(**own)
    if config.parallel.workers != 0:
        refuse_workers(found, config.parallel.workers)
    return config, found


def refuse_workers(own: OwnCode, workers: object) -> None:
    """Raises ConfigError where other processes would have to find what has no name."""
    for what, thing in own.nameless().items():
        problem = (
            f"parallel.workers is {workers!r}, and other processes cannot {_lacks(what, thing)}, "
            "or train in this process (set [parallel] workers = 0)"
        )
        raise ConfigError([problem])


def _lacks(what: str, thing: object) -> str:
    """Why another process cannot have it, and what to do."""
    shown = f"the {what} {_shown(thing)}"
    if what != "rule" or name_of(type(thing)) is None:
        return f"import {shown}; {_WAY_OUT}"
    if is_dataclass(thing):
        return (
            f"make {shown} again: not all of its fields are plain values; use numbers, texts and "
            "lists"
        )
    return (
        f"make {shown} again: it is no dataclass, so that its settings have no names; make it a "
        "frozen dataclass of its settings"
    )


def described(model: Network) -> dict[str, Any]:
    """The model as plain values; of layers that are not ours, what they say of themselves."""
    try:
        return model.to_dict()
    except (AttributeError, TypeError):
        layers = [_shown(layer) for layer in model.layers]
        return {"layers": layers, "loss": model.loss.name, "input_shape": list(model.input_shape)}


def check_features(own: OwnCode, num_features: int) -> None:
    """Raises ConfigError where a model that was handed in takes other rows."""
    if own.num_features not in (None, num_features):
        rule = f"must be ({num_features},), the features of a row (make it for these)"
        raise ConfigError([f"model.input_shape is ({own.num_features},); {rule}"])


def _section(raw: dict[str, Any], name: str) -> dict[str, Any]:
    table = raw.get(name, {})
    if not isinstance(table, Mapping):
        raise ConfigError([f"{name} is {table!r}; must be a table"])
    return dict(table)


def _put_model(raw: dict[str, Any], model: object, own: dict[str, Any]) -> None:
    if not isinstance(model, Network):
        refuse("model", model, "a distsgd.Network, or None")
    if len(model.input_shape) != 1:
        flat = f"a first layer Reshape({model.input_shape}) and input_shape (I,)"
        refuse(
            "model.input_shape", model.input_shape, f"(I,), the features of a row (give it {flat})"
        )
    before = _section(raw, "model")
    kept = {key: before[key] for key in ("init", "initial_weights") if key in before}
    own["num_features"] = model.input_shape[0]
    section = described(model)
    try:
        is_same = Network.from_dict(section) == model
    except ModelError:
        is_same = False
    if not is_same:  # A layer or loss that is not ours; the section can say its outputs only.
        own["model"] = model
        section = {
            "layers": [{"type": "dense", "units": model.num_outputs}],
            "loss": "softmax_cross_entropy" if model.target_kind == "class" else "quadratic",
        }
    raw["model"] = {key: section[key] for key in section if key != "input_shape"} | kept


def _put_worker(raw: dict[str, Any], worker: object, own: dict[str, Any]) -> None:
    if not isinstance(worker, str) and not callable(worker):
        refuse("worker", worker, "a class, or its name: module:class")
    name = worker if isinstance(worker, str) else name_of(worker)
    if name is None:
        own["worker"] = worker
    else:
        raw["parallel"] = _section(raw, "parallel") | {"worker": name}


def _put_rule(raw: dict[str, Any], rule: object, own: dict[str, Any]) -> None:
    is_class = isinstance(rule, str | type)
    if not is_class and not isinstance(rule, UpdateRule | SearchRule):
        refuse("rule", rule, "an update rule, with init and update_inplace; or its class or name")
    kept = {key: value for key, value in _section(raw, "optimizer").items() if key in _KEPT}
    kind = rule if is_class else type(rule)
    name = kind if isinstance(kind, str) else _rule_name(kind)
    options = {} if is_class else _settings(rule)
    if name is None or options is None:
        own["rule"] = rule() if isinstance(rule, type) else rule
    elif name in RULES:
        kept |= {"type": name} | options
    else:
        kept |= {"type": name, "options": options}
    raw["optimizer"] = kept


def _rule_name(kind: Any) -> str | None:
    registered = [name for name, rule in RULES.items() if rule is kind]
    return registered[0] if registered else name_of(kind)


def _settings(rule: object) -> dict[str, Any] | None:
    """The fields of a rule as plain values; None where it cannot be made again from them."""
    if not is_dataclass(rule):
        has_slots = any(getattr(kind, "__slots__", ()) for kind in type(rule).__mro__)
        return None if has_slots or getattr(rule, "__dict__", {}) else {}
    made_of = {field.name for field in fields(rule) if field.init}
    options = {name: value for name, value in asdict(rule).items() if name in made_of}  # type: ignore[arg-type]
    try:
        return options if json.loads(json.dumps(options)) == options else None
    except (TypeError, ValueError):
        return None


def record(config: TrainConfig, own: OwnCode) -> list[dict[str, Any]]:
    """All code that is not ours: what it is, its name, the digest of its source (None for none)."""
    named = [_entry(what, name, name) for what, name in _names(config)]
    nameless = [_entry(what, None, _shown(it)) for what, it in own.nameless().items()]
    callbacks = [
        _entry("callback", name_of(kind), _shown(kind))
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
            f"found; hand it to Trainer again to resume, or {_WAY_OUT}{settings} and train anew "
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
        now = _source_digest(entry["name"])
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
                f"which it can be found; use what fit() returned, or {_WAY_OUT} and train anew",
            )


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


def _names(config: TrainConfig) -> Iterator[tuple[str, str]]:
    """All that the configuration names as ``module:qualname`` and that is not ours."""
    named: Sequence[tuple[str, str]] = (
        ("worker", config.parallel.worker),
        ("rule", config.optimizer.type),
        ("sampler", config.batch.sampler),
        ("loss", config.model.loss),
    )
    for what, name in named:
        if ":" in name and not _is_ours(name.partition(":")[0]):
            yield what, name


def _entry(what: str, name: str | None, shown: str) -> dict[str, Any]:
    source = None
    if name is not None:
        with suppress(ConfigError):  # It trains in a process that finds it, or not at all.
            source = _source_digest(name)
    return {"what": what, "name": name, "shown": shown, "source": source}


def _source_digest(name: str) -> str | None:
    """blake3 of the file that the module of `name` was read from; None where there is none.

    Raises ConfigError where there is no such module.
    """
    module = find_module(name)
    try:
        file = inspect.getsourcefile(module)
        return None if file is None else blake3(Path(file).read_bytes()).hexdigest()
    except (OSError, TypeError):
        return None


def _is_ours(module: str) -> bool:
    return module.partition(".")[0] in _OURS


def _shown(thing: object) -> str:
    kind = thing if isinstance(thing, type) else type(thing)
    return f"{kind.__module__}.{kind.__qualname__}"
