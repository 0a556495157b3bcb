"""Singular value decompositions in a product: their parts, and W put back in the place of all of them.

    svd_part(node, 0)               which triples of which svd a factor holds
    around_base(s, root, W)         U M Vᵀ = W + U (M − diag(Σ)) Vᵀ
    by_parts(s, root, W)            W = U diag(Σ) Vᵀ, the other way round: W itself is not read any more
"""

from __future__ import annotations

from typing import Any

from padp.compiler.ir import build as b
from padp.compiler.ir.dims import least, lower, same
from padp.compiler.ir.nodes import Node, Type, walk
from padp.compiler.operators.rewriting import Rewriting


def decomposed(node: Node) -> bool:
    """Whether a factor is (a piece of) an output of a decomposition."""
    while node.op in ("slice", "t"):
        node = node.args[0]
    return node.op == "out"


def svd_part(node: Node, output: int) -> tuple[Node, Any, Any] | None:
    """(svd, start, stop) when node is output ``output`` of an svd, or a slice of it along the triples."""
    axis = -2 if output == 2 else -1
    low: Any = 0
    if node.op == "slice" and node.attrs[0] == axis and node.attrs[3] == 1:
        low, high = node.attrs[1], node.attrs[2]
        node = node.args[0]
    else:
        high = None
    if node.op != "out" or node.attrs[0] != output or node.args[0].op != "svd":
        return None
    svd = node.args[0]
    return svd, low, svd.attrs[0] if high is None else high


def whole_of(node: Node) -> Node:
    """What a slice is cut from."""
    return node.args[0] if node.op == "slice" else node


def around_base(s: Rewriting, root: Node, weight: Node) -> Node:
    """U M Vᵀ = W + U (M − diag(Σ)) Vᵀ for a whole decomposition of W, in a program that never applies W itself.

    So the base layer's own product is used, and a start with M = diag(Σ) is exact.
    """
    if any(n.op in ("prod", "add") and any(a is weight for a in n.args) for n in walk(root)):
        return root
    done: dict[int, Node] = {}
    for node in walk(root):
        args = tuple(done[id(a)] for a in node.args)
        new = s.make(node, args) if args != node.args else node
        done[id(node)] = _through_svd(s, new, weight) if new.op == "prod" else new
    return done[id(root)]


def by_parts(s: Rewriting, root: Node, weight: Node) -> Node | None:
    """W = U diag(Σ) Vᵀ wherever W is a factor or a term, in a program that has the whole decomposition of W at hand.

    W x + U C Vᵀ x becomes U (diag(Σ) + C) Vᵀ x: two large products in the place of three.
    """
    whole = [n for n in walk(root) if n.op == "svd" and n.args[0] is weight
             and same(n.attrs[0], lower(least(*weight.type.item)))]
    if not whole:
        return None
    (q,), (m, n) = whole[0].attrs[:1], weight.type.item
    types = (Type((m, q)), Type((q,)), Type((q, n)))
    left, values, right = (s.g.node("out", (whole[0],), (k,), t) for k, t in enumerate(types))
    parts = b.prod(s.g, left, s.diag(values), right)
    done: dict[int, Node] = {id(weight): parts, id(whole[0]): whole[0]}
    for node in walk(root):
        if id(node) not in done:
            s.g.span = node.span
            args = tuple(done[id(a)] for a in node.args)
            if node.op == "prod" and weight in node.args:  # not by the rules, which would make W of its parts again
                done[id(node)] = b.prod(s.g, *(f for a in args for f in (a.args if a is parts else (a,))))
            else:
                done[id(node)] = s.make(node, args) if args != node.args else node
    return done[id(root)]


def _through_svd(s: Rewriting, node: Node, weight: Node) -> Node:
    """A U M Vᵀ B = A (W + U (M − diag(Σ)) Vᵀ) B, where U, Σ, Vᵀ is the whole decomposition of W."""
    for i, first in enumerate(node.args):
        if first.op != "out" or first.attrs[0] != 0 or first.args[0].op != "svd" or first.args[0].args[0] is not weight:
            continue
        svd = first.args[0]
        if not same(svd.attrs[0], lower(least(*weight.type.item))):
            continue
        for j in range(i + 1, len(node.args)):
            last = node.args[j]
            if last.op != "out" or last.attrs[0] != 2 or last.args[0] is not svd or j == i + 1:
                continue
            values = s.diag(s.g.node("out", (svd,), (1,), Type((svd.attrs[0],))))
            middle = s.prod(node.args[i + 1:j])
            change = s.add([middle, s.scale(s.g.const(-1), values)], middle.type)
            whole = s.add([weight, s.prod((first, change, last))], weight.type)
            return s.prod((*node.args[:i], whole, *node.args[j + 1:]))
    return node
