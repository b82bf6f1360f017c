"""What may stand in ``[model] layers``: one table a layer, told apart by `type`. No I/O here.

Its keys are the settings of the layer itself (`distsgd.nn.layers.Layer`): nothing is said twice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, Union

from pydantic import AfterValidator, Field, create_model

from distsgd.base.settings import Key, is_allowed, keys_of
from distsgd.config.section import Section, key
from distsgd.nn import described, layers


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


TABLES = {layer: _table(layer) for layer in described.LAYERS}
DenseLayer: Any = TABLES[layers.Dense]
FlattenLayer: Any = TABLES[layers.Flatten]
ActivationLayer: Any = TABLES[layers.Activation]

if TYPE_CHECKING:
    Layer = Section
else:
    Layer = Annotated[Union[tuple(TABLES.values())], Field(discriminator="type")]  # noqa: UP007
