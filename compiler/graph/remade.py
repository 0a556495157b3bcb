"""Running a training plan that keeps less: what backward needs of a dropped value, it makes again.

    with Recall(recipes, make, x, watched) as memory: y = graph(…)

The graph calls ``remember`` on each value that recipes speak of. While it runs, hooks see every tensor that autograd
would keep: one that lies in a dropped value's memory is replaced by its recipe, every other is kept as it is, with its
version, so that a change in place before backward is an error here as everywhere in torch. Hooks that were set outside
(checkpointing, offloading) get all that is kept. Gradients of gradients work: what is made again takes the place of
what was kept, history included. What cannot be told apart by its place in memory is kept: tensors of other classes,
views of larger ones, lazy conjugates.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from padp.compiler.kernels.torch_state import autocast_dtype

Make: TypeAlias = Callable[[int, Sequence[Tensor], "Tensor | None"], Tensor]
Hook: TypeAlias = Callable[[Any], Any]
_autograd: Any = getattr(getattr(torch, "_C", None), "_autograd", None)
_top: Callable[[bool], tuple[Hook, Hook] | None] | None = getattr(_autograd, "_top_saved_tensors_default_hooks", None)
"""The hooks that are set now; torch has no public name for it."""
_allowed: Callable[[], bool] | None = getattr(_autograd, "_saved_tensors_hooks_is_enabled", None)
"""Whether hooks may be set now; torch has no public name for it."""


class _Running(threading.local):
    """The passes that this thread is in, the innermost last."""

    def __init__(self) -> None:
        self.passes: list[Recall] = []


_RUNNING = _Running()


def possible(x: Tensor) -> bool:
    """Whether hooks may be set here, and x may be kept for backward."""
    return not x.is_inference() and (_allowed is None or _allowed())


class Recall:
    """What one forward pass leaves for backward. ``make(k, given, x)`` makes dropped value ``k`` again.

    ``givens`` says for each dropped value the slots of what it is made from, ``x`` is None where no recipe reads it;
    ``watched`` are the tensors that recipes read beside: if one of them was changed in place before backward, that is
    an error.
    """

    def __init__(self, givens: Sequence[Sequence[int]], make: Make, x: Tensor | None,
                 watched: Sequence[Tensor]) -> None:
        self.make, self.givens = make, givens
        self.watched = [(w, _version(w)) for w in watched]
        self.autocast: tuple[str, torch.dtype | None] | None = None
        outer = _top(False) if _top is not None else None
        self._outer = outer is not None
        self._pack: Hook = outer[0] if outer else _kept
        self._unpack: Hook = outer[1] if outer else _given_back
        self.x = None if x is None else self._pack(x.detach())
        self.stored: dict[int, Any] = {}
        self._places: dict[int, int] = {}
        self._layouts: dict[int, _Layout] = {}
        self._alive: list[Tensor] = []  # until the pass is over, so that no address is given to another tensor
        self._made: dict[int, list[Any]] = {}
        self._wanted: dict[int, int] = {}
        self._back: dict[int | None, Tensor] = {}
        self._hooks: torch.autograd.graph.saved_tensors_hooks | None = None

    def __enter__(self) -> Recall:
        self._hooks = torch.autograd.graph.saved_tensors_hooks(self._on_save, self._on_read)
        self._hooks.__enter__()
        _RUNNING.passes.append(self)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        _RUNNING.passes.pop()
        hooks, self._hooks = self._hooks, None  # no cycle: what is kept goes as soon as nobody needs it
        if hooks is not None:
            hooks.__exit__(kind, error, trace)
        self._alive.clear()
        self._places.clear()

    def note(self, t: Tensor, slot: int) -> None:
        """A value that recipes speak of: one below the number of recipes is dropped, another is kept for them."""
        if slot >= len(self.givens):
            self.stored[slot] = self._pack(t.detach())
            return
        if self.autocast is None:
            self.autocast = t.device.type, autocast_dtype(t)
        place = _place(t)
        if place and not t.storage_offset() and t.untyped_storage().nbytes() == t.numel() * t.element_size():
            self._places[place] = slot
            self._layouts[slot] = _Layout(t.size(), t.stride(), 0, t.dtype)
            self._alive.append(t)

    def _on_save(self, t: Tensor) -> Any:
        slot = self._places.get(_place(t))
        if slot is None or t.dtype != self._layouts[slot].dtype:
            return self._pack(t)
        self._wanted[slot] = self._wanted.get(slot, 0) + 1
        return _Dropped(slot, _Layout(t.size(), t.stride(), int(t.storage_offset()), t.dtype))

    def _on_read(self, packed: Any) -> Tensor:
        if not isinstance(packed, _Dropped):
            return self._unpack(packed)  # type: ignore[no-any-return]
        there = packed.layout
        return self._again(packed.slot).as_strided(there.size, there.stride, there.offset)

    def _again(self, slot: int) -> Tensor:
        """The dropped value, laid out in memory as it was; kept while it is read again in the same backward."""
        known = self._made.get(slot)
        if known is None:
            known = self._made[slot] = [self._anew(slot), self._wanted[slot]]
        known[1] -= 1
        if known[1] <= 0:
            self._made.pop(slot, None)
        return known[0]  # type: ignore[no-any-return]

    def _anew(self, slot: int) -> Tensor:
        for w, version in self.watched:
            if _version(w) != version:
                raise RuntimeError("a tensor that backward needs was changed in place after the forward pass: one of "
                                   f"shape {tuple(w.shape)} is at version {_version(w)}, expected {version}")
        given = [self._read(g, self.stored[g]) for g in self.givens[slot]]
        x = None if self.x is None else self._read(None, self.x)
        assert self.autocast is not None
        device, dtype = self.autocast
        # without its cache, which would hand copies of parameters without history to the next forward pass
        with torch.no_grad(), torch.autocast(device, dtype=dtype, enabled=dtype is not None, cache_enabled=False):
            made = self.make(slot, given, x)
        was = self._layouts[slot]
        if (made.stride(), made.storage_offset(), made.dtype) == (was.stride, 0, was.dtype):
            return made
        return made.new_empty_strided(was.size, was.stride, dtype=was.dtype).copy_(made)  # x came back laid out anew

    def _read(self, key: int | None, packed: Any) -> Tensor:
        """What hooks outside have kept may be asked for only once; what we kept is looked at anew each time."""
        if not self._outer:
            return self._unpack(packed)  # type: ignore[no-any-return]
        if key not in self._back:
            self._back[key] = self._unpack(packed)
        return self._back[key]


@dataclass(frozen=True, slots=True)
class _Layout:
    """How a tensor lies in memory."""

    size: Sequence[int]
    stride: Sequence[int]
    offset: int
    dtype: torch.dtype


@dataclass(frozen=True, slots=True)
class _Dropped:
    """Where in a dropped value's memory a tensor lay."""

    slot: int
    layout: _Layout


def _place(t: Tensor) -> int:
    """The address of a tensor's memory; 0 where that does not say which numbers it shows."""
    if type(t) not in (Tensor, nn.Parameter) or t.layout != torch.strided or t.is_conj() or t.is_neg():
        return 0
    return t.untyped_storage().data_ptr()


def _version(t: Tensor) -> int:
    return -1 if t.is_inference() else t._version


def _kept(t: Tensor) -> tuple[Tensor, int]:
    """Without its history, which would keep itself alive by it."""
    return t.detach(), t._version


def _given_back(packed: tuple[Tensor, int]) -> Tensor:
    t, version = packed
    if t._version != version:
        raise RuntimeError("one of the variables needed for gradient computation has been modified by an inplace "
                           f"operation: a tensor of shape {tuple(t.shape)} is at version {t._version}, "
                           f"expected {version}")
    return t


def remember(t: Tensor, slot: int) -> Tensor:
    """t itself, noted by the pass that is running."""
    if _RUNNING.passes:
        _RUNNING.passes[-1].note(t, slot)
    return t
