"""Symbolic axes of terms, as far as they are plain, and how far an index runs.

    axes_of(term, scope)                family and item axes where declarations say them
    range_of(reader, "i", body, …)      the n of range(n), from the axes that i indexes in a body
"""

from __future__ import annotations

from collections.abc import Sequence

from padp.compiler.names import terms as t
from padp.compiler.names.reading import Place, Reading, Uses
from padp.compiler.names.scope import Entry, Scope
from padp.compiler.names.signatures import REARRANGES
from padp.dsl import syntax as s
from padp.dsl.diagnostics import Related
from padp.dsl.source import Span


def axes_of(term: t.Term, scope: Scope) -> tuple[tuple[t.Term, ...] | None, tuple[t.Term, ...] | None]:
    """Family and item axes of a term, where declarations say them; None: not known."""
    match term:
        case t.Var(name=name):
            for entry in scope.value_of.values():
                if entry.name == name:
                    return entry.family, entry.item
            found = scope.find(name)
            return (None, None) if found is None else (found.family, found.item)
        case t.Number():
            return (), ()
        case t.Transpose(operand=operand):
            family, item = axes_of(operand, scope)
            return family, item[::-1] if item is not None and len(item) == 2 else None
        case t.Inverse(operand=operand) | t.Negate(operand=operand):
            return axes_of(operand, scope)
        case t.Call(function=function, args=args) if function not in REARRANGES:
            return _common_family(args, scope), None
        case t.Arith(left=left, right=right):
            return _common_family((left, right), scope), None
        case t.NormOf(operand=operand) | t.Magnitude(operand=operand) | t.Power(base=operand):
            return axes_of(operand, scope)[0], None
        case _:
            return None, None


def _common_family(parts: Sequence[t.Term], scope: Scope) -> tuple[t.Term, ...] | None:
    families = [axes_of(p, scope)[0] for p in parts]
    for family in families:
        if family:
            return family
    return None if None in families else ()


def item_of(reader: Reading, base: t.Term, items: tuple[t.Term | t.Range, ...], span: Span, scope: Scope) -> t.Term:
    """``base[items]``, and the note on which axes the indices stand."""
    family, item = axes_of(base, scope)
    axes = None if family is None else family if item is None else family + item
    for position, index in enumerate(items):
        if isinstance(index, t.Var) and index.name in reader.uses and axes is not None and position < len(axes):
            reader.uses[index.name].certain.append((axes[position], span))
    return t.Item(base, items, span)


def range_of(reader: Reading, index: str, body: s.Expr, scope: Scope, place: Place, span: Span) -> t.Term | None:
    """The n of range(n) that ``index`` runs over, found from the axes that it indexes in ``body``."""
    probe = scope.inner()
    probe.bind(Entry(index, "index", span))
    before, reader.uses[index] = reader.uses.get(index), Uses()
    reader.muted += 1
    try:
        reader.expr(body, probe, place)
        uses = reader.uses[index]
    finally:
        reader.muted -= 1
        del reader.uses[index]
        if before is not None:
            reader.uses[index] = before
    certain = dict(reversed(uses.certain))
    if len(certain) == 1:
        return next(iter(certain))
    if len(certain) > 1:
        places = list(certain.values())
        reader.report("E307", f"`{index}` indexes axes of different lengths", places[0],
                      related=[Related(p, "and here") for p in places[1:]],
                      suggestion=f"say which: {index} ∈ range(…)")
        return next(iter(certain))
    common: list[t.Term] = []
    if uses.possible:
        common = [size for size in dict.fromkeys(uses.possible[0])
                  if all(size in other for other in uses.possible)]
    if len(common) == 1:
        return common[0]
    if common:
        reader.report("E206", f"`{index}` can run over rows or columns: nothing says which", span,
                      suggestion=f"loop over it, `for {index} in range(r): …`, or write the slice, "
                                 f"`A_{{{index},:}}` or `A_{{:,{index}}}`")
        inner = [size for size in common if not (isinstance(size, t.Var) and size.name in ("m", "n"))]
        return (inner or common)[0]
    reader.report("E307", f"nothing says how far `{index}` runs", span, suggestion=f"{index} ∈ range(…)")
    return None
