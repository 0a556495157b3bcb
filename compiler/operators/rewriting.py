"""What a rewrite rule may ask of the normal form that it is a part of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from padp.compiler.ir.nodes import Graph, Node, Type


class Rewriting(Protocol):
    """The rules of the normal form, each applied to arguments that are in it; ``rules.Simplifier`` has them."""

    g: Graph

    def make(self, node: Node, args: tuple[Node, ...]) -> Node: ...

    def for_each(self, a: Node, family: tuple[Any, ...]) -> Node: ...

    def add(self, terms: Sequence[Node], type_: Type) -> Node: ...

    def scale(self, s: Node, a: Node) -> Node: ...

    def prod(self, factors: tuple[Node, ...]) -> Node: ...

    def t(self, a: Node) -> Node: ...

    def diag(self, v: Node) -> Node: ...

    def slice(self, a: Node, axis: int, start: Any, stop: Any, step: Any) -> Node: ...

    def detach(self, a: Node) -> Node: ...
