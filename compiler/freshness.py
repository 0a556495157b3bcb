"""Whether a kept value is still the value of what it was computed from.

    stamp(tensors) = (optimiser steps so far, autocast, (memory, address, version) of every tensor)

Two equal stamps: nothing was written to, replaced or moved in between, and no optimiser made a step. Versions alone do
not tell: fused optimisers and writes through ``.data`` leave them as they are, and a sharded parameter is filled anew
behind its version. Addresses alone do not either: a tensor that is gone leaves its address to the next one, so the
memory is referred to, weakly. What padp itself writes through ``.data`` drops the kept values by name.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeAlias

from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.optim.optimizer import register_optimizer_step_post_hook

from padp.compiler.transforms import autocast_dtype

Stamp: TypeAlias = "tuple[Any, ...]"


class _Steps:
    """How many steps all optimisers of this process have made."""

    count = 0


def _count(*_: object) -> None:
    _Steps.count += 1


register_optimizer_step_post_hook(_count)


def stamp(tensors: Iterable[Tensor | None], like: Tensor) -> Stamp | None:
    """A value to compare with a later one; None when it cannot be told (tensors of ``torch.func`` have no address)."""
    try:
        seen = tuple((StorageWeakRef(t.untyped_storage()), t.data_ptr(), -1 if t.is_inference() else t._version)  # pyright: ignore[reportPrivateUsage]
                     for t in tensors if t is not None)
    except RuntimeError:
        return None
    return _Steps.count, autocast_dtype(like), seen
