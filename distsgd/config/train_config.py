"""The whole configuration: read, checked, overridden. Reading a TOML file is the only I/O here."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from pydantic import ValidationError

from distsgd.base.locations import Location, place_of
from distsgd.base.settings import path_argument, refuse
from distsgd.config.agreement import disagreements, parallel_disagreements
from distsgd.config.data_section import DataSection
from distsgd.config.parallel_section import ParallelSection
from distsgd.config.problems import Problem, found_by, missing, unusable_override
from distsgd.config.section import Section
from distsgd.config.sections import (
    BatchSection,
    CheckpointSection,
    ModelSection,
    OptimizerSection,
    ScheduleSection,
    StatisticsSection,
    TrainSection,
)
from distsgd.errors import ConfigError

# What may differ between two goes at one run: none of it changes a bit of the weights.
NO_INPUT_TO_THE_BITS = {
    "data": {"cache_size_gb"},
    "parallel": {
        "workers",
        "assignment",
        "transport",
        "address",
        "spin",
        "step_timeout_s",
        "resources",
        "label_selector",
        "placement",
        "observer",
        "observer_options",
    },
    "checkpoint": True,
}
_PATH_KEYS = (("data", "path"), ("data", "test_path"), ("model", "initial_weights"))


_DEEPEST = 16

# In place of required keys that are wrong, so that the others can still be held against each other.
_STAND_IN: dict[str, dict[str, Any]] = {
    "data": {"path": "-", "label": "-"},
    "model": {"layers": ({"type": "flatten"},), "loss": "quadratic"},
}


class TrainConfig(Section):
    """A whole configuration; `from_toml` and `from_dict` report every mistake at once.

    >>> config = TrainConfig.from_dict(
    ...     {
    ...         "data": {"path": "/digits.parquet", "label": "digit"},
    ...         "model": {
    ...             "layers": [{"type": "dense", "units": 10}],
    ...             "loss": "softmax_cross_entropy",
    ...         },
    ...     }
    ... )
    >>> config.batch.size, config.with_overrides(["batch.size=full"]).batch.size
    (64, 'full')
    """

    data: DataSection = DataSection()
    model: ModelSection
    optimizer: OptimizerSection = OptimizerSection()
    schedule: ScheduleSection = ScheduleSection()
    batch: BatchSection = BatchSection()
    train: TrainSection = TrainSection()
    parallel: ParallelSection = ParallelSection()
    statistics: StatisticsSection = StatisticsSection()
    checkpoint: CheckpointSection = CheckpointSection()

    @classmethod
    def from_toml(cls, path: Path | str) -> Self:
        """Read a TOML file; paths in it are relative to its directory. Raises ConfigError."""
        path = path_argument("path of the configuration", path)
        return cls.from_dict(_read_toml(path), base=path.parent)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], *, base: Path | None = None) -> Self:
        """Check plain values; paths in them are relative to `base` (this directory unless given).

        ``data.path`` and ``data.label`` may be left out: then the rows are handed to the trainer.

        Raises:
            ConfigError: With every problem at once.
        """
        if not isinstance(values, Mapping) or not all(isinstance(key, str) for key in values):
            refuse("the configuration", values, "sections by name: {'data': {...}, ...}")
        base = Path.cwd() if base is None else path_argument("base", base)
        raw, unusable = _resolved({"data": {}, "model": {}} | dict(values), base)
        no_model = _missing_model(raw["model"])
        try:
            config = cls.model_validate(raw)
        except ValidationError as error:
            problems = unusable + _missing_sources(raw["data"]) + no_model
            problems += found_by(error, raw, root=cls)
            problems += _other_disagreements(raw, {key for it in problems for key in it.keys})
        else:
            # Rows that are handed in as arrays have no path, and need no names.
            needs_sources = config.data.paths or no_model
            problems = unusable + (_missing_sources(raw["data"]) if needs_sources else [])
            problems += no_model + _disagreements(config)
            if not problems:
                return config
        raise ConfigError([problem.text for problem in problems])

    @classmethod
    def checked(cls, keys: dict[str, Any]) -> Any:
        """As `from_dict`; the sections may be objects as well. Raises ConfigError."""
        return cls.from_dict(
            {
                name: value.model_dump(exclude_unset=True) if isinstance(value, Section) else value
                for name, value in keys.items()
            }
        )

    def with_overrides(self, overrides: Sequence[str]) -> Self:
        """This configuration with ``section.key=value`` set: TOML, or a bare word for a string.

        Paths are relative to the current directory, as typed. Where another `type` or `sampler` is
        set, settings that only the old one had go with it; one ``evaluate_every_...`` takes the
        place of another. Raises ConfigError.
        """
        if isinstance(overrides, str) or not _are_texts(overrides):
            refuse("overrides", overrides, 'a list of texts: ["batch.size=64"]')
        raw = self.model_dump(mode="json", exclude_unset=True)
        said = [(override, *_read_override(override)) for override in overrides]
        for _, (name, *inside), value in said:
            section = getattr(self, name, None)
            if isinstance(section, Section) and name in raw and len(inside) == 1:
                dropped = section.replaced_by(inside[0], value)
                raw[name] = {key: it for key, it in raw[name].items() if key not in dropped}
        problems = []
        for override, keys, value in said:
            table: Any = raw if value is not None and len(keys) in {2, 3} else None
            for key in keys[:-1]:
                table = table.setdefault(key, {}) if isinstance(table, dict) else None
            if isinstance(table, dict):
                table[keys[-1]] = value
            else:
                problems.append(unusable_override(override, keys, type(self)))
        if problems:
            raise ConfigError(problems)
        return type(self).from_dict(raw)

    def missing_sources(self) -> list[str]:
        """What must still be said before rows can be read from files, one line a key."""
        said = self.data.model_dump(exclude_none=True)
        return [problem.text for problem in _missing_sources(said)]

    def to_dict(self) -> dict[str, Any]:
        """Every key with its resolved value, as plain JSON; `from_dict` gives an equal one."""
        return self.model_dump(mode="json")

    def canonical(self) -> dict[str, Any]:
        """Only what the bits of a run depend on: two goes at one run agree in it."""
        return self.model_dump(mode="json", exclude=NO_INPUT_TO_THE_BITS)  # type: ignore[arg-type]


def _read_toml(path: Path | str) -> dict[str, Any]:
    """The values of a TOML file, unchecked. Raises ConfigError when it cannot be read."""
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError([f"{path}: no such file (`distsgd init digits` writes one)"]) from None
    except OSError as error:
        raise ConfigError([f"{path}: cannot be read: {error.strerror}"]) from None
    except (ValueError, RecursionError) as error:  # TOML, UTF-8, digits without end.
        reason = error if isinstance(error, ValueError) else "nested too deeply"
        raise ConfigError([f"{path}: is not TOML: {reason} (see `distsgd init digits`)"]) from None


def _are_texts(values: object) -> bool:
    return isinstance(values, Sequence) and all(isinstance(value, str) for value in values)


def _read_override(override: str) -> tuple[list[str], Any]:
    """Where ``section.key=value`` sets something, and the value: None where it cannot be read."""
    name, equals, text = override.partition("=")
    value, readable = _toml_value(text.strip())
    return name.strip().split("."), value if equals and text.strip() and readable else None


def _toml_value(text: str) -> tuple[Any, bool]:
    """The value of `text`, and whether it could be read at all."""
    try:
        table = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):
        return text, text[:1] not in ('"', "'", "[", "{")
    return (table["value"], True) if len(table) == 1 else (text, False)


def _resolved(values: dict[str, Any], base: Path) -> tuple[dict[str, Any], list[Problem]]:
    """`values` with lists as tuples (as the frozen models want them) and paths made absolute.

    And addresses that cannot be one: they are not shown again, since there may be keys in them.
    """
    raw: dict[str, Any] = {key: _frozen(value) for key, value in values.items()}
    problems = []
    for section, key in _PATH_KEYS:
        table = raw[section]
        if isinstance(table, dict) and key in table:
            try:
                table[key] = _absolute(table[key], base)
            except ConfigError as error:
                table[key] = "-"
                dotted = f"{section}.{key}"
                problems += [Problem((dotted,), f"{dotted}: {it}") for it in error.problems]
    return raw, problems


def _frozen(value: Any, depth: int = 0) -> Any:
    if depth > _DEEPEST:
        raise ConfigError([f"a value is nested more than {_DEEPEST} deep; no key wants that"])
    if isinstance(value, Mapping):
        return {key: _frozen(inner, depth + 1) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return tuple(_frozen(inner, depth + 1) for inner in value)
    return value


def _absolute(value: Any, base: Path) -> Any:
    if isinstance(value, tuple):
        return tuple(_absolute(inner, base) for inner in value)
    if not isinstance(value, str) or not value:
        return value
    place = place_of(value)
    if isinstance(place, Location):
        return place.address
    return str((base / place.expanduser()).absolute())


def _missing_sources(data: Any) -> list[Problem]:
    """Keys of ``[data]`` without which no row can be read from a file; none if it is no table."""
    keys = ("path", "label") if isinstance(data, dict) else ()
    return [missing(f"data.{key}", TrainConfig) for key in keys if key not in data]


def _missing_model(model: Any) -> list[Problem]:
    """Keys of ``[model]`` without which there is none; none if it is no table."""
    is_network = isinstance(model, dict) and model.get("factory") is None
    keys = ("layers", "loss") if is_network else ()
    found = [missing(f"model.{key}", TrainConfig) for key in keys if model.get(key) is None]
    own = "(set [model] layers, or factory for a model of your own)"
    return [replace(it, text=it.text.replace("(set [model] layers)", own)) for it in found]


def _disagreements(config: TrainConfig) -> list[Problem]:
    return disagreements(
        config.data,
        model=config.model,
        optimizer=config.optimizer,
        schedule=config.schedule,
        batch=config.batch,
        train=config.train,
    ) + parallel_disagreements(config.parallel)


def _stand_in(section: str, kept: Mapping[str, Any]) -> dict[str, Any]:
    is_own = section == "model" and kept.get("factory") is not None
    return {"factory": "stand:in"} if is_own else _STAND_IN.get(section, {})


def _other_disagreements(raw: Mapping[str, Any], wrong: set[str]) -> list[Problem]:
    """Disagreements between the keys that are right, when others are wrong: one go shows all."""
    usable: dict[str, Any] = {}
    for section in TrainConfig.model_fields:
        table = raw.get(section)
        kept = table.items() if isinstance(table, dict) else ()
        # A key of a subtable is named data.csv.separator: the subtable is left out whole.
        names = {".".join(name.split(".")[:2]) for name in wrong}
        right = {key: value for key, value in kept if f"{section}.{key}" not in names}
        usable[section] = _stand_in(section, kept=dict(kept)) | right
    found = _disagreements(TrainConfig.model_validate(usable))
    return [problem for problem in found if not wrong & set(problem.keys)]
