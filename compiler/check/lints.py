"""What is allowed and yet probably not meant: W301 to W312, and the identity at the start.

    flow_lints(method), function_lints(body, method)    on the statements: ``lints_of_names``
    value_lints(typed)       on the typed program: starts here, ``lints_of_sums``, ``lints_of_products``
    (``lints_of_gradients``  on all its cases: what training never moves)
    start_lints(typed)       whether a fresh adapter changes nothing
    letter_lints(source)     on the text
    quotients(method)        on the terms: ``lints_of_quotients``

Every lint is a general rule; none knows an adapter.
"""

from __future__ import annotations

import re

from padp.compiler.check.lints_of_products import other_axis, redundant
from padp.compiler.check.lints_of_sums import cancelling
from padp.compiler.elaborate.state import Elaborated
from padp.compiler.facts.defined import steep_at_zero, undefined
from padp.compiler.facts.fresh import Starts
from padp.compiler.ir.build import is_zero
from padp.compiler.ir.nodes import depends, walk
from padp.compiler.operators.formulas import formula
from padp.dsl.diagnostics import Diagnostic
from padp.dsl.source import Source, Span
from padp.dsl.spellings import look_alikes

# ---------------------------------------------------------------- W309: letters


def letter_lints(source: Source) -> list[Diagnostic]:
    """W309: letters that were read as another one, each once."""
    found: dict[str, Diagnostic] = {}
    for at, glyph, usual in look_alikes(source.text):
        found.setdefault(glyph, Diagnostic(
            "W309", f"`{glyph}` (U+{ord(glyph):04X}) is read as `{usual}` (U+{ord(usual):04X})", Span(at, at + 1),
            source, suggestion=f"`{usual}`"))
    return list(found.values())


# ---------------------------------------------------------------- W304, W307, W308, W311: values


def value_lints(typed: Elaborated, sound: bool) -> list[Diagnostic]:
    """W304, W307, W308 and (where the program is ``sound``) W311 of one typed program."""
    roots = [typed.output] + ([typed.penalty] if typed.penalty is not None else [])
    roots += [] if sound else [node for _, node, _ in typed.history]
    at_start = _without_value(typed) if sound else []
    return [*at_start, *redundant(typed), *cancelling(typed, roots),
            *other_axis(typed, roots)]


def _without_value(typed: Elaborated) -> list[Diagnostic]:
    """W311: an operation that has no finite value, or no finite derivative, at what a fresh adapter starts from."""
    starts = Starts(typed)
    roots = [typed.output] + ([typed.penalty] if typed.penalty is not None else [])
    nowhere = next((n for n in (undefined(starts.value, root) for root in roots) if n is not None), None)
    if nowhere is not None:
        said, node = "has no finite value", nowhere
    else:
        steep = next((n for n in walk(*roots) if steep_at_zero(n) and is_zero(starts.value(n.args[0]))
                      and depends(n.args[0], lambda a: a.op == "param" and a.attrs[-1] == "learned")), None)
        if steep is None:
            return []
        said, node = "has an infinite derivative, and training starts with nan", steep
    return [Diagnostic("W311", f"a fresh adapter starts at a place where `{formula(node)}` {said}", node.span,
                       typed.method.source, suggestion="another init")]


# ---------------------------------------------------------------- W305: the start


_NOT_IDENTITY = re.compile(r"\bnot\s+(?:be\s+)?the\s+identity\b", re.IGNORECASE)


def start_lints(typed: Elaborated, comments: str) -> list[Diagnostic]:
    """W305 where a fresh adapter provably changes the layer, N401 where it is not proved that it does not.

    ``comments``: those of the program; one that says "not the identity" settles it.
    """
    if _NOT_IDENTITY.search(comments) or typed.output.op == "missing":
        return []
    verdict = Starts(typed).identity()
    if verdict.holds is True:
        return []
    name = typed.method.output
    span = next((where for n, _, where in reversed(typed.history) if n == name), typed.method.span)
    if verdict.holds is False:
        return [Diagnostic("W305", f"a fresh adapter is not the identity: {verdict.start(name)}", span,
                           typed.method.source,
                           suggestion="other starts, or a comment that says it: # not the identity at init: …")]
    return [Diagnostic("N401", "no rule proves that a fresh adapter is the identity", span, typed.method.source,
                       suggestion="padp check --numerics tests it")]
