"""Tensor operations: what a plan is made of.

    low = prim(args) with a type, leading axes ("T" for tokens, or a number of rows), a stage and a cost

A low value's tensor is laid out (lead…, loops…, family…, item…). Equal operations are one value, so shared work is paid
once. Stages: ``attach`` (frozen values only), ``step`` (learned values, knobs), ``token`` (x). Costs are counted in
multiply-adds times two and in bytes moved; ``seconds`` weighs them for comparison only.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from math import prod
from typing import Any, TypeAlias

from padp.compiler.ir import Type
from padp.dsl.source import Span

STAGES = ("attach", "step", "token")
Arg: TypeAlias = Any

FLOPS_PER_SECOND = 5.0e10
BYTES_PER_SECOND = 1.0e10
SECONDS_PER_CALL = 4.0e-6
"""Rough machine constants; a plan depends on their ratios only."""


@dataclass(frozen=True, eq=False, slots=True)
class Low:
    """One tensor operation. ``live`` leaves are read anew each time (parameters, the base weight, the input)."""

    prim: str
    args: tuple[Arg, ...]
    type: Type
    lead: tuple[Any, ...]
    stage: int
    flops: float
    span: Span
    number: int

    @property
    def dims(self) -> tuple[Any, ...]:
        return self.lead + self.type.shape

    def inputs(self) -> Iterator[Low]:
        for a in self.args:
            if isinstance(a, Low):
                yield a
            elif isinstance(a, tuple):
                yield from (x for x in a if isinstance(x, Low))

    def __repr__(self) -> str:
        return f"<{self.prim} {self.dims} {STAGES[self.stage]}>"


LEAVES = ("param", "weight", "bias", "input", "knob", "buffer")


class Table:
    """Makes low values; the same operation on the same arguments is one value."""

    def __init__(self, tokens: int) -> None:
        self.tokens = tokens
        self.span = Span(0, 0)
        self._table: dict[Any, Low] = {}

    def size(self, dims: Iterable[Any]) -> float:
        """Number of elements, with this table's number of tokens for "T"."""
        return float(prod(self.tokens if d == "T" else int(d) for d in dims))

    def make(self, prim: str, args: tuple[Arg, ...], type_: Type, lead: tuple[Any, ...] = (), *,
             stage: int | None = None, flops: float | None = None) -> Low:
        key = (prim, tuple(id(a) if isinstance(a, Low) else tuple(id(x) if isinstance(x, Low) else x for x in a)
                           if isinstance(a, tuple) else (type(a), a) for a in args), type_, lead)
        found = self._table.get(key)
        if found is None:
            low = Low(prim, args, type_, lead, 0, 0.0, self.span, 0)
            level = stage if stage is not None else max((x.stage for x in low.inputs()), default=0)
            cost = flops if flops is not None else self.size(low.dims)
            found = self._table[key] = Low(prim, args, type_, lead, level, cost, self.span, len(self._table))
        return found

    def seconds(self, *roots: Low, train: bool = True, width: int = 4) -> float:
        """Estimated time of everything below the roots, shared parts once."""
        total = 0.0
        for low in order(*roots):
            if low.prim in LEAVES or low.stage == 0:
                continue
            if low.stage == 1 and not train:
                continue
            moved = self.size(low.dims) + sum(self.size(x.dims) for x in low.inputs())
            factor = 3.0 if train else 1.0
            total += SECONDS_PER_CALL if low.prim in VIEWS else \
                factor * (low.flops / FLOPS_PER_SECOND + width * moved / BYTES_PER_SECOND + SECONDS_PER_CALL)
        return total

    def stored(self, *roots: Low, width: int = 4) -> float:
        """Bytes that the attach stage would have to keep for these roots."""
        return sum(width * self.size(x.dims) for x in kept_values(*roots) if x.stage == 0 and x.prim not in LEAVES)


VIEWS = ("mT", "narrow", "unsqueeze", "reshape_tail", "flatten", "movedim", "select", "expand", "slice_step",
         "as_is", "as_rows", "from_rows")
"""Operations that move no data."""


def order(*roots: Low, given: Collection[int] = ()) -> list[Low]:
    """Everything below the roots, arguments first; what is ``given`` (by id) is not looked into."""
    seen: set[int] = set()
    out: list[Low] = []
    for root in roots:
        stack = [(root, False)]
        while stack:
            low, ready = stack.pop()
            if id(low) in seen:
                continue
            if ready:
                seen.add(id(low))
                out.append(low)
            else:
                stack.append((low, True))
                if id(low) not in given:
                    stack.extend((x, False) for x in reversed(list(low.inputs())))
    return out


MOVES = (*VIEWS, "k:repeat", "k:tile", "k:blocks", "k:assemble", "k:vec", "k:grouped")
"""Operations that only copy: cheaper to repeat than to keep what they make."""


def live(low: Low) -> bool:
    """A leaf that is read anew, or a rearrangement of one: never stored."""
    while low.prim in MOVES:
        low = next(iter(low.inputs()))
    return low.prim in ("param", "weight", "bias", "input", "knob")


def kept_values(*roots: Low) -> list[Low]:
    """Attach-stage values that later stages read: these become buffers."""
    kept: dict[int, Low] = {}
    for low in order(*roots):
        if low.stage == 0:
            continue
        for x in low.inputs():
            if x.stage == 0 and not live(x) and not constant(x):
                kept[id(x)] = x
    for root in roots:
        if root.stage == 0 and not live(root) and not constant(root):
            kept[id(root)] = root
    return list(kept.values())


def constant(low: Low) -> bool:
    """Made of numbers alone and cheap to make again: zeros, ones, identities."""
    return low.prim in ("full", "eye")
