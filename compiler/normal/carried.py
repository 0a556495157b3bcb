"""What a loop carries, inside its steps: a mark there stands for the starts and the steps of its name.

    Carried(roots).depends(node, test)      whether anything below a node passes, seen through the marks
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from padp.compiler.ir.nodes import Node, walk


class Carried:
    """The steps and starts of all loops below some values, by name and axis."""

    def __init__(self, *roots: Node) -> None:
        self._made: dict[tuple[Any, ...], tuple[Node, Node]] = {}
        for n in walk(*roots):
            if n.op == "loop":
                axis, *names = n.attrs
                self._made |= {(name, axis): (n.args[2 * k], n.args[2 * k + 1]) for k, name in enumerate(names)}

    def depends(self, root: Node, test: Callable[[Node], bool]) -> bool:
        """Whether any node that ``root`` is made of passes the test."""
        seen: set[int] = set()
        waiting = [root]
        while waiting:
            node = waiting.pop()
            if id(node) in seen:
                continue
            if test(node):
                return True
            seen.add(id(node))
            waiting += node.args
            if node.op == "carry":
                waiting += self._made.get(node.attrs, ())
        return False
