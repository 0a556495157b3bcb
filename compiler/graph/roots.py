"""What a program's kept values and starts are computed from, and whether it matters that the base is trained.

    roots(kept, starts, plan, output)   W, the bias and the frozen tensors below what is computed once
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from padp.compiler.graph.stages import Leaf, leaf_key
from padp.compiler.ir.nodes import Node, walk
from padp.compiler.plan.steps import Low, order


@dataclass(frozen=True)
class Roots:
    """What an adapter reads beside x and its learned tensors.

    ``base``: W, the bias, or an attention's by name, where something was computed from them. ``frozen``: declared
    tensors that kept values were computed from. ``minds``: whether it matters that W itself is trained: it is read
    beside the base layer's own product, or something is detached.
    """

    base: tuple[Leaf, ...]
    frozen: tuple[str, ...]
    minds: bool


def roots(kept: Sequence[Low], starts: Iterable[Node], plan: Sequence[Low], output: Node) -> Roots:
    """What ``kept`` values and ``starts`` are computed from; ``plan``: everything that is computed at a call."""
    base: dict[Leaf, None] = {}
    frozen: dict[str, None] = {}
    for low in order(*kept):
        if low.prim in ("weight", "bias"):
            base[leaf_key(low)] = None
        elif low.prim == "param":
            frozen[str(low.args[0])] = None
    for start in starts:
        for node in walk(start):
            if node.op in ("weight", "bias"):
                base[node.op, str(node.attrs[0])] = None
    reads = any(low.prim in ("weight", "bias") for low in order(*plan))
    detaches = any(node.op == "detach" for node in walk(output))
    return Roots(tuple(base), tuple(frozen), bool(base or frozen) or reads or detaches)
