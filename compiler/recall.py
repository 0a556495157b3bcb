"""Running a training plan that keeps less: what backward needs of a dropped value, it makes again.

    with Recall(recipes, make, x) as memory: y = graph(…)

The graph calls ``remember`` on each value that recipes speak of. While it runs, hooks see every tensor that autograd
would keep: one that lies in a dropped value's memory is replaced by its recipe, every other is kept as it is, with its
version, so that a change in place before backward is an error here as everywhere in torch. Hooks that were set outside
(checkpointing, offloading) get all that is kept. Gradients of gradients work: what is made again takes the place of
what was kept, history included.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, TypeAlias

import torch
from torch import Tensor

_ACTIVE: list[Recall] = []
Make: TypeAlias = Callable[[int, Sequence[Tensor], Tensor], Tensor]
Hook: TypeAlias = Callable[[Any], Any]
_top: Callable[[bool], tuple[Hook, Hook] | None] | None = getattr(
    getattr(getattr(torch, "_C", None), "_autograd", None), "_top_saved_tensors_default_hooks", None)
"""The hooks that are set now; torch has no public name for it."""


class Recall:
    """What one forward pass leaves for backward. ``make(k, given, x)`` makes dropped value ``k`` again.

    ``givens`` says for each dropped value the slots of what it is made from; ``watched`` are the tensors that recipes
    read beside: if one of them was changed in place before backward, that is an error.
    """

    def __init__(self, givens: Sequence[Sequence[int]], make: Make, x: Tensor, watched: Sequence[Tensor]) -> None:
        self.make, self.givens = make, givens
        self.watched = [(w, w._version) for w in watched]
        kind = x.device.type
        self.autocast = (kind, torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind))
        outer: tuple[Hook, Hook] | None = _top(False) if _top is not None else None
        self._pack: Hook = outer[0] if outer else _kept
        self._unpack: Hook = outer[1] if outer else _given_back
        self.x = self._pack(x.detach())
        self.stored: dict[int, Any] = {}
        self._places: dict[int, int] = {}
        self._alive: list[Tensor] = []  # until the pass is over, so that no address is given to another tensor
        self._made: dict[int, list[Any]] = {}
        self._wanted: dict[int, int] = {}
        self._back: dict[int | None, Tensor] = {}
        self._hooks: torch.autograd.graph.saved_tensors_hooks | None = None

    def __enter__(self) -> Recall:
        self._hooks = torch.autograd.graph.saved_tensors_hooks(self._on_save, self._on_read)
        self._hooks.__enter__()
        _ACTIVE.append(self)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        _ACTIVE.pop()
        hooks, self._hooks = self._hooks, None  # no cycle: what is kept goes as soon as nobody needs it
        if hooks is not None:
            hooks.__exit__(kind, error, trace)
        self._alive.clear()
        self._places.clear()

    def note(self, t: Tensor, slot: int) -> None:
        """A value that recipes speak of: one below the number of recipes is dropped, another is kept for them."""
        if slot < len(self.givens):
            self._places[t.untyped_storage().data_ptr()] = slot
            self._alive.append(t)
        else:
            self.stored[slot] = self._pack(t.detach())

    def _on_save(self, t: Tensor) -> Any:
        slot = self._places.get(t.untyped_storage().data_ptr())
        if slot is None:
            return self._pack(t)
        self._wanted[slot] = self._wanted.get(slot, 0) + 1
        return _Dropped(slot, t.size(), t.stride(), int(t.storage_offset()), t.dtype)

    def _on_read(self, packed: Any) -> Tensor:
        if not isinstance(packed, _Dropped):
            return self._unpack(packed)  # type: ignore[no-any-return]
        whole = self._again(packed.slot)
        if whole.dtype == packed.dtype:
            return whole.as_strided(packed.size, packed.stride, packed.offset)
        return whole.to(packed.dtype).as_strided(packed.size, packed.stride, packed.offset)

    def _again(self, slot: int) -> Tensor:
        """The dropped value; kept while it is read again in the same backward."""
        known = self._made.get(slot)
        if known is None:
            for w, version in self.watched:
                if w._version != version:
                    raise RuntimeError("a tensor that backward needs was changed in place after the forward pass: "
                                       f"one of shape {tuple(w.shape)} is at version {w._version}, expected {version}")
            given = [self._read(g, self.stored[g]) for g in self.givens[slot]]
            device, enabled, dtype = self.autocast
            with torch.no_grad(), torch.autocast(device, dtype=dtype, enabled=enabled):
                known = [self.make(slot, given, self._read(None, self.x)), self._wanted[slot]]
            self._made[slot] = known
        known[1] -= 1
        if known[1] <= 0:
            del self._made[slot]
        return known[0]  # type: ignore[no-any-return]

    def _read(self, key: int | None, packed: Any) -> Tensor:
        """What hooks outside have kept; they may be asked only once."""
        if key not in self._back:
            self._back[key] = self._unpack(packed)
        return self._back[key]


class _Dropped:
    """Where in a dropped value a tensor lay."""

    def __init__(self, slot: int, size: Sequence[int], stride: Sequence[int], offset: int, dtype: torch.dtype) -> None:
        self.slot, self.size, self.stride, self.offset, self.dtype = slot, size, stride, offset, dtype


def _kept(t: Tensor) -> tuple[Tensor, int]:
    return t, t._version


def _given_back(packed: tuple[Tensor, int]) -> Tensor:
    t, version = packed
    if t._version != version:
        raise RuntimeError("one of the variables needed for gradient computation has been modified by an inplace "
                           f"operation: a tensor of shape {tuple(t.shape)} is at version {t._version}, "
                           f"expected {version}")
    return t


def remember(t: Tensor, slot: int) -> Tensor:
    """t itself, noted by the pass that is running."""
    if _ACTIVE:
        _ACTIVE[-1].note(t, slot)
    return t
