"""Sections whose keys are the settings of components, one of which is chosen by `type`.

What a key means and may be is said at the component (`distsgd.base.settings`), not here. No I/O.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields
from functools import partial
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import Field, create_model, model_validator

from distsgd.base.settings import Key, keys_of
from distsgd.config.problems import Problem, in_words, shown
from distsgd.config.section import Section, key

Components = Mapping[str, type[Any]]
S = TypeVar("S", bound="ComposedSection")
NAMED = r"^[A-Za-z_][\w.]*:[A-Za-z_][\w.]*$"  # "module:qualname"


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
                    else f"settings of a rule of your own go into options (set [{section}] options "
                    f"= {{{name} = {shown(value)}}})"
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
