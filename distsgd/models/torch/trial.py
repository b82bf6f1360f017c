"""A trial: a module runs forward once, on two made-up rows, before anything rests on it.

It says what training holds for a row, and refuses what would write into memory that processes
share. Whether rows stay apart and bits repeat, is told elsewhere, on rows of the data.
"""

from __future__ import annotations

import torch

from distsgd.errors import DistSGDError, ModelError
from distsgd.models.factory import RowSpec
from distsgd.models.torch.leaves import uses_of
from distsgd.models.torch.parts import Parts, Tensor
from distsgd.models.torch.settings import Computing

_ROWS = 2
_UNKNOWN = 1_000_000


def try_out(parts: Parts, rows: RowSpec) -> int:
    """About how many numbers training holds for each row of a block, its input apart.

    What the backward needs, and as many again for gradients. Of a module that takes no made-up
    rows a million, since rows of the data will tell what it raises.

    Raises:
        ModelError: Outputs or losses are of the wrong kind; the module changes its input, or its
            parameters, while it runs; or what learns is none of its parameters.
    """
    module = parts.module
    module.train()
    with Computing(grad=True):
        inputs, target = _made_up(rows)
        held = _Held((inputs, *module.parameters(), *module.buffers()))
        written = {name: it._version for name, it in module.named_parameters()}  # noqa: SLF001
        inputs_written = inputs._version  # noqa: SLF001 -- PyTorch's only way to tell.
        try:
            with torch.autograd.graph.saved_tensors_hooks(held.keep, lambda tensor: tensor):
                losses = parts.losses(parts.outputs(inputs), target)
        except (DistSGDError, MemoryError):
            raise
        except Exception:  # noqa: BLE001 -- it is raised again by rows of the data.
            return _UNKNOWN
    if not losses.requires_grad:
        raise ModelError(
            "the losses do not depend on any parameter in a way that PyTorch has a gradient for; "
            "nothing can learn (leave out detach, no_grad and argmax)"
        )
    if inputs._version != inputs_written:  # noqa: SLF001
        raise ModelError(
            "the module changes its input in place; rows are read once for all that is done with "
            "them (leave out inplace=True of what comes first, or begin with x.clone())"
        )
    for name, parameter in module.named_parameters():
        if parameter._version != written[name]:  # noqa: SLF001
            raise ModelError(
                f"the module changes its parameter {name} while it runs; weights are shared, and "
                "changed by the optimiser only (compute from them in forward, in new tensors)"
            )
    _check_leaves(parts, losses, inputs, target)
    return max(1, -(-2 * held.count // _ROWS))


def _check_leaves(parts: Parts, losses: Tensor, inputs: Tensor, target: Tensor) -> None:
    """Raises ModelError where the losses depend on what learns but is no parameter."""
    known = {inputs, target, *parts.module.parameters()}
    others = {it for _, it in uses_of([losses])} - known
    if others:  # Those that a forward makes for itself, are others in the next.
        with Computing(grad=True):
            again = parts.losses(parts.outputs(inputs), target)
        others &= {it for _, it in uses_of([again])}
    for other in others:
        raise ModelError(
            f"the losses depend on a tensor of shape {tuple(other.shape)} with requires_grad=True "
            f"that is no parameter of {type(parts.module).__name__}; it would never learn (make it "
            "a parameter of the module, which forward uses; or set requires_grad=False)"
        )


class _Held:
    """Counts the numbers that a forward keeps for its backward, each memory once."""

    def __init__(self, not_counted: tuple[Tensor, ...]) -> None:
        self._known = {it.untyped_storage().data_ptr(): it for it in not_counted}
        self.count = 0

    def keep(self, tensor: Tensor) -> Tensor:
        """See ``torch.autograd.graph.saved_tensors_hooks``."""
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self._known:
            self._known[storage.data_ptr()] = tensor  # Kept, so that no other has its address.
            self.count += storage.nbytes() // tensor.itemsize
        return tensor


def _made_up(rows: RowSpec) -> tuple[Tensor, Tensor]:
    shape, target_shape = (_ROWS, *rows.input_shape), (_ROWS, *rows.target_shape)
    levels, is_class = rows.num_levels, rows.target_kind == "class"
    inputs = torch.rand(shape) if levels is None else torch.randint(levels, shape)
    target = torch.randint(rows.num_outputs, target_shape) if is_class else torch.rand(target_shape)
    return inputs, target
