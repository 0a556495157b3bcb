"""Where x enters: the base layer's own product in a sum, and whether a program is affine in x.

    base_product(W v + …)   finds W v with factor one, so that base(v) = W v + bias is called instead
    affine(y)               y = M x + c, or the reason why it is not
    matrix_of(y)            M and c as expressions, where the operators allow it
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from padp.compiler.ir import build as b
from padp.compiler.ir.nodes import Node, depends, walk
from padp.compiler.normal.carried import Carried
from padp.compiler.normal.normal_form import Simplifier

_LINEAR = frozenset({
    "add", "t", "slice", "cat", "stack", "spread", "expand", "sumloop", "interleave", "loop", "lying", "grouped",
    "reshape", "view", "join", "column_of", "entry", "vec", "tile", "repeat", "blocks", "assemble", "trace", "diagonal",
    "diag", "blkdiag", "blkdiag_of", "skew", "circulant", "tril", "triu", "stril", "striu",
    "fft", "ifft", "fft2", "ifft2", "Re", "Im", "detach", "drop",
})
"""Linear in all arguments together."""
_LINEAR_IN = {"take": (0,), "div": (0,), "fold": (1,), "scatter": (0,), "put": (0, 1)}
"""Linear in these arguments together, where the others do not depend on x."""
_PRODUCTS = frozenset({"prod", "scale", "mul", "outer", "dot", "kron", "kron_vectors"})
"""Linear in each argument, where no other one depends on x."""


def base_product(rules: Simplifier, term: Node, weight: Node | None) -> tuple[Node, list[Node]] | None:
    """(v, the other terms) when a term is W v + other terms with W's factor one."""
    if term.op != "prod" or term.type.rank != 1 or weight is None:
        return None
    first, tail = term.args[0], term.args[1:]
    if first is weight:
        return rules.prod(tail), []
    if first.op == "add" and any(a is weight for a in first.args):
        vector = rules.prod(tail)
        others = [rules.prod((a, *tail)) for a in first.args if a is not weight]
        return vector, others
    return None


def beside_base(rules: Simplifier, term: Node, weight: Node | None) -> list[Node] | None:
    """The other terms when a term is W x + other terms;  W (x + v) = W x + W v for a v that no token changes."""
    found = base_product(rules, term, weight)
    if found is None or weight is None:
        return None
    vector, others = found
    if vector.op == "add":
        still = [a for a in vector.args if not uses_input(a)]
        moving = [a for a in vector.args if uses_input(a)]
        if not still or len(moving) != 1:
            return None
        others = [*others, rules.prod((weight, rules.add(still, vector.type)))]
        vector = moving[0]
    return others if vector.op == "input" else None


def is_input(node: Node) -> bool:
    return node.op == "input"


def uses_input(node: Node) -> bool:
    return depends(node, is_input)


def affine(root: Node) -> tuple[bool, Node | None]:
    """Whether ``root`` = M x + c; else the first node that is not affine in x.

    A loop whose steps are affine in x and in what it carries is affine in x: by induction over its steps.
    """
    carried = Carried(root)
    on: dict[int, bool] = {}
    for node in walk(root):
        moving = [k for k, a in enumerate(node.args) if on[id(a)]]
        on[id(node)] = bool(moving) or (node.op in ("input", "carry") and carried.depends(node, is_input))
        if moving and not _linear(node, moving):
            return False, node
    return True, None


def _linear(node: Node, moving: Sequence[int]) -> bool:
    """Whether an operation is linear in its arguments at these places together."""
    if node.op in _PRODUCTS:
        return len(moving) == 1
    if node.op == "reduce":
        return node.attrs[0] in ("sum", "mean")
    return node.op in _LINEAR or set(moving) <= set(_LINEAR_IN.get(node.op, ()))


def matrix_of(rules: Simplifier, root: Node) -> tuple[Node, Node] | None:
    """(M, c) with root = M x + c, or None where an operator on the way has no matrix form."""
    g = rules.g
    done: dict[int, tuple[Node | None, Node] | None] = {}

    def both(node: Node, known: Mapping[int, tuple[Node | None, Node] | None]) -> tuple[Node | None, Node] | None:
        if not uses_input(node):
            return None, node
        if node.type.rank != 1 or node.type.batch:
            return None
        if node.op == "input":
            n = node.type.item[0]
            return b.eye(g, n), b.zeros(g, node.type)
        parts = [known[id(a)] for a in node.args]
        if any(p is None for p in parts):
            return None
        match node.op, parts:
            case "add", _:
                matrices = [p[0] for p in parts if p is not None and p[0] is not None]
                return rules.add(matrices, matrices[0].type), rules.add([p[1] for p in parts if p], node.type)
            case "scale", [(None, s), (m, c)] if m is not None:
                return rules.scale(s, m), rules.scale(s, c)
            case "prod", [*_, (m, c)] if m is not None:
                return rules.prod((*node.args[:-1], m)), rules.prod((*node.args[:-1], c))
            case "mul", [(None, d), (m, c)] | [(m, c), (None, d)] if m is not None:
                return rules.prod((rules.diag(d), m)), rules.mul(d, c)
            case "slice", [(m, c)] if m is not None:
                axis, start, stop, step = node.attrs
                return rules.slice(m, axis - 1, start, stop, step), rules.slice(c, axis, start, stop, step)
            case _:
                return None

    for node in walk(root):
        done[id(node)] = both(node, done)
    found = done[id(root)]
    return None if found is None or found[0] is None else (found[0], found[1])
