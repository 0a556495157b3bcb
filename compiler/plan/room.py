"""How much memory a program may ask for: entries are known from the sizes, before anything is made.

    declared(typed)          the tensors of an adapter, and its index sets
    planned(typed, roots)    what a plan builds, for each token or once

An adapter is small beside its layer. What is many times as large as the layer's weight, and larger than any adapter of
a paper, is refused with E105: a size has a mistake in it, and making the tensor would take the machine down.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from padp.compiler.elaborate.state import Elaborated
from padp.compiler.ir.dims import product, show
from padp.compiler.ir.nodes import walk
from padp.compiler.plan.steps import LEAVES, VIEWS, Low, copies, order
from padp.dsl.diagnostics import PadpError, refuse
from padp.dsl.limits import MAX_ENTRIES, MAX_PLACES, MAX_TIMES_WEIGHT
from padp.dsl.source import Span


def declared(typed: Elaborated) -> None:
    """E105 where the declared tensors together, or an index set, are too large."""
    allowed = _allowed(typed)
    total = 0
    for name, p in typed.parameters.items():
        size = product(p.stored)
        total += size if isinstance(size, int) else 0
        if total > allowed:
            raise _refusal(typed, f"`{name}`, with what is declared before it,", total, allowed, p.declaration.span)
    starts = (p.start.node for p in typed.parameters.values())
    for node in walk(typed.output, *(n for n in (typed.penalty, *starts) if n is not None)):
        if node.type.kind == "index":
            size = product(node.type.item)
            if isinstance(size, int) and size > MAX_PLACES:
                raise _refusal(typed, "this index set", size, MAX_PLACES, node.span)


def planned(typed: Elaborated, roots: Iterable[Low]) -> None:
    """E105 where a tensor that a plan builds is too large; those for tokens are counted for one of them."""
    allowed = _allowed(typed)
    for low in order(*roots):
        if low.prim in LEAVES or low.prim == "choice" or (low.prim in VIEWS and not copies(low)):
            continue
        size = product(d for d in low.dims if isinstance(d, int))
        if size > allowed:
            raise _refusal(typed, "a tensor that is built here", size, allowed, low.span)


def _allowed(typed: Elaborated) -> int:
    weights = [product(n.type.shape) for n in typed.names.values() if n.op == "weight"]
    largest = max((w for w in weights if isinstance(w, int)), default=0)
    return max(MAX_ENTRIES, MAX_TIMES_WEIGHT * largest)


def _refusal(typed: Elaborated, what: str, size: Any, allowed: int, span: Span) -> PadpError:
    here = ", ".join(f"{n} = {show(v)}" for n, v in sorted(typed.sizes.items()) if isinstance(v, int))
    return refuse("E105", f"too large: {what} has {size} entries; at most {allowed} are made at this layer", span,
                  source=typed.method.source, notes=(f"here {here}",) if here else (),
                  suggestion="a smaller size or count")

