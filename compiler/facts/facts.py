"""What is known of values from their structure.

    Facts(graph).holds("orthogonal", node)      True when a rule proves it, False when one refutes it, else None
    Facts(graph).rank(node)                     a bound that a rule proves

The rules are in ``orthogonality``, ``symmetry``, ``ranks`` and ``determinants``, one an operator. A property that no
rule of an operator proves is looked for in the normal form: A is antisymmetric when the normal forms of Aᵀ and −A are
one node.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from padp.compiler.facts.determinants import sign
from padp.compiler.facts.orthogonality import ORTHONORMAL
from padp.compiler.facts.ranks import RANK
from padp.compiler.facts.symmetry import ANTISYMMETRIC, DIAGONAL, SYMMETRIC
from padp.compiler.ir import build as b
from padp.compiler.ir.build import Mismatch
from padp.compiler.ir.dims import least, lower, same
from padp.compiler.ir.nodes import Graph, Node
from padp.compiler.normal.normal_form import Simplifier
from padp.compiler.operators.asking import Side


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

    def step_keeps(self, side: Side, carried: Sequence[Node], step: Node) -> bool:
        """Whether a step of a loop is orthonormal where what the loop carries is: the step of an induction.

        Where it is not, what was concluded from the hypothesis is forgotten with it.
        """
        before = dict(self._known)
        self._known |= {(side, id(x)): True for x in carried}
        self._kept += carried
        holds = self.orthonormal(step, side)
        if not holds:
            self._known = before
        return holds

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
            rule = ORTHONORMAL.get(node.op)
            return rule is not None and rule(self, node, side)

        return bool(self._once(side, node, made, False))

    def antisymmetric(self, node: Node) -> bool:
        """Aᵀ = −A."""
        def made() -> bool:
            rule = ANTISYMMETRIC.get(node.op)
            if rule is not None and rule(self, node):
                return True
            normal = self.normal(node)
            return self._vanishes(lambda: self.rules.add([self.rules.t(normal), normal], node.type))

        return node.type.rank == 2 and same(*node.type.item) and bool(self._once("antisymmetric", node, made, False))

    def symmetric(self, node: Node) -> bool:
        """Aᵀ = A."""
        def made() -> bool:
            rule = SYMMETRIC.get(node.op)
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
            rule = DIAGONAL.get(node.op)
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
            largest = least(*node.type.item)
            rule = RANK.get(node.op)
            found = rule(self, node) if rule is not None else largest
            return lower(least(found, largest))

        return self._once("rank", node, made, lower(least(*node.type.item)))


def _halves(g: Graph, node: Node) -> Iterator[tuple[Node, Node]]:
    """The ways to read a product as one of two factors."""
    if node.op == "prod" and node.type.rank == 2:
        for k in range(1, len(node.args)):
            yield b.prod(g, *node.args[:k]), b.prod(g, *node.args[k:])


def _free(v: Node) -> bool:
    return v.op == "param"
