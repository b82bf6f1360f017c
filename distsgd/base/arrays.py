"""The one name for an array, and the legend of the shape letters that end arrays' names.

    N samples   I inputs   O outputs   S slots for partials   P parameters (all of a model, flat)

So ``x_NI`` is a matrix of N samples with I inputs each, ``weights_P`` all weights as one vector.
"""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

Array = NDArray[Any]
