"""What a variable is without gates: an array that may be exchanged, read and compared.

No I/O here.
"""

from __future__ import annotations

from typing import Any, NoReturn

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from distsgd.autodiff.conversion import as_dtype, as_numbers
from distsgd.autodiff.gate import Shape
from distsgd.base.arrays import Array
from distsgd.errors import ModelError


class Held:
    """Numbers of a shape and a dtype; comparisons give plain arrays, conversions plain numbers.

    Args:
        value: Real numbers; `ModelError` for anything else.
        dtype: The dtype to convert to; None keeps floats and makes others float64.
    """

    __slots__ = ("_is_fixed", "_value")
    # Equal numbers do not make two variables one: sets and dictionaries tell them apart.
    __hash__ = object.__hash__

    def __init__(self, value: ArrayLike, dtype: DTypeLike | None) -> None:
        array, kept = as_numbers(_plain(value)), as_dtype(dtype)
        if kept is None and array.dtype.kind != "f":
            kept = np.dtype(np.float64)
        self._value: Array = array if kept is None else array.astype(kept, copy=False)
        self._is_fixed = False

    @property
    def value(self) -> Array:
        """The numbers; can be set to anything real, also of another shape.

        Floats keep their dtype, other numbers get the one that the variable had. What a tape
        recorded before still has the old numbers. What a tape computed is read-only, and
        `ModelError` where it is set.
        """
        return self._value

    @value.setter
    def value(self, numbers: ArrayLike) -> None:
        if self._is_fixed:
            raise ModelError(
                "the value of a Variable was set that a tape computed, which no gradient would go "
                "through; multiply or add Variables instead, or make a new Variable"
            )
        array = as_numbers(_plain(numbers))
        if array.dtype.kind != "f" or self.dtype.kind != "f":
            array = array.astype(self.dtype, copy=False)
        self._value = array

    def fix(self) -> None:
        """Lets nobody change the value from now on, neither in place nor by another one."""
        if self._is_fixed:
            return
        self._value = self._value.view()
        self._value.flags.writeable = False
        self._is_fixed = True

    @property
    def shape(self) -> Shape:
        """Shape of the value."""
        return self._value.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Dtype of the value."""
        return self._value.dtype

    @property
    def ndim(self) -> int:
        """How many axes the value has."""
        return self._value.ndim

    @property
    def size(self) -> int:
        """How many numbers the value has."""
        return self._value.size

    def item(self) -> float:
        """The only number, as a plain one; `ModelError` where there are others."""
        number: float = self._only_number("a number").item()
        return number

    def __float__(self) -> float:
        return float(self._only_number("a number"))

    def __int__(self) -> int:
        return int(self._only_number("a number"))

    def __round__(self, digits: int | None = None) -> float:
        return round(float(self), digits)

    def __bool__(self) -> bool:
        return bool(self._only_number("true or false"))

    def __format__(self, spec: str) -> str:
        return format(float(self), spec) if spec else str(self)

    def _only_number(self, as_what: str) -> Array:
        if self.size != 1:
            raise ModelError(
                f"a Variable of shape {self.shape} cannot be taken as {as_what}; must hold one "
                "number (sum it, or take one: x[0])"
            )
        return self._value.reshape(())

    def __len__(self) -> int:
        if not self.ndim:
            raise ModelError(
                "a Variable of shape () has no length and no parts; must have an axis (use it as "
                "the number that it is)"
            )
        return len(self._value)

    def __eq__(self, other: object) -> Any:
        return self._value == np.asarray(_plain(other))

    def __ne__(self, other: object) -> Any:
        return self._value != np.asarray(_plain(other))

    def __lt__(self, other: Any) -> Any:
        return self._value < as_numbers(_plain(other))

    def __le__(self, other: Any) -> Any:
        return self._value <= as_numbers(_plain(other))

    def __gt__(self, other: Any) -> Any:
        return self._value > as_numbers(_plain(other))

    def __ge__(self, other: Any) -> Any:
        return self._value >= as_numbers(_plain(other))

    def __contains__(self, number: ArrayLike) -> bool:
        return bool(np.any(self._value == np.asarray(_plain(number))))

    def __mod__(self, other: object) -> NoReturn:
        raise _no_gate("x % y")

    def __rmod__(self, other: object) -> NoReturn:
        raise _no_gate("x % y")

    def __floordiv__(self, other: object) -> NoReturn:
        raise _no_gate("x // y")

    def __rfloordiv__(self, other: object) -> NoReturn:
        raise _no_gate("x // y")

    def __divmod__(self, other: object) -> NoReturn:
        raise _no_gate("divmod(x, y)")


def _plain(given: Any) -> Any:
    return given.value if isinstance(given, Held) else given


def _no_gate(written: str) -> ModelError:
    return ModelError(
        f"{written} got a Variable, and there is no gate for it; must be one of + - * / ** @ "
        "(write x.value where no gradient is wanted)"
    )
