"""Whether a kept value is still the value of what it was computed from.

    stamp(tensors) = (optimiser steps so far, autocast, (memory, address, version) of every tensor)

While a stamp holds, nothing was written to, replaced or moved, and no optimiser made a step. Versions alone do
not tell: fused optimisers and writes through ``.data`` leave them as they are, and a sharded parameter is filled anew
behind its version. Addresses alone do not either: a tensor that is gone leaves its address to the next one, so the
memory is referred to, weakly. What padp itself writes through ``.data`` drops the kept values by name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.optim.optimizer import register_optimizer_step_post_hook

from padp.compiler.transforms import autocast_dtype


class _Steps:
    """How many steps all optimisers of this process have made."""

    count = 0


def _count(*_: object) -> None:
    _Steps.count += 1


register_optimizer_step_post_hook(_count)


@dataclass(frozen=True, slots=True)
class Stamp:
    """What was there when values were kept: (memory, address, version) of every tensor that they were computed from."""

    steps: int
    autocast: torch.dtype | None
    seen: tuple[tuple[StorageWeakRef, int, int], ...]

    def holds(self, tensors: Sequence[Tensor | None], like: Tensor) -> bool:
        """Whether all of it is as it was. Memory that is still alive has its address for itself."""
        if self.steps != _Steps.count or autocast_dtype(like) != self.autocast:
            return False
        at = iter(self.seen)
        try:
            for t in tensors:
                if t is not None:
                    memory, address, version = next(at, _NOTHING)
                    if t.data_ptr() != address or memory is None or _EXPIRED(memory.cdata):
                        return False
                    if version < 0:
                        if not t.is_inference():
                            return False
                    elif t._version != version:  # an error for an inference tensor  # pyright: ignore
                        return False
        except RuntimeError:
            return False
        return next(at, None) is None


_EXPIRED: Callable[[Any], bool] = cast(Any, torch.UntypedStorage)._expired
"""What ``StorageWeakRef.expired`` asks."""
_NOTHING = (None, -1, -1)


def stamp(tensors: Iterable[Tensor | None], like: Tensor) -> Stamp | None:
    """What to ask later whether it still holds; None when it cannot be told (tensors of ``torch.func`` have no
    address)."""
    try:
        seen = tuple((StorageWeakRef(t.untyped_storage()), t.data_ptr(), _version(t)) for t in tensors if t is not None)
    except RuntimeError:
        return None
    return Stamp(_Steps.count, autocast_dtype(like), seen)


def _version(t: Tensor) -> int:
    return -1 if t.is_inference() else t._version  # pyright: ignore[reportPrivateUsage]
