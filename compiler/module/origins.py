"""Whether what was computed when an adapter was attached is still what W and its frozen tensors give.

    Origin            a print of each of these tensors, and a stamp that tells cheaply that none of them was touched
    Print             (precision, a sum over all bytes, some of the numbers)

A stamp that does not hold is no proof of other numbers: tensors are moved, reloaded and gathered again. Only the prints
are, and what is computed anew from equal numbers could come out with other signs than a checkpoint's. A change of
precision is no other weight: kept values are cast along with it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import torch
from torch import Tensor

from padp.compiler.graph.stages import Leaf, leaf_key
from padp.compiler.module.freshness import Seen, seen, steps_made
from padp.compiler.plan.steps import Low, order

if TYPE_CHECKING:
    pass

CHUNK = 509
"""How many eight-byte words are summed as they are; their sums are weighted by their places."""
SAMPLES = 256
ROUNDING = 2.0 ** -7
"""How far a number may be off after it was stored in the coarsest precision."""

Given: TypeAlias = "Mapping[Leaf, Tensor]"


def leaves_of(low: Low) -> set[Leaf]:
    """The weights, biases and declared tensors below a value."""
    return {leaf_key(x) for x in order(low) if x.prim in ("weight", "bias", "param")}


@dataclass(frozen=True, slots=True)
class Print:
    """What tells the numbers of a tensor from others, wherever they lie."""

    dtype: torch.dtype
    total: int
    some: Tensor

    def of(self, t: Tensor, rounded: bool) -> bool:
        """Whether these are the numbers of ``t``, which may have been rounded since."""
        same = t.dtype == self.dtype and total(t) == self.total
        if same or (t.dtype == self.dtype and not rounded):
            return same
        there = some(t)
        return there.shape == self.some.shape and \
            bool(((there - self.some).abs() <= ROUNDING * self.some.abs() + 1e-7).all())


def print_of(t: Tensor) -> Print:
    return Print(t.dtype, total(t), some(t))


@torch.no_grad()
def total(t: Tensor) -> int:
    """A sum over all bytes in their order, exact: the same on every device."""
    flat = t.detach().contiguous().reshape(-1).view(torch.uint8)
    words = flat[:len(flat) // 8 * 8].clone() if flat.storage_offset() % 8 else flat[:len(flat) // 8 * 8]
    whole = words.view(torch.int64)
    cut = len(whole) // CHUNK * CHUNK
    parts = [whole[:cut].reshape(-1, CHUNK).sum(1), whole[cut:], flat[len(flat) // 8 * 8:].to(torch.int64)]
    sums = torch.cat(parts)
    return int((sums * (2 * torch.arange(len(sums), device=sums.device) + 1)).sum())


@torch.no_grad()
def some(t: Tensor) -> Tensor:
    """Numbers from all over a tensor."""
    flat = t.detach().reshape(-1)
    picked = flat[::max(1, len(flat) // SAMPLES)].cpu()
    return torch.view_as_real(picked).double() if picked.is_complex() else picked.double()


@dataclass(frozen=True, slots=True)
class Origin:
    """What the kept values of a module belong to. Never changed, only replaced."""

    prints: Mapping[Leaf, Print]
    stamp: Seen | None = None
    steps: int | None = None
    rounded: bool = False

    def untouched(self, tensors: Sequence[Tensor]) -> bool:
        """Whether nobody can have written anything since."""
        return self.stamp is not None and (self.steps is None or self.steps == steps_made()) \
            and self.stamp.holds(tensors)

    def changed(self, given: Given) -> set[Leaf]:
        """The tensors that hold other numbers now."""
        return {leaf for leaf, t in given.items()
                if leaf not in self.prints or not self.prints[leaf].of(t, self.rounded)}

    def with_these(self, given: Given) -> Origin:
        """The same, but of these tensors the numbers of now."""
        made = {leaf: print_of(t) for leaf, t in given.items() if not t.is_meta}
        return Origin({**self.prints, **made}, rounded=self.rounded)

    def seen_again(self, given: Given) -> Origin:
        """The same, and the tensors of now, which hold the same numbers up to rounding, are what it belongs to."""
        prints = {leaf: print_of(t) if self.rounded or t.dtype != self.prints[leaf].dtype else self.prints[leaf]
                  for leaf, t in given.items()}
        return Origin(prints, *_stamped(given.values()))

    def alone(self) -> Origin:
        """The same for a copy, whose tensors lie elsewhere."""
        return Origin(self.prints, rounded=self.rounded)

    def cast(self) -> Origin:
        """The same, after everything was stored in another precision."""
        return Origin(self.prints, rounded=True)


NOWHERE = Origin({})
"""Of what was computed from tensors without values."""


def origin(given: Given) -> Origin:
    """What belongs to these tensors."""
    if any(t.is_meta for t in given.values()):
        return NOWHERE
    return Origin({leaf: print_of(t) for leaf, t in given.items()}, *_stamped(given.values()))


def _stamped(tensors: Collection[Tensor]) -> tuple[Seen | None, int | None]:
    """Optimisers are counted where one may write to these tensors: fused ones leave no other trace."""
    return seen((), tuple(tensors), trusted=True), steps_made() if any(t.requires_grad for t in tensors) else None
