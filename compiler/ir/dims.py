"""Dimensions: whole numbers, known or symbolic.

A dimension is an ``int`` (sizes are known) or a sympy expression (they are not yet). ``same`` is the only question that
the type rules ask; everything else is sympy's arithmetic.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from math import comb, prod
from typing import Any, TypeAlias

import sympy as sp

from padp.compiler.ir.budget import TooLarge, spend
from padp.dsl.diagnostics import Diagnostic
from padp.dsl.limits import MAX_BITS, MAX_EXPONENT, MAX_FORMULA, MAX_FORMULA_PARTS, MAX_ROUNDINGS
from padp.dsl.source import Span

Dim: TypeAlias = int | sp.Expr
Value: TypeAlias = int | float | sp.Expr


def symbol(name: str, *, even: bool | None = None) -> sp.Symbol:
    """The dimension called ``name``: a positive whole number (``even`` when a relation says so)."""
    assumptions: dict[str, bool] = {"integer": True, "positive": True}
    if even:
        assumptions["even"] = True
    return sp.Symbol(name, **assumptions)


def lower(value: Any) -> Any:
    """Plain ints and floats where the value is a number; sympy otherwise."""
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, (int, float)):
        return value
    if isinstance(value, sp.Integer):
        return int(value)
    if isinstance(value, (sp.Float,)):
        return float(value)
    if isinstance(value, sp.Expr) and value.args:
        spend(20)
        moderate(value)
    return value


def moderate(value: Any, span: Span | None = None) -> Any:
    """The formula; E105 where it has too many terms, parts or roundings to be worked with."""
    if isinstance(value, sp.Expr) and value.args:
        found = _extent(value)
        if found is None:
            raise TooLarge(Diagnostic(
                "E105", f"too large: this size or count has more than {MAX_FORMULA} terms, {MAX_FORMULA_PARTS} parts, "
                f"or {MAX_ROUNDINGS} of min, max, floor and ceil, when it is written out", span,
                suggestion="a hyperparameter, or a size of the layer, for a part of it"))
        spend(2 * found[1] + 80 * found[2])
    return value


def bounded_power(base: Any, exponent: Any) -> Any | None:
    """baseᵉ, or None where it passes the limits."""
    base, exponent = sp.sympify(base), sp.sympify(exponent)
    if exponent.is_number and not abs(exponent) <= MAX_EXPONENT:
        return None
    if base.is_Integer and exponent.is_Integer and abs(int(exponent)) * int(base).bit_length() > MAX_BITS:
        return None
    result = base**exponent
    return lower(result) if tractable(result) else None


def factored(value: Any) -> Any:
    """A formula as a product, where finding the factors takes no time."""
    whole = sp.sympify(value)
    return _factored(whole) if whole.args else whole


@lru_cache(maxsize=4096)
def _factored(whole: sp.Basic) -> sp.Basic:
    small = all(abs(int(x)).bit_length() <= 2 * MAX_BITS for x in whole.atoms(sp.Integer))
    if not small or not tractable(whole) or sp.count_ops(whole) > _LONG:
        return whole
    return sp.factor(whole)


_LONG = 400
"""Operations in a formula that is still factored."""


def tractable(value: Any) -> bool:
    """Whether a formula can be multiplied out: no power in it is out of bounds, nor are its terms and parts."""
    return not isinstance(value, sp.Expr) or not value.args or _extent(value) is not None


@lru_cache(maxsize=20_000)
def _extent(value: sp.Basic) -> tuple[int, int, int] | None:
    """Terms when it is multiplied out (at most so many), parts, and roundings, with all names written out; None past a
    limit."""
    if not value.args:
        return 1, 1, 0
    if isinstance(value, sp.Pow) and value.exp.is_number and not bool(sp.Abs(value.exp) <= MAX_EXPONENT):
        return None
    below: list[int] = []
    terms, parts, roundings = 1, 1, int(isinstance(value, _ROUNDINGS))
    for a in value.args:
        found = _extent(a)
        if found is None:
            return None
        below.append(found[0])
        parts, roundings = parts + found[1], roundings + found[2]
    if isinstance(value, sp.Add):
        terms = sum(below)
    elif isinstance(value, sp.Mul):
        terms = prod(below)
    elif isinstance(value, sp.Pow) and isinstance(value.exp, sp.Integer):
        power = abs(int(value.exp))
        terms = comb(below[0] + power - 1, power) if below[0] > 1 else 1
    return None if terms > MAX_FORMULA or parts > MAX_FORMULA_PARTS or roundings > MAX_ROUNDINGS else \
        (terms, parts, roundings)


def _parts(value: Any) -> int:
    found = _extent(value)
    return MAX_FORMULA_PARTS if found is None else found[1]


_ROUNDINGS = (sp.Min, sp.Max, sp.floor, sp.ceiling, sp.Mod, sp.Abs)


@lru_cache(maxsize=50_000)
def _same_symbolic(a: Any, b: Any) -> bool:
    if not (tractable(a) and tractable(b)):
        return bool(a == b)
    difference = sp.expand(a - b)
    if difference == 0:
        return True
    if _plain_polynomial(difference):  # multiplied out, and something is left
        return False
    if difference.has(sp.floor, sp.ceiling):  # a rounding that is exact: the numbers are compared again at attach
        exact = difference.replace(sp.floor, lambda x: x).replace(sp.ceiling, lambda x: x)
        if sp.expand(exact) == 0:
            return True
    if _differs_somewhere(difference):
        return False
    if sp.expand(sp.numer(sp.together(difference))) == 0:
        return True
    return sp.count_ops(difference) <= _SHORT and bool(sp.simplify(difference) == 0)


def _plain_polynomial(value: Any) -> bool:
    """Whether a formula is made of names and fractions by +, · and whole powers: multiplied out it is 0 only as 0."""
    return all(isinstance(x, (sp.Add, sp.Mul, sp.Symbol, sp.Rational))
               or (isinstance(x, sp.Pow) and isinstance(x.exp, sp.Integer) and int(x.exp) > 0)
               for x in sp.preorder_traversal(value))


_SHORT = 60
"""Operations in a formula that ``simplify`` still looks at."""


def _differs_somewhere(difference: Any) -> bool:
    """Whether a difference is not 0 at one of two sets of sizes (rising and falling; multiples of 12, so halves and
    thirds are whole): a proof that costs little beside ``simplify``, which loads much of sympy."""
    names = sorted(difference.free_symbols, key=str)
    for order in (names, names[::-1]):
        at = difference.xreplace({x: sp.Integer(12 * (2 * k * k + 3)) for k, x in enumerate(order)})
        if at.is_number and at.is_zero is False:
            return True
    return False


def same(a: Any, b: Any) -> bool:
    """Whether two dimensions are equal for all sizes (for which the roundings in them are exact)."""
    if isinstance(a, int) and isinstance(b, int):
        return a == b
    if a == b:
        return True
    a, b = sp.sympify(a), sp.sympify(b)
    spend(100 + 10 * (_parts(a) + _parts(b)))
    return _same_symbolic(a, b)


def bare(value: Any) -> Any:
    """A formula over symbols without assumptions that could keep like terms apart."""
    value = sp.sympify(value)
    return value.subs({x: sp.Symbol(str(x), integer=True, positive=True) for x in value.free_symbols})


@lru_cache(maxsize=4096, typed=True)
def least(*values: Any) -> Any:
    """min(values), which sympy takes long to compare and which is asked for again and again."""
    return sp.Min(*values)


@lru_cache(maxsize=4096, typed=True)
def greatest(*values: Any) -> Any:
    """max(values)."""
    return sp.Max(*values)


def known(values: Iterable[Any]) -> bool:
    """Whether every dimension is a number."""
    return all(isinstance(v, int) for v in values)


def product(values: Iterable[Any]) -> Any:
    """∏ values."""
    result: Any = 1
    for value in values:
        result = result * value
    return lower(result)


def written_out(value: Any) -> Any:
    """Symbols called ``(m − n)``, which stand for a difference that is not negative, as that difference."""
    if not isinstance(value, sp.Expr):
        return value
    special = [x for x in value.free_symbols if isinstance(x, sp.Symbol) and x.name.startswith("(")]
    if not special:
        return value
    names = {x: [sp.Symbol(n, integer=True, positive=True) for n in x.name[1:-1].split(" − ")] for x in special}
    plain: list[tuple[sp.Basic | complex, sp.Basic | complex]] = [
        (x, sp.Symbol(str(x), integer=True, positive=True)) for x in value.free_symbols if x not in names]
    return sp.expand(value.subs([(x, a - c) for x, (a, c) in names.items()]).subs(plain))


_SUPERSCRIPT = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


def show(value: Any, *, factor: bool = False) -> str:
    """A dimension as people write it: ``n(k − 1)/2``, ``r(m + n)``; as a ``factor`` a sum has brackets around it."""
    if not isinstance(value, sp.Expr):
        return str(value).replace("-", "−")
    return _show_formula(value, factor)


@lru_cache(maxsize=4096, typed=True)
def _show_formula(value: Any, factor: bool) -> str:
    value = written_out(value)
    return _show(factored(value) if value.is_polynomial(*value.free_symbols) else value, 1 if factor else 0)


def show_axes(dims: Sequence[Any]) -> str:
    """Dimensions with × between them: ``(r + 1)×n``."""
    return "×".join(show(d, factor=len(dims) > 1) for d in dims)


def _close(left: str, right: str) -> bool:
    """Whether two factors are read as two without a dot: 2n, r(m + n), (m + n)(m − n); not n·r."""
    if right[0] == "(":
        return not left or left[-1] in ")²³" or left[-1].isdecimal() or len(left) == 1 or left[-2] in "·0123456789"
    return not left or left[-1].isdecimal()


def _show(e: sp.Basic, level: int) -> str:
    """``level`` 0: a sum may stand bare; 1: a factor; 2: the base of a power."""
    if isinstance(e, sp.Add):
        terms = sorted(e.args, key=lambda t: (-(sp.Poly(t, *t.free_symbols).total_degree()
                                                if t.free_symbols and t.is_polynomial(*t.free_symbols) else 0),
                                              t.could_extract_minus_sign(), str(t)))
        text = ""
        for term in terms:
            negative = term.could_extract_minus_sign()
            body = _show(-term if negative else term, 1)
            text += (f" − {body}" if negative else f" + {body}") if text else (f"−{body}" if negative else body)
        return f"({text})" if level else text
    if isinstance(e, sp.Mul):
        if e.could_extract_minus_sign():
            return "−" + _show(-e, 1)
        number, rest = e.as_coeff_Mul()
        top, bottom = sp.fraction(number)
        above = [f for f in sp.Mul.make_args(rest) if not (isinstance(f, sp.Pow) and f.exp.is_negative)]
        below = [1 / f for f in sp.Mul.make_args(rest) if isinstance(f, sp.Pow) and f.exp.is_negative]
        above.sort(key=lambda f: (isinstance(f, sp.Add), str(f)))
        pieces = [_show(f, 1) for f in above if f != 1]
        head = "" if top == 1 and pieces else str(top)
        text = head
        for piece in pieces:
            text += ("" if _close(text, piece) else "·") + piece
        under = ([str(bottom)] if bottom != 1 else []) + [_show(f, 1) for f in below]
        if not under:
            return text
        return f"{text}/{under[0]}" if len(under) == 1 else f"{text}/({'·'.join(under)})"
    if isinstance(e, sp.Pow) and e.exp == sp.Rational(1, 2):
        return f"√{_show(e.base, 2) if isinstance(e.base, (sp.Symbol, sp.Add)) else f'({_show(e.base, 0)})'}"
    if isinstance(e, sp.Pow):
        base = _show(e.base, 2)
        if isinstance(e.base, (sp.Mul, sp.Pow)):
            base = f"({base})"
        if isinstance(e.exp, sp.Integer) and int(e.exp) > 0:
            return base + str(int(e.exp)).translate(_SUPERSCRIPT)
        exponent = _show(e.exp, 0)
        return f"{base}^{exponent}" if isinstance(e.exp, sp.Symbol) else f"{base}^({exponent})"
    if isinstance(e, sp.floor):
        return f"floor({_show(e.args[0], 0)})"
    if isinstance(e, sp.ceiling):
        return f"ceil({_show(e.args[0], 0)})"
    if isinstance(e, (sp.Min, sp.Max)):
        return ("min(" if isinstance(e, sp.Min) else "max(") + ", ".join(sorted(_show(a, 0) for a in e.args)) + ")"
    return str(e).replace("-", "−")
