"""A plan with ways of our choosing, for tests that take every way."""

from __future__ import annotations

from collections.abc import Mapping

from padp.compiler.plan.search import Estimate, Regime, rebuilt
from padp.compiler.plan.steps import Low, Table


def built_with(table: Table, picks: Mapping[int, int], root: Low) -> Low:
    """``root`` with the ways that ``picks`` says, the first where it says nothing."""
    return rebuilt(table, Estimate(Regime("any", 1, True), dict(picks)), root, {})
