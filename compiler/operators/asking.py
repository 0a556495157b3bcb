"""What a rule about structure may ask of the parts of a value.

A rule of orthogonality, symmetry, ranks or determinants sees the parts of a value only through these questions, so
that none of them needs to know who answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Protocol

from padp.compiler.ir.nodes import Graph, Node

Side = Literal["rows", "columns"]
TRANSPARENT = frozenset({"detach", "expand", "spread", "repeat", "grouped", "lying"})  # the same items, elsewhere


class Questions(Protocol):
    """The questions that a rule may put about the parts of a value; ``properties.Facts`` answers them."""

    g: Graph

    def orthogonal(self, node: Node) -> bool: ...

    def orthonormal(self, node: Node, side: Side) -> bool: ...

    def antisymmetric(self, node: Node) -> bool: ...

    def symmetric(self, node: Node) -> bool: ...

    def diagonal(self, node: Node) -> bool: ...

    def rank(self, node: Node) -> Any: ...

    def normal(self, node: Node) -> Node: ...

    def step_keeps(self, side: Side, carried: Sequence[Node], step: Node) -> bool: ...


def is_item(n: Node) -> bool:
    """Whether a take or a slice chooses items of a family and leaves them whole."""
    source = n.args[0]
    axis = n.attrs[0] if n.op == "take" else -n.attrs[0]
    return source.type.rank == n.type.rank == 2 and isinstance(axis, int) and axis > 2
