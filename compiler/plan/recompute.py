"""What training makes again in backward rather than keep: large values that are cheap to make.

    recipes(roots, regime) -> what is made again, each from leaves and from values that are kept anyway

Autograd keeps what each operation's gradient reads. Where a kept value costs more to hold than to make again (a
rotation of x, a scaled basis, a permuted copy), the plan drops it. The price of a byte is the planner's
(``plan/search.py``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from padp.compiler.plan.costs import cost, saved
from padp.compiler.plan.search import NEVER, TRAFFIC_FOR_A_BYTE, Estimate, Regime, numbers, once, seconds_of
from padp.compiler.plan.steps import LEAVES, VIEWS, Low, constant, live, order

SMALLEST = 1 << 14
"""Bytes below which nothing is gained."""


PASS_SECONDS = 2.0e-4
"""What watching a pass costs, however little it drops."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """One value that backward makes again, from leaves and ``given`` values; what that takes and what it saves."""

    value: Low
    given: tuple[Low, ...]
    seconds: float
    bytes: float


def held(roots: Sequence[Low]) -> dict[int, Low]:
    """Whose memory autograd holds for backward, by id."""
    found: dict[int, Low] = {}
    for low in order(*roots):
        for x in saved(low):
            found[id(x)] = x
    return found


def recipes(roots: Sequence[Low], regime: Regime) -> tuple[Recipe, ...]:
    """The largest values first, each where making it again is cheaper than holding it."""
    kept, everything = held(roots), order(*roots)
    e = Estimate(regime, {})
    chosen: dict[int, Recipe] = {}
    pinned: set[int] = set()
    has_x = any(x.prim == "input" for x in kept.values())
    for value in sorted(kept.values(), key=lambda x: (-numbers(x, regime.tokens), x.number)):
        size = e.held_bytes(value)
        if value.prim in LEAVES or value.prim in NEVER or size < SMALLEST or id(value) in pinned:
            continue
        made = _closure(value, kept, chosen)
        if made is None:
            continue
        operations, given, reads_x = made
        seconds = sum(seconds_of(cost(x, regime.tokens), x, once(regime)) for x in operations if x.prim not in VIEWS)
        if reads_x and not has_x:
            x = next(low for low in everything if low.prim == "input" and low.type.item)
            seconds += e.held_bytes(x) * TRAFFIC_FOR_A_BYTE / regime.machine.bytes
        if seconds >= size * TRAFFIC_FOR_A_BYTE / regime.machine.bytes:
            continue
        chosen[id(value)] = Recipe(value, given, seconds, size)
        pinned |= {id(g) for g in given}
        has_x = has_x or reads_x
    price = TRAFFIC_FOR_A_BYTE / regime.machine.bytes
    gained = sum(r.bytes * price - r.seconds for r in chosen.values())
    return tuple(chosen.values()) if gained > PASS_SECONDS else ()


def _closure(value: Low, kept: Mapping[int, Low], dropped: Mapping[int, Recipe]
             ) -> tuple[list[Low], tuple[Low, ...], bool] | None:
    """(operations, given values, whether x is read) that make ``value``; None where it cannot be made again."""
    operations: list[Low] = []
    given: dict[int, Low] = {}
    reads_x = False
    seen: set[int] = set()
    stack = [value]
    while stack:
        low = stack.pop()
        if id(low) in seen:
            continue
        seen.add(id(low))
        if low is not value and id(low) in kept and id(low) not in dropped:
            given[id(low)] = low
        elif low.prim == "input":
            reads_x = True
        elif low.prim in LEAVES or (low.stage == 0 and not live(low)) or constant(low):
            continue
        elif low.prim in NEVER:
            return None
        else:
            operations.append(low)
            stack.extend(low.inputs())
    handed = sorted((g for g in given.values() if g.prim not in LEAVES and g.stage), key=lambda g: g.number)
    return operations, tuple(handed), reads_x or any(g.prim == "input" for g in given.values())
