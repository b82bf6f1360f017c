"""What sections are made of: tables whose keys state their rule in words. No I/O here.

A section of components (`ComposedSection`), of which one is chosen by `type`, and the tables of
``[model] layers`` take their keys from the components themselves (`distsgd.base.settings`): what a
key means and may be is said there, not here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, NoReturn, TypeVar, Union

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    create_model,
    model_validator,
)

from distsgd.base.named import NAMED
from distsgd.base.settings import Key, is_allowed, keys_of
from distsgd.config.problems import Problem, found_alone, in_words, into_options, shown
from distsgd.errors import ConfigError
from distsgd.nn import layer_types, layers

Names = Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(min_length=1)]
_WAY_OUT = 'make another one with config.with_overrides(["section.key=value"])'
Name = Annotated[str, Field(min_length=1)]


def key(meaning: str, rule: str, **bounds: Any) -> Any:
    """What a key means, the rule its value must keep in words, and the same rule for pydantic."""
    return Field(description=meaning, json_schema_extra={"rule": rule}, **bounds)


def count(meaning: str, rule: str = "a whole number, 1 or more") -> Any:
    """A key whose value is a count."""
    return key(meaning, rule, ge=1)


if TYPE_CHECKING:  # No public name says what this is.
    from pydantic._internal._model_construction import ModelMetaclass
else:
    ModelMetaclass = type(BaseModel)


class _Checked(ModelMetaclass):
    """Answers a mistake in a call of the class by ConfigError.

    Not in ``__init__``: pydantic makes the sections of a whole configuration without it, and
    reports all their mistakes at once.
    """

    def __call__(cls, *values: Any, **keys: Any) -> Any:  # noqa: N805 -- of a metaclass.
        if values:
            raise ConfigError([f"{cls.__name__} takes keywords only: {cls.__name__}(key=value)"])
        assert issubclass(cls, Section)
        return cls.checked(keys)


class Section(BaseModel, metaclass=_Checked):
    """A table of the TOML file: immutable, no unknown keys, no silent conversions."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    @classmethod
    def checked(cls, keys: dict[str, Any]) -> Any:
        """A section with these keys. Raises ConfigError."""
        try:
            return cls.model_validate(keys)
        except ValidationError as error:
            raise ConfigError(found_alone(error, keys, table=cls)) from None

    def settings_for(self, component: type[Any]) -> dict[str, Any]:
        """The keys of this section that a dataclass has fields for, as its keyword arguments."""
        names = {field.name for field in fields(component)} & type(self).model_fields.keys()
        return {name: getattr(self, name) for name in names}

    def replaced_by(self, key: str, value: object) -> set[str]:  # noqa: ARG002 -- for sections.
        """Keys that lose their sense where `key` gets another `value`."""
        return set()

    def __setattr__(self, name: str, value: Any) -> NoReturn:
        raise ConfigError([f"{name} cannot be set: a configuration is immutable; {_WAY_OUT}"])

    def __delattr__(self, name: str) -> NoReturn:
        raise ConfigError([f"{name} cannot be deleted: a configuration is immutable; {_WAY_OUT}"])


Components = Mapping[str, type[Any]]
S = TypeVar("S", bound="ComposedSection")


class ComposedSection(Section):
    """A section of one component, chosen by `type`; the keys of the others are None."""

    type: str = ""  # Named, with its default, by `composed`.
    components: ClassVar[Components] = {}

    @model_validator(mode="before")
    @classmethod
    def _left_out(cls, values: Any) -> Any:
        """A key of a component that is None is one that was left out, as in a record."""
        if not isinstance(values, dict):
            return values
        known = _union(cls.components)
        return {name: it for name, it in values.items() if it is not None or name not in known}

    def component(self, **given: Any) -> Any:
        """The component with its settings, and with those of the `given` that it has fields for."""
        chosen = self.components[self.type]
        taken = {field.name for field in fields(chosen)}
        settings = {name: getattr(self, name) for name in keys_of(chosen)}
        return chosen(**settings, **{name: it for name, it in given.items() if name in taken})

    def replaced_by(self, key: str, value: object) -> set[str]:
        """Settings that the present type has, and another one has not."""
        if key != "type" or value == self.type:
            return set()
        chosen = self.components.get(str(value))
        return {"options", *_union(self.components)} - (keys_of(chosen) if chosen else {}).keys()

    def problems(self, section: str) -> Iterator[Problem]:
        """What is missing for the component that is chosen, and what it has no use for."""
        chosen = self.components.get(self.type)
        own = keys_of(chosen) if chosen else {}
        for name in _union(self.components):
            value, dotted = getattr(self, name), f"{section}.{name}"
            if name in own and own[name].is_needed and value is None:
                text = (
                    f'{dotted} is missing; must be {own[name].setting.rule} with type "{self.type}"'
                    f" (set [{section}] {name})"
                )
            elif name not in own and value is not None:
                way_out = (
                    f"it has no {name} (remove it from [{section}], or set type to "
                    f"{in_words(self._having(name))})"
                    if chosen
                    else into_options(section, name, value)
                )
                text = f'{dotted} is {shown(value)} with type "{self.type}"; {way_out}'
            else:
                continue
            yield Problem((f"{section}.type", dotted), text)
        if chosen and getattr(self, "options", None):
            text = (
                f'{section}.options is {shown(getattr(self, "options"))} with type "{self.type}"; '  # noqa: B009
                f"its settings are keys of the section (write them in [{section}] itself)"
            )
            yield Problem((f"{section}.type", f"{section}.options"), text)

    def _having(self, name: str) -> list[str]:
        return [kind for kind, it in self.components.items() if name in keys_of(it)]


def composed(
    components: Components, *, default: str, meaning: str, of_own: str = ""
) -> Callable[[type[S]], type[S]]:
    """A class decorator: adds `type` and the settings of all `components` to a section.

    Args:
        components: By the name that is their `type`.
        default: The type where none is set.
        meaning: Of `type`.
        of_own: Also ``"module:Class"`` is a type; what that names.
    """
    rule, names = in_words(components), Literal[tuple(components)]
    kind: Any = names
    if of_own:
        rule += f', or "module:Class" for {of_own}'
        kind = names | Annotated[str, Field(pattern=NAMED)]
    added: dict[str, Any] = {"type": (Annotated[kind, key(meaning, rule)], default)}
    for name, it in _union(components).items():
        default_of = partial(_default_of, components, name)
        field = key(it.setting.meaning, it.setting.rule, **it.setting.bounds)
        added[name] = (Annotated[it.type | None, field], Field(default_factory=default_of))

    def decorate(section: type[S]) -> type[S]:
        made = create_model(
            section.__name__,
            __base__=section,
            __module__=section.__module__,
            __doc__=section.__doc__,
            **added,
        )
        made.components = components
        return made

    return decorate


def _union(components: Components) -> dict[str, Key]:
    """The keys of all components; one of the same name means the same in each."""
    found: dict[str, Key] = {}
    for component in components.values():
        for name, it in keys_of(component).items():
            other = found.setdefault(name, it)
            assert (other.type, other.setting) == (it.type, it.setting), name
    return found


def _default_of(components: Components, name: str, validated: dict[str, Any]) -> Any:
    """What the chosen component has for a key that is left out; None where it has no such key."""
    component = components.get(validated.get("type", ""))
    it = keys_of(component).get(name) if component else None
    return None if it is None or it.is_needed else it.default


def _field(of: Key) -> tuple[Any, Any]:
    """A key of a component as pydantic takes it: its type, checked by its bounds, and default."""

    def check(value: Any) -> Any:
        if not is_allowed(of, value):
            raise ValueError(value)
        return value

    said = key(of.setting.meaning, of.setting.rule)
    return Annotated[of.type, AfterValidator(check), said], ... if of.is_needed else of.default


def _table(layer: type[layers.Layer]) -> type[Section]:
    fields = {name: _field(of) for name, of in keys_of(layer).items()}
    types = Literal[layer.types()]  # type: ignore[valid-type] # known when it runs
    named = {"type": (types, ...)} | fields
    return create_model(f"{layer.__name__}Layer", __base__=Section, __doc__=layer.__doc__, **named)


TABLES = {layer: _table(layer) for layer in layer_types.LAYERS}
DenseLayer: Any = TABLES[layers.Dense]
FlattenLayer: Any = TABLES[layers.Flatten]
ActivationLayer: Any = TABLES[layers.Activation]

if TYPE_CHECKING:
    Layer = Section
else:
    Layer = Annotated[Union[tuple(TABLES.values())], Field(discriminator="type")]  # noqa: UP007


class CsvSection(Section):
    """How CSV files are written; a subtable of ``[data]``."""

    separator: Annotated[
        str,
        key("character between two values", '"auto" (comma, semicolon or tab) or one character'),
    ] = "auto"
    encoding: Annotated[
        str, key("of the text", 'an encoding such as "utf-8", "latin-1", "cp1252" or "utf-16"')
    ] = "utf-8"
    decimal: Annotated[Literal[".", ","], key("before the decimals", '"." or ","')] = "."
    null_values: Annotated[
        tuple[str, ...] | None,
        key(
            "what stands for a missing value, besides an empty field",
            "a list of texts, or left out (NA, N/A, null and NULL in columns of numbers)",
        ),
    ] = None
