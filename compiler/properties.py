"""What is known of values from their structure, and what a fresh adapter does.

    Facts(graph).holds("orthogonal", node)      True when a rule proves it, False when one refutes it, else None
    Facts(graph).rank(node)                     a bound that a rule proves
    Starts(typed).identity()                    whether y starts as W @ x + bias: parameters replaced by their starts

One rule an operator; its docstring is the fact. A property that no rule of an operator proves is looked for in the
normal form: A is antisymmetric when the normal forms of Aᵀ and −A are one node.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import sympy as sp

from padp.compiler import build as b
from padp.compiler.build import Mismatch
from padp.compiler.chains import plane_rotation, rank_one_update
from padp.compiler.dims import lower, product, same
from padp.compiler.formulas import formula
from padp.compiler.ir import Graph, Node, walk
from padp.compiler.rules import Simplifier
from padp.compiler.state import Elaborated
from padp.compiler.terms import Number

Side = Literal["rows", "columns"]
_ODD = frozenset({"sin", "tan", "tanh", "arctan", "sign"})
TRANSPARENT = frozenset({"detach", "expand", "spread", "repeat", "grouped", "lying"})  # the same items, elsewhere


class Facts:
    """Properties of the nodes of one graph, by rules; each question is answered once."""

    def __init__(self, g: Graph, rules: Simplifier | None = None) -> None:
        self.g = g
        self.rules = rules if rules is not None else Simplifier(g)
        self._known: dict[tuple[str, int], Any] = {}
        self._kept: list[Node] = []

    def _once(self, question: str, node: Node, answer: Callable[[], Any], meanwhile: Any) -> Any:
        mark = (question, id(node))
        if mark not in self._known:
            self._known[mark] = meanwhile
            self._kept.append(node)
            self._known[mark] = answer()
        return self._known[mark]

    def suppose(self, side: Side, carried: Node) -> None:
        """What a loop carries is orthonormal: the hypothesis of an induction over its steps."""
        self._known[side, id(carried)] = True
        self._kept.append(carried)

    def normal(self, node: Node) -> Node:
        """The normal form, or the node itself where it has none."""
        def made() -> Node:
            try:
                return self.rules(node)
            except Mismatch:
                return node

        found: Node = self._once("normal", node, made, node)
        return found

    # ------------------------------------------------------------ questions

    def holds(self, what: str, node: Node) -> bool | None:
        """Whether a value is orthogonal, a rotation, antisymmetric, symmetric, diagonal, the identity, or has
        orthonormal rows."""
        if node.type.kind == "unknown":
            return None
        if node.type.rank != 2:
            return False
        if what != "of orthonormal rows" and not same(*node.type.item):
            return False
        if what == "a rotation":
            return self.rotation(node)
        proofs: dict[str, Callable[[Node], bool]] = {
            "orthogonal": self.orthogonal, "antisymmetric": self.antisymmetric, "symmetric": self.symmetric,
            "diagonal": self.diagonal, "the identity": self.identity,
            "of orthonormal rows": lambda n: self.orthonormal(n, "rows")}
        return True if proofs[what](node) else False if self.refuted(what, node) else None

    def refuted(self, what: str, node: Node) -> bool:
        """A tensor that is free to take any value has none of these properties; nor has 0 or a multiple of I all."""
        node = self.normal(node)
        match node.op:
            case "param":
                return not (same(*node.type.item) and same(node.type.item[0], 1))
            case "eye":
                return what == "antisymmetric"
            case "full":
                if node.attrs[0] == 0:
                    return what in ("orthogonal", "the identity", "of orthonormal rows")
                return what == "antisymmetric"
            case "scale" if node.args[0].op == "const" and node.args[1].op == "eye":
                factor = node.args[0].attrs[0]
                return what in ("the identity", "antisymmetric") or (factor != -1 and isinstance(factor, (int, float)))
            case "skew":
                return what in ("orthogonal", "the identity", "symmetric", "diagonal") and _free(node.args[0])
            case _:
                return False

    def rotation(self, node: Node) -> bool | None:
        """Orthogonal, of determinant 1."""
        from padp.compiler.determinants import sign

        orthogonal = self.holds("orthogonal", node)
        if not orthogonal:
            return orthogonal
        found = sign(self, node)
        return None if found is None else found == 1

    def orthogonal(self, node: Node) -> bool:
        """Qᵀ Q = Q Qᵀ = I."""
        return same(*node.type.item) and (self.orthonormal(node, "rows") or self.orthonormal(node, "columns"))

    def orthonormal(self, node: Node, side: Side) -> bool:
        """Q Qᵀ = I (rows) or Qᵀ Q = I (columns); a square matrix with one has the other."""
        if node.type.rank != 2:
            return False
        if same(*node.type.item):
            side = "rows" if self._orthonormal(node, "rows") else "columns"
        return self._orthonormal(node, side)

    def _orthonormal(self, node: Node, side: Side) -> bool:
        def made() -> bool:
            rule = _ORTHONORMAL.get(node.op)
            return rule is not None and rule(self, node, side)

        return bool(self._once(side, node, made, False))

    def antisymmetric(self, node: Node) -> bool:
        """Aᵀ = −A."""
        def made() -> bool:
            rule = _ANTISYMMETRIC.get(node.op)
            if rule is not None and rule(self, node):
                return True
            normal = self.normal(node)
            return self._vanishes(lambda: self.rules.add([self.rules.t(normal), normal], node.type))

        return node.type.rank == 2 and same(*node.type.item) and bool(self._once("antisymmetric", node, made, False))

    def symmetric(self, node: Node) -> bool:
        """Aᵀ = A."""
        def made() -> bool:
            rule = _SYMMETRIC.get(node.op)
            if rule is not None and rule(self, node):
                return True
            normal = self.normal(node)
            minus = self.g.const(-1)
            return self._vanishes(
                lambda: self.rules.add([self.rules.t(normal), self.rules.scale(minus, normal)], node.type))

        return node.type.rank == 2 and same(*node.type.item) and bool(self._once("symmetric", node, made, False))

    def diagonal(self, node: Node) -> bool:
        """All entries beside the diagonal are 0."""
        def made() -> bool:
            rule = _DIAGONAL.get(node.op)
            return rule is not None and rule(self, node)

        return bool(self._once("diagonal", node, made, False))

    def identity(self, node: Node) -> bool:
        """The normal form is I, or a product A Aᵀ with orthonormal rows of A."""
        return self.normal(node).op == "eye" or any(
            self.orthonormal(left, "rows") and self.normal(b.t(self.g, left)) is self.normal(right)
            for left, right in _halves(self.g, node))

    def _vanishes(self, make: Callable[[], Node]) -> bool:
        try:
            return b.is_zero(make())
        except Mismatch:
            return False

    # ------------------------------------------------------------ ranks

    def rank(self, node: Node) -> Any:
        """A bound on the rank of a matrix (of each item of a family); None for what is no matrix."""
        if node.type.kind == "unknown" or node.type.rank != 2:
            return None

        def made() -> Any:
            largest = sp.Min(*node.type.item)
            rule = _RANK.get(node.op)
            found = rule(self, node) if rule is not None else largest
            return lower(sp.Min(found, largest))

        return self._once("rank", node, made, lower(sp.Min(*node.type.item)))

    def reaches(self, node: Node) -> Any | None:
        """The rank that a value has for almost all values of its tensors, where they are independent."""
        match node.op:
            case "param" if node.type.rank == 2:
                return lower(sp.Min(*node.type.item))
            case "param":
                return node.type.item[0] if node.type.rank == 1 else None
            case "t" | "diag":
                return self.reaches(node.args[0])
            case "scale" if node.args[0].op in ("const", "knob", "param"):
                return self.reaches(node.args[1])
            case "prod":
                ranks = [self.reaches(f) for f in node.args]
                seen: set[str] = set()
                for f in node.args:
                    own = _leaves(f)
                    if own & seen:
                        return None
                    seen |= own
                return None if any(r is None for r in ranks) else lower(sp.Min(*ranks))
            case _:
                return None

    def reasons(self, node: Node, starts: Starts) -> list[str]:
        """A note on why a property does not hold, where there is something to show."""
        start = starts.value(node)
        return [f"it starts as {formula(start)}"] if start is not node and start.op in ("eye", "full", "scale") else []


def _halves(g: Graph, node: Node) -> Iterator[tuple[Node, Node]]:
    """The ways to read a product as one of two factors."""
    if node.op == "prod" and node.type.rank == 2:
        for k in range(1, len(node.args)):
            yield b.prod(g, *node.args[:k]), b.prod(g, *node.args[k:])


def _free(v: Node) -> bool:
    return v.op == "param"


def _leaves(node: Node) -> set[str]:
    return {str(n.attrs[0]) for n in walk(node) if n.op in ("param", "weight", "input", "bias")}


# ---------------------------------------------------------------- orthonormal rows or columns


def _always(f: Facts, n: Node, side: Side) -> bool:
    """I, permutations and tensors in SO(n) are orthogonal."""
    return True


def _stored_orthonormal(f: Facts, n: Node, side: Side) -> bool:
    """A tensor in St(r, d) has orthonormal rows, one in O(n) also orthonormal columns."""
    return side == "rows" or same(*n.type.item)


def _transposed(f: Facts, n: Node, side: Side) -> bool:
    """Q has orthonormal rows when Qᵀ has orthonormal columns."""
    return f.orthonormal(n.args[0], "columns" if side == "rows" else "rows")


def _inverse(f: Facts, n: Node, side: Side) -> bool:
    """Q⁻¹ = Qᵀ for orthogonal Q."""
    return f.orthogonal(n.args[0])


def _product(f: Facts, n: Node, side: Side) -> bool:
    """(A B)(A B)ᵀ = A (B Bᵀ) Aᵀ = I;  Cayley: (I + K)(I − K)⁻¹ for antisymmetric K."""
    factors, at = list(n.args), 0
    while at < len(factors):
        if at + 1 < len(factors) and cayley_pair(f, factors[at], factors[at + 1]):
            at += 2
        elif factors[at].type.rank == 2 and f.orthonormal(factors[at], side):
            at += 1
        else:
            return False
    return True


def cayley_pair(f: Facts, x: Node, y: Node) -> bool:
    """Aᵀ A⁻¹ and A⁻¹ Aᵀ are orthogonal when A commutes with Aᵀ, as c I + K does for antisymmetric K."""
    inverse, other = (x, y) if x.op == "inv" else (y, x)
    if inverse.op != "inv":
        return False
    a = inverse.args[0]
    if a.op != "add":
        return False
    rest = [t for t in a.args if not _multiple_of_eye(t)]
    if len(rest) == len(a.args) or not rest or not all(f.antisymmetric(t) for t in rest):
        return False
    if other.op == "add":  # Aᵀ term by term: c I stays, K changes its sign
        mine = [f.normal(t if _multiple_of_eye(t) else b.negate(f.g, t)) for t in a.args]
        its = [f.normal(t) for t in other.args]
        if len(mine) == len(its) and {id(t) for t in mine} == {id(t) for t in its}:
            return True
    return f.normal(b.t(f.g, a)) is f.normal(other)


def _multiple_of_eye(n: Node) -> bool:
    return n.op == "eye" or (n.op == "scale" and n.args[0].op == "const" and n.args[1].op == "eye")


def _items(f: Facts, n: Node, side: Side) -> bool:
    """blkdiag(Q₁, …, Q_b) and Q ⊗ P have orthonormal rows when their parts have."""
    return all(f.orthonormal(a, side) for a in n.args)


def _same_items(f: Facts, n: Node, side: Side) -> bool:
    """What only repeats, spreads or detaches a value leaves its properties."""
    return f.orthonormal(n.args[0], side)


def _of_family(f: Facts, n: Node, side: Side) -> bool:
    """An item of a family has what every item has."""
    return _is_item(n) and f.orthonormal(n.args[0], side)


def _is_item(n: Node) -> bool:
    """Whether a take or a slice chooses items of a family and leaves them whole."""
    source = n.args[0]
    axis = n.attrs[0] if n.op == "take" else -n.attrs[0]
    return source.type.rank == n.type.rank == 2 and isinstance(axis, int) and axis > 2


def _multiple(f: Facts, n: Node, side: Side) -> bool:
    """−Q is orthogonal when Q is."""
    s, a = n.args
    return s.op == "const" and s.attrs[0] in (1, -1) and f.orthonormal(a, side)


def _reflection(f: Facts, n: Node, side: Side) -> bool:
    """I − 2 v vᵀ / ‖v‖² is orthogonal (Householder)."""
    return householder(f, n) is not None


def householder(f: Facts, n: Node) -> Node | None:
    """The v of I − 2 v vᵀ / ‖v‖², or None."""
    found = rank_one_update(n)
    if found is None or found.u is not found.w:
        return None
    wanted = b.scale(f.g, b.div(f.g, f.g.const(-2), b.sumsq(f.g, found.u, "all")), f.g.const(1))
    factor: Node = f.g.const(1)
    for c in found.c:
        factor = b.mul(f.g, factor, c) if factor.op != "const" or factor.attrs[0] != 1 else c
    return found.u if _same_number(f, factor, wanted) else None


def _same_number(f: Facts, a: Node, c: Node) -> bool:
    """Whether two scalars are one, after their numbers are drawn together."""
    return _number_parts(f, a) == _number_parts(f, c)


def _number_parts(f: Facts, n: Node) -> tuple[Any, tuple[tuple[int, int], ...]]:
    """A scalar as number · ∏ partᵖ: its number, and its parts with their powers."""
    parts: dict[int, int] = {}
    number: Any = sp.Integer(1)

    def visit(x: Node, power: int) -> None:
        nonlocal number
        match x.op:
            case "const":
                number = number * sp.sympify(x.attrs[0]) ** power
            case "scale" | "mul":
                visit(x.args[0], power)
                visit(x.args[1], power)
            case "div":
                visit(x.args[0], power)
                visit(x.args[1], -power)
            case "pow" if isinstance(x.attrs[0], int):
                if x.args[0].op == "point" and x.args[0].attrs[0] == "sqrt" and x.attrs[0] == 2:
                    visit(x.args[0].args[0], power)
                else:
                    visit(x.args[0], power * x.attrs[0])
            case "dot" if x.args[0] is x.args[1]:
                visit(b.sumsq(f.g, x.args[0], "all"), power)
            case "spread" | "expand" | "detach":
                visit(x.args[0], power)
            case _:
                parts[id(x)] = parts.get(id(x), 0) + power

    visit(n, 1)
    return sp.nsimplify(number), tuple(sorted((k, p) for k, p in parts.items() if p))


def _rotation(f: Facts, n: Node, side: Side) -> bool:
    """I with cos θ, −sin θ; sin θ, cos θ in the rows and columns i, j is orthogonal (Givens)."""
    return plane_turn(f, n)


def plane_turn(f: Facts, n: Node) -> bool:
    """Whether a value is I with the rows and columns i, j turned by an angle."""
    plane = plane_rotation(n)
    if plane is None or plane.a is None or plane.b is None or plane.c is None or plane.d is None:
        return False
    positive, negative = (plane.c, plane.b) if _minus(f, plane.b, plane.c) else (plane.b, plane.c)
    cosine = plane.a.op == "point" and plane.a.attrs[0] == "cos" and plane.a is plane.d
    sine = positive.op == "point" and positive.attrs[0] == "sin" and _minus(f, negative, positive)
    return cosine and sine and plane.a.args[0] is positive.args[0]


def _minus(f: Facts, a: Node, c: Node) -> bool:
    return a.op == "scale" and a.args[0].op == "const" and a.args[0].attrs[0] == -1 and a.args[1] is c


def _chain(f: Facts, n: Node, side: Side) -> bool:
    """A chain R ← Hᵢ @ R is orthogonal when its start and its steps are."""
    step, start = n.args
    return f.orthonormal(step, side) and f.orthonormal(start, side)


def _looped(f: Facts, n: Node, side: Side) -> bool:
    """A loop keeps what its start has and a step keeps: by induction, a step's input having it."""
    result, start = n.args
    if not f.orthonormal(start, side):
        return False
    for x in walk(result):
        if x.op == "carry":
            if x.attrs[0] != n.attrs[1] or x.attrs[1] != n.attrs[0]:
                return False
            f.suppose(side, x)
    return f.orthonormal(result, side)


def _decomposed(f: Facts, n: Node, side: Side) -> bool:
    """M = U diag(Σ) Vᵀ = Q R: U and Q have orthonormal columns, Vᵀ orthonormal rows; square ones are orthogonal."""
    whole, which = n.args[0], n.attrs[0]
    if which == 0:
        return side == "columns" or same(*n.type.item)
    return whole.op == "svd" and which == 2 and (side == "rows" or same(*n.type.item))


def _part(f: Facts, n: Node, side: Side) -> bool:
    """Some rows of orthonormal rows are orthonormal; some columns of orthonormal columns; an item of a family."""
    axis = n.attrs[0]
    if axis in (-1, -2):
        return side == ("rows" if axis == -2 else "columns") and f.orthonormal(n.args[0], side)
    return _of_family(f, n, side)


def _stacked(f: Facts, n: Node, side: Side) -> bool:
    """[G V_{:k}; V_{k:}] has orthonormal rows when V has and G is orthogonal; columns alike."""
    axis = n.attrs[0]
    if side != ("rows" if axis == 2 else "columns"):
        return False
    whole: Node | None = None
    end: Any = 0
    for p in n.args:
        turned, piece = (p.args[:-1], p.args[-1]) if p.op == "prod" and axis == 2 else \
            (p.args[1:], p.args[0]) if p.op == "prod" else ((), p)
        if piece.op != "slice" or piece.attrs[0] != -axis or piece.attrs[3] != 1 or not same(piece.attrs[1], end):
            return False
        if whole is not None and piece.args[0] is not whole:
            return False
        if turned and not f.orthogonal(b.prod(f.g, *turned)):
            return False
        whole, end = piece.args[0], piece.attrs[2]
    return whole is not None and f.orthonormal(whole, side)


def _exponential(f: Facts, n: Node, side: Side) -> bool:
    """expm(K) is orthogonal for antisymmetric K."""
    return f.antisymmetric(n.args[0])


_ORTHONORMAL: dict[str, Callable[[Facts, Node, Side], bool]] = {
    "eye": _always, "perm": _always, "special_orthogonal": _always, "orthonormal": _stored_orthonormal,
    "t": _transposed, "inv": _inverse, "prod": _product, "blkdiag": _items, "blkdiag_of": _items, "kron": _items,
    "scale": _multiple, "add": _reflection, "put": _rotation, "fold": _chain, "loop": _looped, "out": _decomposed,
    "slice": _part,
    "take": _of_family, "cat": _stacked, "expm": _exponential, **dict.fromkeys(TRANSPARENT, _same_items),
}


# ---------------------------------------------------------------- antisymmetric, symmetric, diagonal


def _skew(f: Facts, n: Node) -> bool:
    """skew(v) is antisymmetric."""
    return True


def _all_antisymmetric(f: Facts, n: Node) -> bool:
    """Sums, blocks, inverses and transposes of antisymmetric matrices are antisymmetric."""
    return all(f.antisymmetric(a) for a in n.args)


def _scaled_antisymmetric(f: Facts, n: Node) -> bool:
    """c A is antisymmetric when A is."""
    return f.antisymmetric(n.args[1])


def _entrywise_antisymmetric(f: Facts, n: Node) -> bool:
    """An odd function, entry by entry, keeps antisymmetry."""
    return n.attrs[0] in _ODD and f.antisymmetric(n.args[0])


def _item_antisymmetric(f: Facts, n: Node) -> bool:
    """An item of a family has what every item has."""
    return _is_item(n) and f.antisymmetric(n.args[0])


_ANTISYMMETRIC: dict[str, Callable[[Facts, Node], bool]] = {
    "skew": _skew, "add": _all_antisymmetric, "blkdiag": _all_antisymmetric, "blkdiag_of": _all_antisymmetric,
    "inv": _all_antisymmetric, "t": _all_antisymmetric, "scale": _scaled_antisymmetric,
    "point": _entrywise_antisymmetric, "take": _item_antisymmetric, "slice": _item_antisymmetric,
    **dict.fromkeys(TRANSPARENT, _all_antisymmetric),
}


def _plainly_symmetric(f: Facts, n: Node) -> bool:
    """I and diag(v) are symmetric."""
    return True


def _all_symmetric(f: Facts, n: Node) -> bool:
    """Sums, blocks, inverses, powers, transposes and Kronecker products of symmetric matrices are symmetric."""
    return all(f.symmetric(a) for a in n.args)


def _scaled_symmetric(f: Facts, n: Node) -> bool:
    """c A is symmetric when A is."""
    return f.symmetric(n.args[1])


def _outer_symmetric(f: Facts, n: Node) -> bool:
    """v vᵀ is symmetric."""
    return n.args[0] is n.args[1]


_SYMMETRIC: dict[str, Callable[[Facts, Node], bool]] = {
    "eye": _plainly_symmetric, "diag": _plainly_symmetric, "add": _all_symmetric, "blkdiag": _all_symmetric,
    "inv": _all_symmetric, "t": _all_symmetric, "point": _all_symmetric, "pow": _all_symmetric, "kron": _all_symmetric,
    "expm": _all_symmetric, "scale": _scaled_symmetric, "outer": _outer_symmetric,
    **dict.fromkeys(TRANSPARENT, _all_symmetric),
}


def _plainly_diagonal(f: Facts, n: Node) -> bool:
    """I and diag(v) are diagonal."""
    return True


def _all_diagonal(f: Facts, n: Node) -> bool:
    """Sums, products, inverses, transposes and Kronecker products of diagonal matrices are diagonal."""
    return all(a.type.rank == 2 and f.diagonal(a) for a in n.args)


def _scaled_diagonal(f: Facts, n: Node) -> bool:
    """c A is diagonal when A is."""
    return f.diagonal(n.args[1])


_DIAGONAL: dict[str, Callable[[Facts, Node], bool]] = {
    "eye": _plainly_diagonal, "diag": _plainly_diagonal, "add": _all_diagonal, "prod": _all_diagonal,
    "inv": _all_diagonal, "t": _all_diagonal, "kron": _all_diagonal, "blkdiag": _all_diagonal,
    "scale": _scaled_diagonal, **dict.fromkeys(TRANSPARENT, _all_diagonal),
}


# ---------------------------------------------------------------- ranks


def _rank_of_product(f: Facts, n: Node) -> Any:
    """rank(A B) ≤ min(rank A, rank B)."""
    return sp.Min(*(f.rank(a) for a in n.args if a.type.rank == 2))


def _rank_of_sum(f: Facts, n: Node) -> Any:
    """rank(A + B) ≤ rank A + rank B;  the same for [A, B] and blkdiag(A, B)."""
    return sum((f.rank(a) for a in n.args), sp.Integer(0))


def _rank_kept(f: Facts, n: Node) -> Any:
    """rank(c A) ≤ rank A;  rank(Aᵀ) = rank A;  a part of A has at most its rank."""
    return f.rank(n.args[-1] if n.op == "scale" else n.args[0])


def _rank_one(f: Facts, n: Node) -> Any:
    """rank(u vᵀ) ≤ 1."""
    return sp.Integer(1)


def _rank_zero(f: Facts, n: Node) -> Any:
    """A matrix of one value has rank at most 1, 0 has rank 0."""
    return sp.Integer(0 if n.attrs[0] == 0 else 1)


def _rank_of_blocks(f: Facts, n: Node) -> Any:
    """rank(blkdiag(F)) = Σ rank Fᵢ."""
    return f.rank(n.args[0]) * product(n.args[0].type.family)


def _rank_of_kron(f: Facts, n: Node) -> Any:
    """rank(A ⊗ B) = rank A · rank B;  rank(A ⊙ B) ≤ rank A · rank B."""
    return f.rank(n.args[0]) * f.rank(n.args[1])


def _rank_of_series(f: Facts, n: Node) -> Any:
    """rank(Σᵢ Aᵢ) ≤ Σᵢ rank Aᵢ."""
    return f.rank(n.args[0]) * n.attrs[0].size


def _rank_of_scatter(f: Facts, n: Node) -> Any:
    """A matrix with c entries that are not 0 has rank at most c."""
    return sp.sympify(n.args[0].type.item[0])


_RANK: dict[str, Callable[[Facts, Node], Any]] = {
    "prod": _rank_of_product, "add": _rank_of_sum, "cat": _rank_of_sum, "blkdiag_of": _rank_of_sum, "scale": _rank_kept,
    "t": _rank_kept, "slice": _rank_kept, "take": lambda f, n: _rank_kept(f, n) if n.args[0].type.rank == 2 else
    sp.Min(*n.type.item), "inv": _rank_kept, "outer": _rank_one, "full": _rank_zero, "blkdiag": _rank_of_blocks,
    "kron": _rank_of_kron, "mul": _rank_of_kron, "sumloop": _rank_of_series, "scatter": _rank_of_scatter,
    **dict.fromkeys(TRANSPARENT, _rank_kept),
}


# ---------------------------------------------------------------- what a fresh adapter does


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a fresh adapter is the identity (None: neither proved nor refuted), and what the output is then."""

    holds: bool | None
    text: str


class AtStart(Simplifier):
    """The normal form with what only matters for fresh values: √a ⊙ √a = a, equal neighbours, all of an svd or a qr."""

    def mul(self, a: Node, c: Node) -> Node:
        """√a ⊙ √a = a, where the root exists;  c ⊙ a = c a where all entries of c are one number."""
        if a is c and a.op == "point" and a.attrs[0] == "sqrt":
            return a.args[0]
        for x, y in ((a, c), (c, a)):
            if x.op in ("const", "full") and b.fits(x.type.item, y.type.item) and not x.type.batch:
                return self.scale(self.g.const(x.attrs[0]), y)
        return super().mul(a, c)

    def _spread(self, c: Any, node: Node, into: list[tuple[Any, Node]]) -> None:
        """Tensors of one number are multiples of that of ones."""
        if node.op == "full" and not b.is_zero(node):
            into.append((c * node.attrs[0], b.full(self.g, 1, node.type)))
        else:
            super()._spread(c, node, into)

    def _pair(self, x: Node, y: Node) -> Node | None:
        """Q R = M for the parts of a qr;  Rᵀ Qᵀ = Mᵀ."""
        for first, second, flip in ((x, y, False), (y, x, True)):
            one, other = (_inner(first), _inner(second)) if flip else (first, second)
            if one is not None and other is not None and one.op == other.op == "out" and one.args[0] is other.args[0] \
                    and one.args[0].op == "qr" and (one.attrs[0], other.attrs[0]) == (0, 1):
                whole = one.args[0].args[0]
                return self.t(whole) if flip else whole
        if x.op == y.op == "perm" and self._opposite(x.args[0], y.args[0]):  # in a loop too
            return b.eye(self.g, x.type.item[0])
        return super()._pair(x, y)

    def _whole_svd(self, flat: list[Node]) -> list[Node] | None:
        """U diag(Σ) Vᵀ = A B for the first e triples, e the inner dimension of A B."""
        for k in range(len(flat) - 2):
            u, d, v = flat[k:k + 3]
            if u.op == v.op == "out" and d.op == "diag" and d.args[0].op == "out" and u.args[0] is v.args[0] \
                    and d.args[0].args[0] is u.args[0] and (u.attrs[0], d.args[0].attrs[0], v.attrs[0]) == (0, 1, 2):
                matrix, triples = u.args[0].args[0], u.args[0].attrs[0]
                if matrix.op == "prod" and any(same(f.type.item[0], triples) for f in matrix.args[1:]):
                    return [*flat[:k], matrix, *flat[k + 3:]]
        return super()._whole_svd(flat)

    def scale(self, s: Node, a: Node) -> Node:
        """0 a = 0;  1 a = a, also for numbers that are the same in each turn of a loop."""
        if b.is_zero(s):
            return b.zeros(self.g, b.scale(self.g, s, a).type)
        if s.op == "full" and s.attrs[0] == 1:
            return a
        return super().scale(s, a)

    def diag(self, v: Node) -> Node:
        """diag(c v) = c diag(v) for a number c."""
        if v.op == "scale" and v.args[0].op == "const":
            return self.scale(v.args[0], self.diag(v.args[1]))
        return super().diag(v)

    def sumloop(self, a: Node, axis: Any) -> Node:
        """Σᵢ 0 = 0."""
        whole = b.sumloop(self.g, a, axis)
        return b.zeros(self.g, whole.type) if b.is_zero(a) else super().sumloop(a, axis)

    def make(self, node: Node, args: tuple[Node, ...]) -> Node:
        """What is put together again from all its parts is the whole;  0 / a = 0;  expm(0) = I;

        H₁ H₀ = I for two equal reflections: a chain of them over rows that are equal in pairs is where it started.
        """
        match node.op:
            case "fold" if _paired_reflections(Facts(self.g), args[0], node.attrs[0]):
                return args[1]
            case "div" if b.is_zero(args[0]):
                return b.zeros(self.g, node.type)
            case "scatter" if b.is_zero(args[0]):
                return b.zeros(self.g, node.type)
            case "expm" if b.is_zero(args[0]):
                return b.eye(self.g, node.type.item[0])
            case "orthonormal" | "special_orthogonal" if args[0].op == "eye":
                return args[0]
            case "put" if args[1].op == "full":
                args = (args[0], self.g.const(args[1].attrs[0]), *args[2:])
            case "interleave":
                whole = _interleaved(args)
                if whole is not None and b.fits(whole.type.shape, node.type.shape):
                    return whole
            case "take":
                whole = _put_back(*args)
                if whole is not None and b.fits(whole.type.shape, node.type.shape):
                    return whole
            case _:
                pass
        return super().make(node, args)


def _interleaved(parts: Sequence[Node]) -> Node | None:
    """The z of z[0::k], z[1::k], … in turn."""
    whole: Node | None = None
    for k, p in enumerate(parts):
        source = p.args[0] if p.op == "stack" and p.attrs[1] == "item" else None
        if source is None or source.op != "take" or source.attrs != (1,) or source.args[1].op != "iota" \
                or source.args[1].attrs != (p.attrs[0], len(parts), k) \
                or (whole is not None and source.args[0] is not whole):
            return None
        whole = source.args[0]
    return whole


def _put_back(values: Node, index: Node) -> Node | None:
    """The z of z[i], z[j] end to end, taken by the inverse of the index i, j end to end."""
    if index.op != "inverse_index" or index.args[0].op != values.op or values.op != "cat":
        return None
    whole: Node | None = None
    for p, place in zip(values.args, index.args[0].args, strict=False):
        source = p.args[0] if p.op == "stack" and p.attrs[1] == "item" else None
        if source is None or source.op != "take" or source.attrs != (1,) or source.args[1].op != "column" \
                or place.op != "take" or place.args[1].op != "const" \
                or (whole is not None and source.args[0] is not whole):
            return None
        column = source.args[1]
        if column.args[0] is not place.args[0] or column.attrs != (p.attrs[0], place.args[1].attrs[0]):
            return None
        whole = source.args[0]
    return whole if len(values.args) == len(index.args[0].args) else None


def _inner(n: Node) -> Node | None:
    return n.args[0] if n.op == "t" else None


def _paired_reflections(f: Facts, step: Node, axis: Any) -> bool:
    """Whether every step is the reflection of a row of a tensor whose rows are equal in pairs, in order."""
    v = householder(f, step)
    while v is not None and v.op == "lying":
        v = v.args[0]
    return v is not None and v.op == "take" and v.args[0].op == "paired" and v.args[1].op == "iota" and \
        v.args[1].attrs == (axis, 1, 0) and _even(v.args[0].type.item[0]) and same(axis.size, v.args[0].type.item[0])


def _even(d: Any) -> bool:
    return bool(sp.sympify(d).is_even)


class Starts:
    """A typed program with every parameter replaced by what it starts as."""

    def __init__(self, typed: Elaborated, rules: Simplifier | None = None) -> None:
        self.typed, self.g = typed, typed.graph
        self.rules = AtStart(typed.graph)
        self._done: dict[int, Node] = {}
        self._kept: list[Node] = []

    def value(self, node: Node) -> Node:
        """The normal form of a value for fresh parameters; the node itself where there is none."""
        try:
            return self.rules(self.put_in(node))
        except Mismatch:
            return node

    def put_in(self, root: Node) -> Node:
        """The value with starts in the place of parameters; ``detach`` and ``drop`` do nothing to values."""
        for node in walk(root):
            if id(node) in self._done:
                continue
            args = tuple(self._done[id(a)] for a in node.args)
            if node.op == "param":
                made = self._start(node)
            elif node.op == "knob":
                made = self._default(node)
            elif node.op in ("detach", "drop"):
                made = args[0]
            else:
                made = node if args == node.args else self.g.node(node.op, args, node.attrs, node.type)
            self._done[id(node)] = made
            self._kept.append(node)
        return self._done[id(root)]

    def _start(self, leaf: Node) -> Node:
        p = self.typed.parameters.get(str(leaf.attrs[0]))
        if p is None:
            return leaf
        start = p.start
        if start.node is not None:
            self._done[id(leaf)] = leaf  # a start that mentions the tensor itself ends here
            return self.put_in(start.node)
        constant = {"zeros": 0, "ones": 1, "constant": start.numbers[0] if start.numbers else 0}
        if start.kind in constant and "unit_std" not in start.wrappers:
            return b.full(self.g, constant[start.kind], leaf.type)
        if "pairs" in start.wrappers:
            return self.g.node("paired", (leaf,), (), leaf.type)
        return leaf

    def _default(self, knob: Node) -> Node:
        """A knob as it stands before anyone turns it."""
        default = next((h.default for h in self.typed.method.hyper if h.name == knob.attrs[0]), None)
        return self.g.const(default.value) if isinstance(default, Number) else knob

    def fails(self, what: str, node: Node, facts: Facts) -> bool:
        """Whether a property is refuted by what the value starts as."""
        start = self.value(node)
        return start.type.rank == 2 and facts.refuted(what, start)

    # ------------------------------------------------------------ the identity

    def identity(self) -> Verdict:
        """Whether the output of a fresh adapter is that of the base alone."""
        output = self.typed.output
        if output.type.kind == "unknown":
            return Verdict(None, "")
        try:
            if output.op == "attn":
                return self._attention(output)
            return self._compared(output, self._base())
        except Mismatch:
            return Verdict(None, "")

    def _base(self) -> Node | None:
        typed, g = self.typed, self.g
        inputs = [x for x in walk(typed.output) if x.op == "input"]
        if typed.method.site == "hidden":
            return inputs[0] if inputs else None
        weight = next((n for n in [typed.names.get("W")] if n is not None and n.op == "weight"), None)
        weight = weight or next((x for x in walk(typed.output) if x.op == "weight"), None)
        if weight is None or not inputs:
            return None
        base = b.prod(g, weight, inputs[0])
        if not typed.mentions_bias:
            return base
        places = (typed.names.get("bias"), *walk(typed.output))
        bias = next((x for x in places if x is not None and x.op == "bias"), None)
        return base if bias is None else b.add(g, base, bias)

    def _compared(self, output: Node, base: Node | None) -> Verdict:
        start = self.value(output)
        text = formula(start, {id(n): name for name, n in self.typed.names.items() if n.op in ("out", "skew", "inv")})
        if base is None:
            return Verdict(False, text)
        minus = self.rules.scale(self.g.const(-1), self.rules(base))
        rest = self.rules.add([start, minus], start.type)
        if b.is_zero(rest):
            return Verdict(True, text)
        return Verdict(False if generic(rest) else None, text)

    def _attention(self, output: Node) -> Verdict:
        """q and k enter through qᵀ k, v and o through o v: each pair, or each alone, must be the base's."""
        given = dict(zip(output.attrs, (self.value(a) for a in output.args), strict=True))
        x = next((n for n in walk(output) if n.op == "input"), None)
        leaves = {str(n.attrs[0]): n for n in self.typed.names.values() if n.op in ("weight", "bias")}
        if x is None:
            return Verdict(None, "")
        one = b.cat(self.g, [x, b.full(self.g, 1, x.type.with_item((1,)))], 1)
        for first, second in (("q", "k"), ("v", "o")):
            parts = [r for r in (first, second) if r in given]
            if all(self._is_base(r, given[r], leaves, one) for r in parts):
                continue
            pair = self._pair_of(first, second, given, leaves, one)
            if pair is None or not self._vanish(*pair):
                return Verdict(None, "")
        return Verdict(True, "")

    def _extended(self, role: str, leaves: dict[str, Node]) -> Node:
        """[W, b] of q, k or v."""
        weight, bias = leaves[f"W_{role.upper()}"], leaves[f"b_{role.upper()}"]
        column = self.g.node("column_of", (bias,), (), b.typed((bias.type.item[0], 1), bias))
        return b.cat(self.g, [weight, column], 1)

    def _is_base(self, role: str, value: Node, leaves: dict[str, Node], one: Node) -> bool:
        base = leaves["W_O"] if role == "o" else b.prod(self.g, self._extended(role, leaves), one)
        return b.fits(value.type.shape, base.type.shape) and self._vanish(value, base)

    def _pair_of(self, first: str, second: str, given: dict[str, Node], leaves: dict[str, Node],
                 one: Node) -> tuple[Node, Node] | None:
        if first not in given or second not in given:
            return None
        one = self.rules(one)
        matrices = {}
        for role in (first, second):
            value = given[role]
            if role == "o":
                matrices[role] = value
            elif value.op == "prod" and value.args[-1] is one:
                matrices[role] = self.rules.prod(value.args[:-1])
            else:
                return None
        heads = leaves["W_Q"].type.family
        if first == "q":
            other = self._grouped(self._extended("k", leaves), heads)
            return (b.prod(self.g, b.t(self.g, matrices["q"]), matrices["k"]),
                    b.prod(self.g, b.t(self.g, self._extended("q", leaves)), other))
        return (b.prod(self.g, matrices["o"], matrices["v"]),
                b.prod(self.g, leaves["W_O"], self._grouped(self._extended("v", leaves), heads)))

    def _grouped(self, value: Node, heads: Sequence[Any]) -> Node:
        type_ = type(value.type)(value.type.item, tuple(heads), value.type.loops, value.type.row)
        return self.g.node("grouped", (value,), (heads[-1], value.type.rank), type_)

    def _vanish(self, a: Node, c: Node) -> bool:
        minus = self.rules.scale(self.g.const(-1), self.rules(c))
        return b.is_zero(self.rules.add([self.rules(a), minus], a.type))


def generic(node: Node) -> bool:
    """Whether a value is not 0 for almost all values of the tensors in it; False: not known."""
    known: dict[int, bool] = {}
    for n in walk(node):
        known[id(n)] = _generic(n, lambda a: known[id(a)])
    return known[id(node)]


def _generic(node: Node, generic: Callable[[Node], bool]) -> bool:
    """``generic`` of a node, from that of its arguments."""
    match node.op:
        case "param" | "weight" | "input" | "bias" | "eye" | "orthonormal" | "special_orthogonal" | "paired" | "knob":
            return True
        case "const" | "full":
            value = node.attrs[0]
            return bool(sp.sympify(value).is_zero is False) if not isinstance(value, (int, float)) else value != 0
        case "t" | "diag" | "slice" | "take" | "stack" | "reshape" | "view" | "skew" | "blkdiag" | "inv" | "sumsq" | \
                "expand" | "spread" | "lying" | "tile" | "repeat" | "kron" | "scatter":
            return generic(node.args[0]) and (node.op != "kron" or generic(node.args[1]))
        case "scale" | "prod" | "mul" | "outer":
            seen: set[str] = set()
            for k, factor in enumerate(node.args):
                own = _leaves(factor) - {"W"}
                gram = k and factor.op != node.args[k - 1].op and _inner(factor) in (node.args[k - 1], None) and (
                    _inner(factor) is node.args[k - 1] or _inner(node.args[k - 1]) is factor)  # Aᵀ A is 0 only with A
                if not generic(factor) or (own & seen and not gram):
                    return False
                seen |= own
            return True
        case "div":
            return generic(node.args[0])
        case "point":
            return node.attrs[0] in ("exp", "cos", "sigmoid", "softplus") or (node.attrs[0] in _ODD | {"sqrt", "abs"}
                                                                               and generic(node.args[0]))
        case "add":
            every = [_leaves(t) for t in node.args]
            for k, term in enumerate(node.args):
                others = set().union(*(e for j, e in enumerate(every) if j != k), set())
                if every[k] - others and generic(term):
                    return True
            return False
        case _:
            return False
