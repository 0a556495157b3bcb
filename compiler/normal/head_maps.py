"""Attention sites: ``attn(q = …, k = …, v = …, o = …)`` as one small map for every head.

    q_h = A_h (W_Q,h x + b_Q,h) + a_h           a map on what the query projection puts out
    (A q)ᵀ (B k) = (Bᵀ A q)ᵀ k                  Q and K together: one map on q; K and its cache stay untouched
    W_O M (Σ p C v) = W_O (M C) (Σ p v)         V and O together: one map on what goes into the output projection

Every expression is first brought to (map) @ (projection): outputs of a decomposition C = X Y are written through what
was decomposed, Uᵀ = Σ⁻¹ V Cᵀ, Vᵀ = Σ⁻¹ Uᵀ C, Q = A R⁻¹, so no e×d basis is ever stored.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from padp.compiler.ir import build as b
from padp.compiler.ir.nodes import Node, walk
from padp.compiler.normal.normal_form import Simplifier
from padp.dsl.diagnostics import refuse

if TYPE_CHECKING:
    from padp.compiler.elaborate.state import Elaborated


@dataclass(frozen=True, eq=False)
class Mapped:
    """One expression as a map of one projection: ``matrix`` (heads, e, e) and an offset (heads, e) or None.

    ``grouped``: the projection has fewer heads than the map, each used by several query heads.
    """

    matrix: Node
    offset: Node | None
    grouped: bool


class NotAMap(Exception):
    """An expression that is no map of its projection, with the reason."""


def attention_maps(typed: Elaborated, rules: Simplifier) -> tuple[dict[str, Mapped], bool]:
    """The maps to apply, by role (q, k, v: on the projection's output; o: on its input), and whether Q and K are joint.

    Raises PadpError E511 for an expression that is no per-head map of its own projection.
    """
    call = typed.output
    method = typed.method
    if call.op != "attn":
        raise refuse("E210", "at an attention, y is a call of attn", method.span, source=method.source)
    given = dict(zip(call.attrs, call.args, strict=True))
    mentions = {n.attrs[0] for n in walk(call) if n.op == "bias"}
    found: dict[str, Mapped] = {}
    for role, expression in given.items():
        try:
            found[role] = _output_map(rules, rules(expression)) if role == "o" else \
                _projection_map(typed, rules, role, rules(expression), f"b_{role.upper()}" in mentions)
        except (NotAMap, b.Mismatch) as reason:
            line, _ = method.source.position(expression.span.start)
            raise refuse("E511", f"{role} is not a map of each head of the {role.upper()} projection: {reason} "
                         f"(line {line})", expression.span, source=method.source) from None
    joint = "q" in found and "k" in found
    if joint:
        q, k = found["q"], found.pop("k")
        if q.offset is not None or k.offset is not None:
            raise refuse("E511", "Q and K together are exact only with their biases inside, as in [W_Q, b_Q] @ [x; 1]",
                         method.span, source=method.source)
        turned = rules.t(_on_heads(typed, rules, k.matrix))
        found["q"] = Mapped(rules.prod((turned, q.matrix)), None, False)
    elif "k" in found and found["k"].grouped:
        k = found.pop("k")
        if k.offset is not None:
            raise refuse("E511", "a K of each query head needs its bias inside, as in [W_K, b_K] @ [x; 1]",
                         method.span, source=method.source)
        found["q"] = Mapped(rules.t(k.matrix), None, False)
    if "v" in found and ("o" in found or found["v"].grouped):
        v = found.pop("v")
        o = found.get("o")
        if o is None:
            found["o"] = Mapped(v.matrix, v.offset, False)
        else:
            offset = None if v.offset is None else rules.prod((o.matrix, _on_heads(typed, rules, v.offset)))
            found["o"] = Mapped(rules.prod((o.matrix, _on_heads(typed, rules, v.matrix))), offset, False)
    return {role: _each_head(typed, rules, role, mapped) for role, mapped in found.items()}, joint


def _each_head(typed: Elaborated, rules: Simplifier, role: str, mapped: Mapped) -> Mapped:
    """A map that is the same for every head, as one of each head."""
    heads = typed.names["W_Q" if role == "o" else f"W_{role.upper()}"].type.family
    offset = None if mapped.offset is None else rules.for_each(mapped.offset, heads)
    return Mapped(rules.for_each(mapped.matrix, heads), offset, mapped.grouped)


def _on_heads(typed: Elaborated, rules: Simplifier, one: Node) -> Node:
    """What groups of heads have, over the query heads: head h is given what its group has."""
    while one.op == "expand" and one.args[0].type.item == one.type.item:
        one = one.args[0]  # the same for every group, and so for every head
    heads = typed.names["W_Q"].type.family
    if not one.type.family or b.fits(one.type.family, heads):
        return one
    type_ = type(one.type)(one.type.item, heads, one.type.loops, one.type.row, one.type.kind)
    return rules.g.node("grouped", (one,), (heads[-1], one.type.rank), type_)


@dataclass(frozen=True, eq=False)
class _Affine:
    """A W x + B (W x + b) + c with W and b of one projection: ``outer`` A, ``inner`` B, ``rest`` c; None is 0."""

    outer: Node | None = None
    inner: Node | None = None
    rest: Node | None = None
    grouped: bool = False


def _projection_map(typed: Elaborated, rules: Simplifier, role: str, node: Node, mentions: bool) -> Mapped:
    """(M, a) with node = M (W x + b) + a. Where the program does not say b, it stays as it is.

    A W x + B (W x + b) + c is M = A + B and a = c − A b; with b left alone a = c + b − A b.
    """
    g = rules.g
    found = _affine(rules, role, node)
    parts = [part for part in (found.outer, found.inner) if part is not None]
    if not parts:
        raise NotAMap(f"it does not go through W_{role.upper()}")
    bias = typed.names.get(f"b_{role.upper()}")
    offset = [] if found.rest is None else [found.rest]
    if found.outer is not None and bias is not None and not b.is_zero(bias):
        if found.grouped:
            bias = _on_heads(typed, rules, bias)
        offset += [] if mentions else [bias]
        offset.append(rules.scale(g.const(-1), rules.prod((found.outer, bias))))
    shift = rules.add(offset, offset[0].type) if offset else None
    return Mapped(rules.add(parts, parts[0].type), None if shift is None or b.is_zero(shift) else shift, found.grouped)


def _affine(rules: Simplifier, role: str, node: Node) -> _Affine:
    """What an expression is as a function of one projection; NotAMap when it is something else."""
    g = rules.g
    if not _reads_x(node):
        return _Affine(rest=node)
    match node.op:
        case "add":
            parts = [_affine(rules, role, a) for a in node.args]
            if len({p.grouped for p in parts if p.outer is not None or p.inner is not None}) > 1:
                raise NotAMap("maps of query heads and of groups are added")

            def total(terms: list[Node | None]) -> Node | None:
                there = [x for x in terms if x is not None]
                return rules.add(there, there[0].type) if there else None

            return _Affine(total([p.outer for p in parts]), total([p.inner for p in parts]),
                           total([p.rest for p in parts]), any(p.grouped for p in parts))
        case "scale" if not _reads_x(node.args[0]):
            inside = _affine(rules, role, node.args[1])
            outer, inner, rest = (None if x is None else rules.scale(node.args[0], x)
                                  for x in (inside.outer, inside.inner, inside.rest))
            return _Affine(outer, inner, rest, inside.grouped)
        case "prod":
            return _product_map(rules, role, _through(rules, list(node.args)))
        case "mul" | "div" if _scaled_entries(node) is not None:
            by, vector = _scaled_entries(node) or node.args
            if node.op == "div":
                by = b.div(g, g.const(1), by, node.attrs)
            if not by.type.rank:
                return _affine(rules, role, b.scale(g, by, vector))
            inside = _affine(rules, role, vector)
            outer, inner, rest = (None if x is None else rules.prod((b.diag(g, by), x))
                                  for x in (inside.outer, inside.inner, inside.rest))
            return _Affine(outer, inner, rest, inside.grouped)
        case "grouped" if not (inside := _affine(rules, role, node.args[0])).grouped:
            outer, inner, rest = (None if x is None else g.node("grouped", (x,), (node.attrs[0], x.type.rank),
                                  b.typed(x.type.item, node)) for x in (inside.outer, inside.inner, inside.rest))
            return _Affine(outer, inner, rest, True)
        case "expand":
            inside = _affine(rules, role, node.args[0])
            outer, inner, rest = (None if x is None else g.node("expand", (x,), (), b.typed(x.type.item, node))
                                  for x in (inside.outer, inside.inner, inside.rest))
            return _Affine(outer, inner, rest, inside.grouped)
        case _:
            raise NotAMap(f"it is not linear in W_{role.upper()} @ x")


def _scaled_entries(node: Node) -> tuple[Node, Node] | None:
    """(s, v) of s ⊙ v or v / s where v alone reads x."""
    first, second = node.args
    if not _reads_x(second):
        return second, first
    return (first, second) if node.op == "mul" and not _reads_x(first) else None


def _product_map(rules: Simplifier, role: str, factors: list[Node]) -> _Affine:
    """A W x, A [W, b] [x; 1], or A times something that is such a map itself."""
    g = rules.g
    vector = factors[-1]
    whole = _is_x_and_one(vector)
    if any(_reads_x(f) for f in factors[:-1]):
        raise NotAMap("it depends on x more than once")
    if vector.op != "input" and not whole:
        inside = _affine(rules, role, vector)
        outer, inner, rest = (None if x is None else rules.prod((*factors[:-1], x))
                              for x in (inside.outer, inside.inner, inside.rest))
        return _checked(role, _Affine(outer, inner, rest, inside.grouped))
    projection, before = factors[-2], factors[:-2]
    is_grouped = projection.op == "grouped"
    weight, with_bias = _weight_of(projection.args[0] if is_grouped else projection, role)
    if weight is None:
        raise NotAMap(f"it does not go through W_{role.upper()}")
    if whole != with_bias:
        raise NotAMap("[W, b] goes with [x; 1], and W with x")
    size = projection.type.item[0]
    matrix = rules.prod(tuple(before)) if before else b.eye(g, size)
    if not b.fits(matrix.type.item, (size, size)):
        raise NotAMap(f"a map of a head is {size}×{size}, this is {matrix.type}")
    if not b.fits(matrix.type.family, projection.type.family):
        matrix = g.node("expand", (matrix,), (), b.typed((size, size), projection))
    return _Affine(None, matrix, None, is_grouped) if whole else _Affine(matrix, None, None, is_grouped)


def _checked(role: str, found: _Affine) -> _Affine:
    """The map of a head, which is square."""
    for matrix in (found.outer, found.inner):
        if matrix is not None and matrix.type.item[0] != matrix.type.item[1]:
            raise NotAMap(f"a map of a head of {role.upper()} is square, this is {matrix.type}")
    return found


def _reads_x(node: Node) -> bool:
    return any(n.op == "input" for n in walk(node))


def _output_map(rules: Simplifier, node: Node) -> Mapped:
    """M with node = W_O M: s · W_O M is W_O (s M), and sums are sums of maps."""
    if node.op == "scale" and node.args[1].type.rank == 2:
        inside = _output_map(rules, node.args[1])
        return Mapped(rules.scale(node.args[0], inside.matrix), None, False)
    if node.op == "add":
        parts = [_output_map(rules, a).matrix for a in node.args]
        return Mapped(rules.add(parts, parts[0].type), None, False)
    factors = list(node.args) if node.op == "prod" else [node]
    first = factors[0]
    if first.op == "out" and first.attrs[0] == 0 and first.args[0].op == "svd":  # U = C V Σ⁻¹
        svd = first.args[0]
        factors = [*_product(svd.args[0]), rules.t(_output(rules, svd, 2)), _inverse_values(rules, svd), *factors[1:]]
    elif first.op == "out" and first.attrs[0] == 0 and first.args[0].op == "qr":  # Q = A R⁻¹
        qr = first.args[0]
        factors = [*_product(qr.args[0]), rules.inv(_output(rules, qr, 1)), *factors[1:]]
    if factors[0].op != "weight" or factors[0].attrs[0] != "W_O":
        raise NotAMap("it does not go through W_O")
    size = factors[0].type.item[1]
    matrix = rules.prod(tuple(factors[1:])) if len(factors) > 1 else b.eye(rules.g, size)
    if not b.fits(matrix.type.item, (size, size)):
        raise NotAMap(f"a map of a head is {size}×{size}, this is {matrix.type}")
    return Mapped(matrix, None, False)


def _through(rules: Simplifier, factors: list[Node]) -> list[Node]:
    """A factor that came out of a decomposition, written through what was decomposed."""
    last = factors[-2] if len(factors) > 1 else factors[-1]
    if last.op == "t" and last.args[0].op == "out" and last.args[0].attrs[0] == 0:
        whole = last.args[0].args[0]
        flipped = [rules.t(f) for f in reversed(_product(whole.args[0]))]
        if whole.op == "svd":  # Uᵀ = Σ⁻¹ Vᵀ Cᵀ
            inside = [_inverse_values(rules, whole), _output(rules, whole, 2), *flipped]
        else:  # Qᵀ = R⁻ᵀ Aᵀ
            inside = [rules.inv(rules.t(_output(rules, whole, 1))), *flipped]
        return [*factors[:-2], *inside, factors[-1]]
    if last.op == "out" and last.attrs[0] == 2 and last.args[0].op == "svd":  # Vᵀ = Σ⁻¹ Uᵀ C
        svd = last.args[0]
        inside = [_inverse_values(rules, svd), rules.t(_output(rules, svd, 0)), *_product(svd.args[0])]
        return [*factors[:-2], *inside, factors[-1]]
    return factors


def _product(node: Node) -> tuple[Node, ...]:
    return node.args if node.op == "prod" else (node,)


def _output(rules: Simplifier, whole: Node, which: int) -> Node:
    m, n = whole.args[0].type.item
    q = whole.type.item[0]
    item = {("svd", 0): (m, q), ("svd", 1): (q,), ("svd", 2): (q, n), ("qr", 0): (m, q), ("qr", 1): (q, n)}[
        whole.op, which]
    return rules.g.node("out", (whole,), (which,), b.typed(item, whole.args[0]))


def _inverse_values(rules: Simplifier, svd: Node) -> Node:
    return b.diag(rules.g, b.div(rules.g, rules.g.const(1), _output(rules, svd, 1)))


def _weight_of(node: Node, role: str) -> tuple[Node | None, bool]:
    """(W, False) for W, (W, True) for [W, b] of that role."""
    name = f"W_{role.upper()}"
    if node.op == "weight" and node.attrs[0] == name:
        return node, False
    if node.op == "cat" and node.attrs[0] == 1 and len(node.args) == 2:
        first, second = node.args
        column = second.args[0] if second.op == "column_of" else second
        own = (column.op == "bias" and column.attrs[0] == f"b_{role.upper()}") or b.is_zero(column)
        if first.op == "weight" and first.attrs[0] == name and own:
            return first, True
    return None, False


def _is_x_and_one(node: Node) -> bool:
    return node.op == "cat" and len(node.args) == 2 and node.args[0].op == "input" and node.args[1].op == "full" \
        and node.args[1].attrs[0] == 1
