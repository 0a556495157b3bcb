"""Learned tensors that stay at 0: where one stands, it is multiplied by another that starts at 0 and stays there too.

    d(a b) = b da + a db          nothing moves while both are 0

    stuck(typed) -> names         what a gradient moves is no zero any more, until nothing new is moved
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from padp.compiler.elaborate.state import Elaborated
from padp.compiler.ir.build import is_zero
from padp.compiler.ir.nodes import Node, walk
from padp.compiler.names.scope import walk as walk_terms
from padp.compiler.names.terms import Let, Write

_PRODUCTS = frozenset({"prod", "scale", "mul", "kron", "kron_vectors", "outer", "dot"})
ZERO_AT_ZERO = frozenset({
    "t", "diag", "diagonal", "skew", "circulant", "blkdiag", "assemble", "blocks", "reshape", "view", "vec", "tile",
    "repeat", "grouped", "spread", "slice", "take", "column", "column_of", "entry", "sumloop", "reduce", "trace",
    "drop", "pow", "sumsq", "expand",
})
_POINTS = frozenset({"sin", "tan", "tanh", "arctan", "relu", "gelu", "silu", "sqrt", "abs", "sign"})


def stuck(typed: Elaborated) -> list[str]:
    """The learned tensors that start at 0 and never get a gradient, in the order of their declarations; those that the
    program itself changes after backward are not among them.

    Only what certainly passes no gradient counts: an operator that is not known here passes it on.
    """
    roots = [typed.output] + ([typed.penalty] if typed.penalty is not None else [])
    zeros = [name for name, p in typed.parameters.items()
             if p.start.kind == "zeros" or (p.start.node is not None and is_zero(p.start.node))]
    moved = {name for step in walk_terms(typed.method.updates) for name in
             (step.names if isinstance(step, Let) else (step.name,) if isinstance(step, Write) else ())}
    while True:
        reached = _reached(roots, set(zeros) - moved)
        if reached <= moved:
            break
        moved |= reached
    return [name for name in zeros if typed.parameters[name].declaration.role == "learned" and name not in moved]


def _reached(roots: Sequence[Node], zeros: Collection[str]) -> set[str]:
    """The tensors that get a gradient while those named are 0."""
    zero = _zeros(roots, zeros)
    seen: set[int] = set()
    found: set[str] = set()
    stack = list(roots)
    while stack:
        node = stack.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if node.op == "param":
            found.add(str(node.attrs[0]))
        elif node.op in _PRODUCTS:
            there = [k for k, a in enumerate(node.args) if zero[id(a)]]
            if len(there) < 2:
                stack.extend(node.args if not there else [node.args[there[0]]])
        elif node.op in ("pow", "sumsq") and zero[id(node.args[0])]:
            if node.op == "pow" and not _flat_at_zero(node):
                stack.extend(node.args)
        else:
            stack.extend(node.args)
    return found


def _flat_at_zero(power: Node) -> bool:
    """Whether a power has the derivative 0 at 0."""
    exponent = power.attrs[0]
    return isinstance(exponent, (int, float)) and exponent > 1


def _zeros(roots: Sequence[Node], names: Collection[str]) -> dict[int, bool]:
    """Which values are 0 while the tensors named are."""
    zero: dict[int, bool] = {}
    for node in walk(*roots):
        args = [zero[id(a)] for a in node.args]
        match node.op:
            case "param":
                zero[id(node)] = str(node.attrs[0]) in names
            case "const" | "full":
                zero[id(node)] = is_zero(node)
            case "add" | "cat":
                zero[id(node)] = bool(args) and all(args)
            case "div":
                zero[id(node)] = args[0]
            case "point":
                zero[id(node)] = args[0] and node.attrs[0] in _POINTS
            case op if op in _PRODUCTS:
                zero[id(node)] = any(args)
            case op if op in ZERO_AT_ZERO:
                zero[id(node)] = bool(args) and args[0]
            case _:
                zero[id(node)] = False
    return zero
