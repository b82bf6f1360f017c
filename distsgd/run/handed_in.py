"""What is handed to the trainer, written into the configuration by its name.

What has no name by which another process finds it is kept as it is: see `own_code`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, fields, is_dataclass
from typing import Any

from distsgd.base.named import name_of
from distsgd.base.settings import refuse
from distsgd.config import TrainConfig
from distsgd.config.section import Section
from distsgd.errors import ConfigError, ModelError
from distsgd.models import Factory, torch_model
from distsgd.nn.network import Network
from distsgd.optim.rules import RULES, UpdateRule
from distsgd.optim.search import SearchRule
from distsgd.parallel.runner import MakeWorker
from distsgd.run.own_code import WAY_OUT, OwnCode, described, shown_kind
from distsgd.run.shapes import with_input_shape

_KEPT = ("learning_rate", "clip_norm", "frozen")  # Of [optimizer], whatever the rule.
_NO_NAME = re.compile(r"<\w+>\.?")  # In the qualified name of what a function has made.


def with_handed_in(
    config: TrainConfig | Mapping[str, Any],
    *,
    model: Network | Callable[..., Any] | None,
    worker: MakeWorker | str | None,
    rule: UpdateRule | SearchRule | type | str | None,
) -> tuple[TrainConfig, OwnCode]:
    """The configuration with the names of what was handed in, and what has none.

    Args:
        config: Also as plain values (`TrainConfig.from_dict`), which need no ``[model]`` where a
            model is handed in.
        model: Instead of ``[model]``; the first weights of a network are made as that says. Or a
            factory, instead of ``[model] factory``.
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
    shown = f"the {what} {shown_kind(thing)}"
    if what != "rule" or name_of(type(thing)) is None:
        return f"import {shown}; {WAY_OUT}"
    if is_dataclass(thing):
        return (
            f"make {shown} again: not all of its fields are plain values; use numbers, texts and "
            "lists"
        )
    return (
        f"make {shown} again: it is no dataclass, so that its settings have no names; make it a "
        "frozen dataclass of its settings"
    )


def _section(raw: dict[str, Any], name: str) -> dict[str, Any]:
    table = raw.get(name, {})
    if isinstance(table, Section):
        return table.model_dump(exclude_unset=True)
    if not isinstance(table, Mapping):
        raise ConfigError([f"{name} is {table!r}; must be a table"])
    return dict(table)


def _put_model(raw: dict[str, Any], model: object, own: dict[str, Any]) -> None:
    if not isinstance(model, Network):
        _put_factory(raw, model, own)
        return
    raw["data"] = with_input_shape(_section(raw, "data"), model.input_shape)
    before = _section(raw, "model")
    kept = {key: before[key] for key in ("init", "initial_weights") if key in before}
    own["input_shape"] = model.input_shape
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


def _put_factory(raw: dict[str, Any], factory: object, own: dict[str, Any]) -> None:
    if isinstance(factory, str):
        refuse("model", factory, 'the function itself (a name stands in [model] factory = "...")')
    if not isinstance(factory, type) and hasattr(factory, "named_parameters"):
        rule = "a function that makes one, since each process makes its own: model=make"
        raise ConfigError([f"model is a {type(factory).__name__}, a module; must be {rule}"])
    if not callable(factory):
        refuse("model", factory, "a distsgd.Network, a function that makes a model, or None")
    name = name_of(factory)
    if name is None:
        own["factory"] = factory if isinstance(factory, Factory) else torch_model(factory)
        name = _name_in_words(factory)
    before = _section(raw, "model")
    # A loss is kept without layers: it would be that of the layers.
    of_factory = ("options", "loss", "loss_options") if before.get("layers") is None else ()
    kept = {key: before[key] for key in (*of_factory, "initial_weights") if key in before}
    raw["model"] = {"factory": name} | kept


def _name_in_words(factory: Any) -> str:
    """A name of the usual form by which nothing is found; it is shown in the run's record."""
    qualname = _NO_NAME.sub("", getattr(factory, "__qualname__", "")).rstrip(".") or "factory"
    return f"{getattr(factory, '__module__', None) or '__main__'}:{qualname}"


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
