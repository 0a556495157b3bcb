"""What a program asks of its sizes: that a number is whole, and that one is not above another.

    decide(condition, facts) -> True for all sizes, False for none, None where the sizes decide

Indices, slices, spaces and operators ask (``elaborate/asks.py`` says what); ``meanings.need`` collects it while a
program is typed, and ``facts/requirements.py`` settles at a layer's sizes what is open.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from math import prod
from typing import Any

import sympy as sp

from padp.compiler.ir.dims import lower, show, written_out
from padp.dsl.source import Span


@dataclass(frozen=True, slots=True)
class Condition:
    """``left ≤ right``; where there is no ``right``: ``left`` is a whole number.

    ``index``: ``left`` comes right after an index, and ``right`` is its axis. People are shown the index as they wrote
    it, ``left − 1 < right``.
    """

    left: Any
    right: Any | None
    span: Span
    index: bool = False

    def __str__(self) -> str:
        left, sign, right = self.sides
        return f"{show(left)} is whole" if right is None else f"{show(left)} {sign} {show(right)}"

    @property
    def sides(self) -> tuple[Any, str, Any | None]:
        """What is compared, as people are shown it: (left, sign, right) with the formulas written out."""
        left = written_out(sp.sympify(self.left))
        if self.right is None:
            return left, "", None
        right = written_out(sp.sympify(self.right))
        return (lower(left - 1), "<", right) if self.index else (left, "≤", right)


def decide(condition: Condition, facts: Iterable[Any] = ()) -> bool | None:
    """Whether a condition holds for all sizes (True), for none (False), or for some; each fact is known to be ≥ 0."""
    left, right = condition.left, condition.right
    if isinstance(left, int) and (right is None or isinstance(right, int)):
        return right is None or left <= right
    return _decided(sp.sympify(left), None if right is None else sp.sympify(right), tuple(facts))


@lru_cache(maxsize=4096, typed=True)
def _decided(left: Any, right: Any | None, facts: tuple[Any, ...]) -> bool | None:
    """The same of formulas. One program asks the same of its sizes at many places, and in each of its variants."""
    if left.has(*_NO_NUMBERS):
        return False
    if right is None:
        return _whole(left)
    if right.has(*_NO_NUMBERS):
        return False
    gap = right - left
    gap = sp.expand(gap) if _small(gap) else gap
    if _at_least_zero(gap) or _at_least_zero(right - _without_floors(left)):
        return True
    if gap.is_negative:
        return False
    for fact in facts:
        if _at_least_zero(gap - fact):
            return True
        if (gap + fact).is_negative:
            return False
    return None


_NO_NUMBERS = (sp.zoo, sp.nan, sp.oo, -sp.oo)


def _at_least_zero(gap: Any) -> bool:
    """gap ≥ 0 for all sizes; a min(…) is at most each of what stands in it."""
    if gap.is_nonnegative:
        return True
    for least in gap.atoms(sp.Min):
        if gap.coeff(least) == -1:
            return any(_at_least_zero(gap + least - other) for other in least.args)
    return False


def _without_floors(value: Any) -> Any:
    """``value`` with c · floor(e), c > 0, raised to c · e."""
    floors = [x for x in value.atoms(sp.floor) if value.coeff(x).is_positive]
    return value.subs({x: x.args[0] for x in floors})


def _whole(value: Any) -> bool | None:
    if value.is_number:
        return bool(value.is_Integer)
    if value.is_integer is not None:
        return bool(value.is_integer)
    return True if _whole_everywhere(value) else None


def _whole_everywhere(value: Any) -> bool:
    """Whether a polynomial such as k(k − 1)/2 is whole at all whole numbers: it is, if it is so at 0 … degree."""
    names = sorted(value.free_symbols, key=str)
    if not _small(value) or not value.is_polynomial(*names) or not all(x.is_integer for x in names):
        return False
    corners = [range(int(sp.degree(value, x)) + 1) for x in names]
    if prod(len(c) for c in corners) > _MOST_CORNERS:
        return False
    return all(value.subs(dict(zip(names, at, strict=True))).is_Integer for at in product(*corners))


def _small(value: Any) -> bool:
    """Whether a formula is multiplied out in no time."""
    powers = (x.exp for x in value.atoms(sp.Pow))
    return all(e.is_Integer and abs(e) <= _HIGHEST for e in powers) and sp.count_ops(value) <= _LONGEST


_MOST_CORNERS, _HIGHEST, _LONGEST = 64, 4, 60


def at_sizes(value: Any, sizes: Mapping[str, Any]) -> Any | None:
    """A number where all names in ``value`` are known, else None."""
    value = written_out(sp.sympify(value))
    if any(str(x) not in sizes for x in value.free_symbols):
        return None
    return lower(value.subs({x: sp.sympify(sizes[str(x)]) for x in value.free_symbols}))


def names_of(conditions: Sequence[Condition]) -> frozenset[str]:
    """The names of all sizes and hyperparameters that conditions speak of."""
    values = [written_out(sp.sympify(v)) for c in conditions for v in (c.left, c.right) if v is not None]
    return frozenset(str(x) for v in values for x in v.free_symbols)
