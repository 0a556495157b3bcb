"""Whether a kept value is still the value of what it was computed from.

    stamp(learned, given, like) = (optimiser steps so far, autocast, a witness of every tensor)
    witness(tensor)             = (memory, address, version, copies of what lies there)

While a stamp holds, nothing was written to, replaced or moved, and no optimiser made a step. None of these tells it
alone. Fused optimisers and writes through ``.data`` leave versions as they are, and a sharded parameter is filled anew
behind its version. A tensor that is gone leaves its address to the next one, so the memory is referred to, weakly.
Averaged weights are swapped in by ``p.data.copy_(average)``, which leaves memory, address and version; only the numbers
tell. So

- learned tensors on a CPU are compared with a copy, byte by byte: all of them, at every call. One comparison of 16,000
  float32 numbers takes 3 µs, of 65,000 less than 20 µs, where ``torch.equal`` takes 30 and 120; a token through the
  layer whose adapter they are takes 100 times as long, for it reads W;
- learned tensors elsewhere cannot be compared without waiting for the device, so nothing that was computed from them is
  kept from call to call, but inside ``padp.decoding`` (``trusted``), which starts by computing it anew;
- W and frozen tensors may be as large as W: two small pieces of them are compared. That tells a tensor that was written
  as a whole; ``padp.refresh`` is for what changes single entries through ``.data``, and for other devices.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.optim.optimizer import register_optimizer_step_post_hook

from padp.compiler.kernels.torch_state import autocast_dtype

SMALL = 4096
"""Bytes up to which a given tensor is compared as a whole."""
PIECE = 64
"""Bytes of each piece of a larger one."""


class _Steps:
    """How many steps all optimisers of this process have made."""

    count = 0


def _count(*_: object) -> None:
    _Steps.count += 1


register_optimizer_step_post_hook(_count)


def _comparison() -> Callable[[int, int, int], int] | None:
    """C's ``memcmp``, which holds the interpreter's lock as long as it runs; None where it cannot be had."""
    try:
        found = cast(Any, ctypes.PyDLL(None)).memcmp
    except (OSError, TypeError, AttributeError):
        return None
    found.argtypes, found.restype = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t), ctypes.c_int
    return cast("Callable[[int, int, int], int]", found)


_DIFFER = _comparison()
_EXPIRED: Callable[[Any], bool] = cast(Any, torch.UntypedStorage)._expired
"""What ``StorageWeakRef.expired`` asks."""

SHORT = 8192
"""Bytes up to which reading them as an object takes less time than a call into C."""

Copies: TypeAlias = "tuple[tuple[Any, Any, int], ...]"
"""(what lies there as an object, its bytes, 0) of each short piece that is compared; (address, address of a copy,
bytes) of a longer one."""


@dataclass(frozen=True, slots=True)
class Seen:
    """Witnesses of some tensors; ``alive`` are the longer copies that they compare with."""

    witnesses: tuple[tuple[StorageWeakRef, int, int, Copies], ...]
    alive: tuple[Tensor, ...]

    def holds(self, tensors: Sequence[Tensor]) -> bool:
        """Whether all of it is as it was. Memory that is still alive has its address for itself."""
        witnesses = self.witnesses
        if len(witnesses) != len(tensors):
            return False
        at = 0
        try:
            for t in tensors:
                memory, address, version, copies = witnesses[at]
                at += 1
                if t.data_ptr() != address or _EXPIRED(memory.cdata):
                    return False
                if version < 0:
                    if not t.is_inference():
                        return False
                elif t._version != version:  # an error for an inference tensor  # pyright: ignore
                    return False
                for here, copy, size in copies:
                    if _DIFFER(here, copy, size) if size else here.raw != copy:  # type: ignore[misc]  # pyright: ignore
                        return False
        except RuntimeError:
            return False
        return True


@dataclass(frozen=True, slots=True)
class Stamp:
    """What was there when values were kept."""

    steps: int
    autocast: torch.dtype | None
    seen: Seen

    def holds(self, tensors: Sequence[Tensor], like: Tensor) -> bool:
        """Whether all of it is as it was."""
        return self.steps == _Steps.count and autocast_dtype(like) == self.autocast and self.seen.holds(tensors)


def stamp(learned: Sequence[Tensor], given: Sequence[Tensor], like: Tensor, *, trusted: bool = False) -> Stamp | None:
    """What to ask later whether it still holds, with ``(*learned, *given)``; None when that cannot be told."""
    there = seen(learned, given, trusted=trusted)
    return None if there is None else Stamp(_Steps.count, autocast_dtype(like), there)


def steps_made() -> int:
    """How many steps all optimisers of this process have made."""
    return _Steps.count


def seen(learned: Sequence[Tensor], given: Sequence[Tensor], *, trusted: bool = False) -> Seen | None:
    """Witnesses of these tensors.

    None when they cannot tell: tensors of ``torch.func`` have no address, and learned ones that cannot be compared
    are not believed, unless ``trusted``.
    """
    witnesses: list[tuple[StorageWeakRef, int, int, Copies]] = []
    alive: list[Tensor] = []
    try:
        for k, t in enumerate((*learned, *given)):
            whole = k < len(learned)
            comparable = _comparable(t)
            if whole and not comparable and not trusted:
                return None
            copies: list[tuple[Any, Any, int]] = []
            for piece in _pieces(t, whole) if comparable else ():
                here, size = piece.data_ptr(), piece.numel() * piece.element_size()
                if size <= SHORT:
                    memory = (ctypes.c_char * size).from_address(here)  # not the memory's owner
                    copies.append((memory, memory.raw, 0))
                else:
                    alive.append(piece.clone())
                    copies.append((here, alive[-1].data_ptr(), size))
            witnesses.append((StorageWeakRef(t.untyped_storage()), t.data_ptr(), _version(t), tuple(copies)))
    except RuntimeError:
        return None
    return Seen(tuple(witnesses), tuple(alive))


def _version(t: Tensor) -> int:
    return -1 if t.is_inference() else t._version  # pyright: ignore[reportPrivateUsage]


def _comparable(t: Tensor) -> bool:
    """Whether a tensor is numbers in ordinary memory, without gaps."""
    return _DIFFER is not None and type(t) in (Tensor, nn.Parameter) and t.is_cpu and t.layout is torch.strided \
        and (t.is_contiguous() or (t.dim() == 2 and t.mT.is_contiguous()))


def _pieces(t: Tensor, whole: bool) -> list[Tensor]:
    """Parts of a tensor's memory: all of it, or two pieces from its inside."""
    flat = t.detach().as_strided((t.numel(),), (1,))
    size = t.element_size()
    if whole or t.numel() * size <= SMALL:
        return [flat] if t.numel() else []
    width = PIECE // size
    return [flat[at:at + width] for at in (t.numel() // 3, t.numel() * 2 // 3)]
