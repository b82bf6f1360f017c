"""What one call of a module saw in a forward and its backward.

Shape letter: N samples.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from distsgd.errors import ModelError
from distsgd.models.torch.norms.axes import tensors_of, versions_of
from distsgd.models.torch.norms.plan import Site
from distsgd.models.torch.norms.recompute import Recomputation
from distsgd.models.torch.norms.tables import Factors


class Use:
    """A site in one forward.

    Args:
        site: Which call it is.
        taken: Its arguments and keyword arguments; of a site with a rule, also the one tensor.
        given: The tensors it gave.

    Attributes:
        squares: Squared norms ``[N]``, as soon as the site's rule can tell them.
    """

    def __init__(self, site: Site, taken: Any, given: list[Tensor]) -> None:
        self.site = site
        self.squares: Tensor | None = None
        self._taken, self._is_closed = taken, False
        self._versions = versions_of(tensors_of(taken)) if site.is_run_again else []
        self._deltas: list[Tensor | None] = [None] * len(given)

    def receive(self, index: int, delta: Tensor) -> None:
        """Keep the gradient by the tensor of this index, or tell the norms at once."""
        if self._is_closed:
            return
        self._deltas[index] = delta
        if self.site.rule is not None and self.site.is_alone:
            self.squares = self.site.rule.squared_norms(self.site.module, *self._seen())
            self.close()

    def close(self) -> None:
        """Let go of what was seen; another backward through the same graph is not watched."""
        self._taken, self._deltas, self._is_closed = (), [], True

    @property
    def is_open(self) -> bool:
        """Whether its per-sample gradients are yet to be asked for: something flowed back."""
        return any(delta is not None for delta in self._deltas)

    def gradients(self, rows: slice) -> dict[Tensor, Tensor]:
        """Per-sample gradients of some rows, ``[n, *shape]``, by parameter."""
        site = self.site
        if site.rule is not None:
            x, d = self._seen()
            found = site.rule.gradients(site.module, x[rows], d[rows])
        else:
            self._check_is_as_it_was()
            again = Recomputation(site.module, list(site.parameters), self._taken, site.in_axes)
            found = again.gradients(self._deltas, site.out_axes, rows)
        return {site.parameters[name]: each for name, each in found.items()}

    def factors(self) -> Factors | None:
        """Of the gradient of its table, where it has one and no other parameter."""
        rule = self.site.rule
        if rule is None or rule.factors is None or list(self.site.parameters) != ["weight"]:
            return None
        return rule.factors(self.site.module, *self._seen())

    def _seen(self) -> tuple[Tensor, Tensor]:
        """What it took, and the gradient by what it gave, with the rows first."""
        (x,), (d,) = tensors_of(self._taken), self._deltas
        (axis,) = self.site.out_axes
        assert axis is not None
        assert d is not None
        x = x.detach()
        return (x, d) if axis == 0 else (x.movedim(axis, 0), d.movedim(axis, 0))

    def _check_is_as_it_was(self) -> None:
        if self._versions != versions_of(tensors_of(self._taken)):
            raise ModelError(
                f"norms of each sample: {self.site.label} must be run again, but what it took was "
                "written into afterwards (work on a copy: x = x.clone())"
            )
