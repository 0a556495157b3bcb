"""From typed IR to tensor operations: a planner with what every operator knows."""

from __future__ import annotations

from padp.compiler.ir.nodes import Graph, Node
from padp.compiler.plan import blocks
from padp.compiler.plan.applied import APPLIED
from padp.compiler.plan.planner import Planner
from padp.compiler.plan.search import Regime
from padp.compiler.plan.values import VALUES


def planner(g: Graph, weight: Node | None, regime: Regime, *, has_bias: bool = True, base_moves: bool = False
            ) -> Planner:
    """A planner for one program: ``weight`` is W where there is one; choices start from what is best in ``regime``.

    ``base_moves``: W and the bias are trained too, so nothing is kept that was computed from them.
    """
    return Planner(g, weight, VALUES, APPLIED, blocks, regime, has_bias=has_bias, base_moves=base_moves)
