"""Ways to write a value that serve scalars, vectors and matrices alike, and where each may stand."""

from __future__ import annotations

from collections.abc import Callable

from tests.support.random_programs import Want, Writer

PART = {"n": "k", "m": "p"}
"""The dimension of which a dimension is b times."""

POINTS = ("tanh", "sigmoid", "sin", "cos", "arctan", "relu", "gelu", "silu", "softplus")


def single(w: Writer, want: Want) -> bool:
    return want.single


def square(w: Writer, want: Want) -> bool:
    return want.square


def square_single(w: Writer, want: Want) -> bool:
    return want.square and want.single


def may_sum(w: Writer, want: Want) -> bool:
    """Whether a sum with an index of its own may stand here."""
    return want.single and len(w.loops) < 2


def may_state(w: Writer, want: Want) -> bool:
    """Whether statements may be written before this one."""
    return want.single and w.statements and not w.loops


def large(w: Writer, want: Want) -> bool:
    return want.single and all(d in PART for d in want.item)


def small(w: Writer, want: Want) -> bool:
    return want.single and want.item[0] in ("k", "p")


def whole(small: str) -> str:
    return {"k": "n", "p": "m"}[small]


def binary(*signs: str) -> Callable[[Writer, Want], str]:
    return lambda w, want: f" {w.pick(signs)} ".join(w.sides(want, want)).join("()")


def function(*names: str) -> Callable[[Writer, Want], str]:
    return lambda w, want: f"{w.pick(names)}({w(want)})"


def detached(w: Writer, want: Want) -> str:
    return f"detach({w(want)})"


def negated(w: Writer, want: Want) -> str:
    return f"(-{w(want)})"


def clamped(w: Writer, want: Want) -> str:
    return f"clamp({w(want)}, -0.7, 0.8)"


def leaf(w: Writer, want: Want) -> str:
    return w.leaf(want)


def chosen(w: Writer, want: Want) -> str:
    return f"({w(want)} if {w.pick(['m ≥ n', 'n = m', 'b even', 'k < p'])} else {w(want)})"


def scaled(w: Writer, want: Want) -> str:
    return " · ".join(w.sides(want.of(), want)).join("()")


def total(w: Writer, want: Want) -> str:
    """Σᵢ of one product."""
    over, i = w.dim(), "ij"[len(w.loops)]
    kept, w.loops = w.loops, [*w.loops, (i, over)]
    statements, w.statements = w.statements, False
    at = w.dim()
    bodies = [lambda: f"{w(want.of())} · {w(want)}", lambda: w.indexed(want)]
    if len(want.item) == 1:
        bodies.append(lambda: f"{w(want.of(*want.item, at))} @ {w(want.of(at))}")
    elif len(want.item) == 2:
        m, n = want.item
        bodies += [lambda: f"{w(want.of(m, at))} @ {w(want.of(at, n))}",
                   lambda: f"{w.indexed(want.of(m))} @ ({w.indexed(want.of(n))})ᵀ",
                   lambda: f"{w(want.of())} · {w.indexed(want.of(m))} @ ({w.indexed(want.of(n))})ᵀ"]
    body = w.pick(bodies)()
    w.loops, w.statements = kept, statements
    return f"(Σ_{{{i} ∈ range({over})}} {body})"
