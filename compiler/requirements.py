"""What a program asks of the sizes beyond its relations: that indices and slices stay inside their axes.

    unmet(method, sizes) -> [Diagnostic]      r ≤ min(m, n) does not hold: r is 8, min(m, n) is 5

They are found while the program is typed for all sizes, and settled where the sizes are known.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sympy as sp

from padp.compiler.counting import declarations
from padp.compiler.dims import show, written_out
from padp.compiler.sizes import both
from padp.compiler.terms import Method
from padp.dsl.diagnostics import Diagnostic


def unmet(method: Method, sizes: Mapping[str, Any], where: str = "") -> list[Diagnostic]:
    """E501 for each requirement that these sizes and hyperparameters break, each once."""
    found: list[Diagnostic] = []
    told: set[tuple[Any, Any]] = set()
    for left, right, span in declarations(method).requirements:
        low, high = (written_out(sp.sympify(x)) for x in (left, right))
        if (low, high) in told:
            continue
        told.add((low, high))
        names = sorted({str(x) for x in low.free_symbols | high.free_symbols})
        if any(n not in sizes for n in names):
            continue
        a, c = (x.subs({s: sizes[str(s)] for s in x.free_symbols}) for x in (low, high))
        if (a <= c) != sp.false:
            continue
        here = ", ".join(f"{n} = {sizes[n]}" for n in names)
        at = f" at {where}" if where else ""
        said = both((show(low), a), (show(high), c))
        found.append(Diagnostic("E501", f"{show(low)} ≤ {show(high)} does not hold{at}: {said}", span, method.source,
                                notes=(f"here {here}",)))
    return found
