"""What is allowed and yet probably not meant: W301 to W312, and the identity at the start.

    flow_lints(method), function_lints(body, method)    on the statements: ``name_lints``
    value_lints(typed)       on the typed program: gradients here, ``cancelling`` terms, ``product_lints``
    start_lints(typed)       whether a fresh adapter changes nothing
    letter_lints(source)     on the text
    quotients(method)        on the terms: ``quotient_lints``

Every lint is a general rule; none knows an adapter.
"""

from __future__ import annotations

import re

from padp.compiler.build import is_zero
from padp.compiler.cancelling import cancelling
from padp.compiler.defined import steep_at_zero, undefined
from padp.compiler.formulas import formula
from padp.compiler.ir import depends, walk
from padp.compiler.name_lints import reads
from padp.compiler.product_lints import other_axis, redundant
from padp.compiler.starts import Starts
from padp.compiler.state import Elaborated
from padp.compiler.stuck import stuck
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


# ---------------------------------------------------------------- W303, W304, W307, W308: values


def value_lints(typed: Elaborated, sound: bool) -> list[Diagnostic]:
    """W303 (where the program is ``sound``), W304, W307 and W308 of one typed program."""
    roots = [typed.output] + ([typed.penalty] if typed.penalty is not None else [])
    roots += [] if sound else [node for _, node, _ in typed.history]
    at_start = [*_without_gradient(typed), *_without_value(typed)] if sound else []
    return [*at_start, *redundant(typed), *cancelling(typed, roots),
            *other_axis(typed, roots)]


_WITHOUT_DERIVATIVE = frozenset({"detach", "topk", "argtop", "largest"})


def _without_gradient(typed: Elaborated) -> list[Diagnostic]:
    """W303: a learned tensor that reaches the output only where no gradient passes."""
    roots = [typed.output] + ([typed.penalty] if typed.penalty is not None else [])
    present = {str(n.attrs[0]) for n in walk(*roots) if n.op == "param"}
    seen: set[int] = set()
    moved: set[str] = set()
    stack = list(roots)
    while stack:
        node = stack.pop()
        if id(node) in seen or node.op in _WITHOUT_DERIVATIVE or (node.op == "point" and node.attrs[:1] == ("sign",)):
            continue
        if node.op == "scale" and is_zero(node.args[0]):
            continue
        seen.add(id(node))
        if node.op == "param":
            moved.add(str(node.attrs[0]))
        stack.extend(node.args)
    read = reads(typed.method, (typed.method.body, typed.method.minimise, typed.method.updates,
                                tuple(q.init for q in typed.method.parameters)))
    found: list[Diagnostic] = []
    for name, p in typed.parameters.items():
        if p.declaration.role == "learned" and name not in moved and name in read:
            why = "it reaches the output only through detach, a factor 0 or what has no derivative" if name in present \
                else "it does not reach the output"
            found.append(Diagnostic("W303", f"`{name}` gets no gradient: {why}", p.declaration.span,
                                    typed.method.source, suggestion="frozen, if that is meant"))
    said = {d.message.split("`")[1] for d in found}
    still = [name for name in stuck(typed) if name not in said]
    for name in still:
        other = ", ".join(f"`{n}`" for n in still if n != name)
        why = f"where it stands it is multiplied by {other}, which is 0 as well" if other \
            else "there the derivative of what it is part of is 0"
        found.append(Diagnostic("W303", f"`{name}` gets no gradient: it starts at 0, and {why}",
                                typed.parameters[name].declaration.span, typed.method.source,
                                suggestion="let one of them start elsewhere, init = kaiming or init = 1"))
    return found


def _without_value(typed: Elaborated) -> list[Diagnostic]:
    """W311: an operation that has no finite value, or no finite derivative, at what a fresh adapter starts from."""
    starts = Starts(typed)
    roots = [typed.output] + ([typed.penalty] if typed.penalty is not None else [])
    nowhere = next((n for n in (undefined(starts.value, root) for root in roots) if n is not None), None)
    if nowhere is not None:
        said, node = "has no finite value there", nowhere
    else:
        steep = next((n for n in walk(*roots) if steep_at_zero(n) and is_zero(starts.value(n.args[0]))
                      and depends(n.args[0], lambda a: a.op == "param" and a.attrs[-1] == "learned")), None)
        if steep is None:
            return []
        said, node = "has an infinite derivative there, and training starts with nan", steep
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
