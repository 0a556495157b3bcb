"""What a program's kept values and starts are computed from, and whether it matters that the base is trained.

    roots(compiled)   W, the bias and the frozen tensors below what is computed once
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from padp.compiler.graph.stages import Leaf, leaf_key
from padp.compiler.ir.nodes import walk
from padp.compiler.plan.steps import order

if TYPE_CHECKING:
    from padp.compiler.graph.compile import Compiled


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


def roots(compiled: Compiled) -> Roots:
    """What a program's kept values and starts were computed from."""
    base: dict[Leaf, None] = {}
    frozen: dict[str, None] = {}
    for low in order(*compiled.kept):
        if low.prim in ("weight", "bias"):
            base[leaf_key(low)] = None
        elif low.prim == "param":
            frozen[str(low.args[0])] = None
    for p in compiled.parameters.values():
        for node in () if p.start.node is None else walk(p.start.node):
            if node.op in ("weight", "bias"):
                base[node.op, str(node.attrs[0])] = None
    penalty = () if compiled.penalty is None else compiled.penalty.outputs
    reads = any(low.prim in ("weight", "bias") for low in order(*compiled.outputs, *penalty))
    detaches = any(node.op == "detach" for node in walk(compiled.typed.output))
    return Roots(tuple(base), tuple(frozen), bool(base or frozen) or reads or detaches)
