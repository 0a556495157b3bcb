"""From what a layer and the user say (m, n, r, k …) to every dimension of a program.

    solve(method, known, hyper) -> {name: int}

Relations are solved one unknown at a time: ``where n = b·k`` with n = 768, k = 32 gives b = 24; with k = 33 it is an
error that names both sides.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sympy as sp

from padp.compiler.ir.budget import TooLarge
from padp.compiler.ir.dims import bounded_power, greatest, least, lower, moderate, show
from padp.compiler.names.terms import (
    Arith,
    Call,
    Method,
    Negate,
    Number,
    Power,
    SpaceTerm,
    Term,
    Test,
    Var,
)
from padp.dsl.diagnostics import Diagnostic, PadpError


def symbolic(t: Term, env: Mapping[str, Any]) -> Any:
    """A term over dimensions as a sympy expression; names that are not in ``env`` are symbols. E105 where it grows too
    large to be worked with."""
    return moderate(_symbolic(t, env), t.span)


def _symbolic(t: Term, env: Mapping[str, Any]) -> Any:
    match t:
        case Number(value):
            return sp.sympify(value) if isinstance(value, int) else sp.Float(value)
        case Var("π"):
            return sp.pi
        case Var(name):
            return sp.sympify(env[name]) if name in env else sp.Symbol(name)
        case Negate(operand):
            return -symbolic(operand, env)
        case Arith(op, left, right):
            a, c = symbolic(left, env), symbolic(right, env)
            match op:
                case "+":
                    return a + c
                case "-":
                    return a - c
                case "/":
                    return a / c
                case "//":
                    return sp.floor(a / c)
                case _:
                    return a * c
        case Power(base, exponent):
            made = bounded_power(symbolic(base, env), symbolic(exponent, env))
            return sp.Symbol(f"?{t.span.start}") if made is None else sp.sympify(made)
        case Call(function, args):
            functions: dict[str, Any] = {"min": least, "max": greatest, "ceil": sp.ceiling, "floor": sp.floor,
                                         "log2": lambda x: sp.log(x, 2), "log": sp.log, "sqrt": sp.sqrt}
            if function in functions:
                return functions[function](*(symbolic(a, env) for a in args))
            if isinstance(env, _Written):
                return sp.Symbol(f"{function}({', '.join(show(symbolic(a, env)) for a in args)})")
        case _:
            pass
    return sp.Symbol("…" if isinstance(env, _Written) else f"?{t.span.start}")


def calculated(size: Term, env: Mapping[str, Any]) -> Any | None:
    """The value of a size, or None where it holds something that is no number."""
    try:
        value = sp.sympify(symbolic(size, env))
    except (TypeError, ValueError, ZeroDivisionError, OverflowError, TooLarge):
        return None
    if any(str(x).startswith("?") for x in value.free_symbols) or value.has(sp.zoo, sp.nan):
        return None
    return value


class _Written(dict[str, Any]):
    """An environment in which what is no number of sizes, ``exp(r)``, is a symbol that is called as it is written."""


def text(t: Term | None) -> str:
    """A dimension term as it is written, for messages."""
    return "" if t is None else show(symbolic(t, _Written()))


def _space_names(method: Method) -> set[str]:
    found: set[str] = set()

    def visit(space: SpaceTerm) -> None:
        for d in (*space.dims, *space.family):
            found.update(str(s) for s in symbolic(d, {}).free_symbols if not str(s).startswith("?"))

    for x in method.bound:
        visit(x.space)
    for p in method.parameters:
        visit(p.space)
    return found


def solve(method: Method, known: Mapping[str, int], hyper: Mapping[str, Any], where: str = "") -> dict[str, int]:
    """Every dimension as a number. ``where`` names the site in errors.

    Raises PadpError E501 when a relation does not hold or a size is not a whole positive number, E309 when a dimension
    cannot be found.
    """
    env: dict[str, Any] = {k: v for k, v in hyper.items() if isinstance(v, (int, float)) and not isinstance(v, bool)}
    env.update(known)
    equations = [t for t in method.relations if t.op == "="]
    problems: list[Diagnostic] = []
    changed = True
    while changed:
        changed = False
        for test in equations:
            assert test.right is not None
            left, right = symbolic(test.left, env), symbolic(test.right, env)
            free = sorted(left.free_symbols | right.free_symbols, key=str)
            if len(free) != 1:
                continue
            name = str(free[0])
            value = right if left == free[0] else left if right == free[0] else _isolate(left - right, free[0])
            if value is None:
                continue
            if not (value.is_integer and value.is_positive):
                problems.append(_broken(method, test, env, where, f"{name} would be {show(value)}"))
                value = sp.Integer(1)
                equations = [e for e in equations if e is not test]
            env[name] = lower(value)
            changed = True
            break
    for test in method.relations:
        if not problems:
            found = _check(method, test, env, where)
            if found is not None:
                problems.append(found)
    missing = sorted(n for n in _space_names(method) if n not in env)
    if missing and not problems:
        problems.append(Diagnostic(
            "E309", f"{', '.join(missing)}: no relation determines {'it' if len(missing) == 1 else 'them'}{_at(where)}",
            method.span, method.source, suggestion=f"a value in the header, {method.name}({missing[0]} = 8), or a "
            f"relation, as in  where n = {missing[0]}·k"))
    if problems:
        raise PadpError(problems)
    named = {h.name for h in method.hyper}
    return {k: v for k, v in env.items() if k not in named and isinstance(v, int)}


def _isolate(equation: Any, unknown: Any) -> Any | None:
    solutions = [s for s in sp.solve(equation, unknown) if s.is_real]
    positive = [s for s in solutions if s.is_positive]
    return (positive or solutions or [None])[0]


def _at(where: str) -> str:
    return f" at {where}" if where else ""


def _check(method: Method, test: Test, env: Mapping[str, Any], where: str) -> Diagnostic | None:
    return _broken(method, test, env, where, None) if holds(test, env) is False else None


def holds(test: Test, env: Mapping[str, Any]) -> bool | None:
    """Whether a relation is kept; None where a name in it is not known."""
    left = symbolic(test.left, env)
    right = symbolic(test.right, env) if test.right is not None else None
    if left.free_symbols or (right is not None and right.free_symbols):
        return None
    return bool({"=": lambda: sp.Eq(left, right), "≠": lambda: sp.Ne(left, right), "<": lambda: left < right,
                 "≤": lambda: left <= right, ">": lambda: left > right, "≥": lambda: left >= right,
                 "even": lambda: sp.Eq(left % 2, 0), "odd": lambda: sp.Eq(left % 2, 1)}[test.op]())


def _broken(method: Method, test: Test, env: Mapping[str, Any], where: str, extra: str | None) -> Diagnostic:
    symbols = symbolic(test.left, {}).free_symbols | (symbolic(test.right, {}).free_symbols if test.right else set())
    values = ", ".join(f"{s} = {env[str(s)]}" for s in sorted(symbols, key=str) if str(s) in env)
    relation = f"{text(test.left)} {test.op} {text(test.right)}".strip()
    if extra is None and test.right is not None:
        extra = both((text(test.left), symbolic(test.left, env)), (text(test.right), symbolic(test.right, env)))
    said = f"{relation} does not hold{_at(where)}" + (f": {extra}" if extra else "")
    return Diagnostic("E501", said, test.span, method.source, notes=(f"here {values}",) if values else (),
                      suggestion=_remedy(test, env))


def both(*sides: tuple[str, Any]) -> str:
    """What the two sides of a relation come to: ``r is 8, min(m, n) is 5``."""
    return ", ".join(f"{written} is {show(value)}" for written, value in sides if written != show(value))


def _remedy(test: Test, env: Mapping[str, Any]) -> str | None:
    """For n = b·k: the divisors of n nearest to k."""
    if test.op == "even" and isinstance(test.left, Var):
        return f"an even {test.left.name}"
    if test.op != "=" or not isinstance(test.left, Var) or not isinstance(env.get(test.left.name), int):
        return None
    total = env[test.left.name]
    right = symbolic(test.right, {}) if test.right is not None else None
    if right is None or not right.is_Mul:
        return None
    hyper = [str(s) for s in right.free_symbols if isinstance(env.get(str(s)), int)]
    if len(hyper) != 1 or total > 10_000_000:
        return None
    k = env[hyper[0]]
    near = sorted((d for d in range(1, total + 1) if total % d == 0), key=lambda d: abs(d - k))[:3] \
        if total <= 200_000 else []
    return f"{hyper[0]} = {' or '.join(map(str, sorted(near)))}, which divides {total}" if near else None
