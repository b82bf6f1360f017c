"""What sections are made of: tables whose keys state their rule in words. No I/O here."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from distsgd.config.problems import found_alone
from distsgd.errors import ConfigError

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
