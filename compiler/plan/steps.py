"""Tensor operations: what a plan is made of.

    low = prim(args) with a type, leading axes ("T" for tokens, or a number of rows), a stage, whether a gradient passes

A low value's tensor is laid out (lead…, loops…, family…, item…). Equal operations are one value, so shared work is
paid once. Stages: ``attach`` (frozen values only), ``step`` (learned values, knobs), ``token`` (x). ``choice`` is no
operation: it holds several ways to the same tensor until ``plan/search.py`` settles on one. What an operation costs
stands in ``plan/costs.py``.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from padp.compiler.ir.budget import spend
from padp.compiler.ir.nodes import Type
from padp.dsl.source import Span

STAGES = ("attach", "step", "token")
Arg: TypeAlias = Any


@dataclass(frozen=True, eq=False, slots=True)
class Low:
    """One tensor operation. ``grad``: whether backward passes through it."""

    prim: str
    args: tuple[Arg, ...]
    type: Type
    lead: tuple[Any, ...]
    stage: int
    grad: bool
    span: Span
    number: int
    ins: tuple[Low, ...]

    @property
    def dims(self) -> tuple[Any, ...]:
        return self.lead + self.type.shape

    def inputs(self) -> tuple[Low, ...]:
        """The values among the arguments, in order."""
        return self.ins

    def __repr__(self) -> str:
        return f"<{self.prim} {self.dims} {STAGES[self.stage]}>"


LEAVES = ("param", "weight", "bias", "input", "knob", "buffer")


class Table:
    """Makes low values; the same operation on the same arguments is one value."""

    def __init__(self) -> None:
        self.span = Span(0, 0)
        self._table: dict[Any, Low] = {}

    def make(self, prim: str, args: tuple[Arg, ...], type_: Type, lead: tuple[Any, ...] = (), *,
             stage: int | None = None, grad: bool | None = None) -> Low:
        spend()
        key = (prim, tuple(id(a) if isinstance(a, Low) else tuple(id(x) if isinstance(x, Low) else x for x in a)
                           if isinstance(a, tuple) else (type(a), a) for a in args), type_, lead)
        found = self._table.get(key)
        if found is None:
            ins = tuple(x for a in args for x in (a if isinstance(a, tuple) else (a,)) if isinstance(x, Low))
            level = stage if stage is not None else max((x.stage for x in ins), default=0)
            passes = grad if grad is not None else prim != "detach" and any(x.grad for x in ins)
            found = self._table[key] = Low(prim, args, type_, lead, level, passes, self.span, len(self._table), ins)
        return found

    def choice(self, candidates: Sequence[Low], labels: Sequence[str], question: str) -> Low:
        """Several ways to one tensor."""
        first = candidates[0]
        return self.make("choice", (tuple(candidates), tuple(labels), question), first.type, first.lead)


VIEWS = ("mT", "permute_tail", "narrow", "unsqueeze", "reshape_tail", "flatten", "movedim", "select", "expand",
         "slice_step", "as_is", "as_rows", "from_rows")
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


REREAD = ("mT", "permute_tail", "unsqueeze", "reshape_tail", "flatten", "movedim", "expand", "as_is", "as_rows",
          "from_rows")
"""Views that hold no less than what they show: the value itself is stored, once, and read again this way."""


COPIES = ("reshape_tail", "flatten")
"""Views of a value that lies in order, copies of one that does not."""
STRIDED = ("mT", "permute_tail", "movedim", "select", "narrow", "slice_step", "expand")


def in_order(low: Low) -> bool:
    """Whether a value lies in memory as its axes say."""
    while low.prim in VIEWS and low.prim not in COPIES:
        if low.prim in STRIDED:
            return low.prim == "narrow" and -low.args[1] == len(low.dims) and in_order(low.args[0])
        low = low.args[0]
    return True


def copies(low: Low) -> bool:
    """Whether this reshaping has to copy."""
    return low.prim in COPIES and not in_order(low.args[0])


def source(low: Low) -> Low:
    """The value that is stored where ``low`` is wanted: what it shows, or itself where it lies in another order."""
    while low.prim in REREAD and not copies(low):
        low = low.args[0]
    return low


def kept_values(*roots: Low) -> list[Low]:
    """Attach-stage values that later stages read: these become buffers."""
    kept: dict[int, Low] = {}
    for low in order(*roots):
        if low.stage == 0:
            continue
        for x in low.inputs():
            if x.stage == 0 and not live(x) and not constant(source(x)):
                kept[id(source(x))] = source(x)
    for root in roots:
        if root.stage == 0 and not live(root) and not constant(source(root)):
            kept[id(source(root))] = source(root)
    return list(kept.values())


def constant(low: Low) -> bool:
    """Made of numbers alone and cheap to make again: zeros, ones, identities, unit vectors."""
    return low.prim in ("full", "eye", "unit_blocks")
