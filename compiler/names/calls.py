"""Calls in an expression: their arguments, whether they fit, and what looks like a call and is none.

    read_call(reader, "svd", (W), …)    the call, its arguments read as sizes or as values
    made_call(reader, "exp", …)         a call of what is read already, checked against the function's signature
    unknown_function, member            f(…) with f nothing at all; model.layer[l]
"""

from __future__ import annotations

from collections.abc import Sequence

from padp.compiler.names import terms as t
from padp.compiler.names.glued import product
from padp.compiler.names.identifiers import index_of
from padp.compiler.names.index_ranges import axes_of
from padp.compiler.names.reading import Place, Reading
from padp.compiler.names.remedies import along_an_axis
from padp.compiler.names.scope import Scope, key, nearest, split
from padp.compiler.names.signatures import (
    AFTER_BACKWARD_ONLY,
    ATTENTION_PARTS,
    Signature,
    builtin_names,
    canonical,
    signature,
)
from padp.compiler.operators.table import OPERATORS
from padp.dsl import syntax as s
from padp.dsl.source import Span

# What people coming from Python or from papers write, and how it is written here.
_HABITS = {
    "σ": "sigmoid(e)", "norm": "‖v‖, ‖M‖_row, ‖M‖_col or ‖M‖_F", "inv": "A⁻¹", "inverse": "A⁻¹", "transpose": "Aᵀ",
    "matmul": "A @ B", "mm": "A @ B", "dot": "uᵀ @ v", "dropout": "drop(e, p)", "cat": "[A, B] or [A; B]",
    "concat": "[A, B] or [A; B]", "vstack": "[A; B]", "hstack": "[A, B]", "identity": "I, or eye(n)", "pow": "a^2",
    "block_diag": "blkdiag(A, B)", "view": "reshape(e, p, q)", "real": "Re(e)", "imag": "Im(e)",
    "stop_gradient": "detach(e)", "sg": "detach(e)", "matrix_exp": "expm(M)", "ReLU": "relu(e)", "GELU": "gelu(e)",
    "SiLU": "silu(e)", "swish": "silu(e)", "t": "Aᵀ",
    "avg": "mean(M), mean_row(M) or mean_col(M)", "average": "mean(M), mean_row(M) or mean_col(M)",
    "amax": "max(M), max_row(M) or max_col(M)", "amin": "min(M), min_row(M) or min_col(M)", "fabs": "abs(e)",
    "absolute": "abs(e)", "clip": "clamp(e, lo, hi)", "fmax": "maximum(a, b)", "fmin": "minimum(a, b)",
}
_OVER_AXES = ("sum", "mean", "max", "min")
_AXIS_WORDS = {"dim", "axis", "keepdim", "keepdims"}
_A_LOOP = "a product over an index is a loop: `R ← I`, `for i in range(r): R ← H_i @ R`"


def read_call(reader: Reading, name: str, args: s.Args, span: Span, scope: Scope, place: Place) -> t.Term:
    """``f(…)`` with f a function."""
    name = canonical(name) if name not in reader.functions else name
    given = list(args.args)
    keywords = list(args.kwargs)
    if name == "attn":
        given = [a for a in given if not isinstance(a, s.Dots)]
        keywords = [*zip(ATTENTION_PARTS, given, strict=False), *keywords]
        given = given[len(ATTENTION_PARTS) :]
    elif any(isinstance(a, s.Dots) for a in given):
        given = [_family_of(reader, name, given, span)]
    inner: Place = place
    if name in ("range", "ones", "zeros", "eye", "floor", "ceil", "log2", "arange", "band", "sample", "pairs",
                "halves", "tree", "neighbours", "butterfly", "cubic"):
        inner = "size"
    read: list[t.Term] = []
    for position, a in enumerate(given):
        if name == "scatter" and position == 1 and isinstance(a, s.Name) and reader.is_free(a.text, scope):
            reader.report("E201", f"`{a.text}` is not declared", a.span, once=key(a.text),
                          suggestion=f"{a.text} ← sample(m, n, count, seed)")
        numeric = position > 0 and name in ("reshape", "tile", "repeat", "grouped", "blocks", "topk", "argtop",
                                            "largest", "drop", "ema")
        read.append(reader.expr(a, scope, "size" if numeric else inner))
    named: list[tuple[str, t.Term]] = []
    for word, value in keywords:
        named.append((word, _keyword(reader, name, word, value, scope, place)))
    if _refuse_axis(reader, name, read, named, span, scope):
        read, named = read[:1], []
    return made_call(reader, name, tuple(read), tuple(named), span, place)


def _refuse_axis(reader: Reading, name: str, read: Sequence[t.Term], named: Sequence[tuple[str, t.Term]], span: Span,
                 scope: Scope) -> bool:
    """E209 for the ``sum(M, 1)``, ``mean(M, dim=0)`` of array libraries; True when it was one."""
    if name not in _OVER_AXES or name in reader.functions or not read or {word for word, _ in named} - _AXIS_WORDS:
        return False
    if not named and (len(read) != 2 or name in ("max", "min")):
        return False
    axes = [*read[1:2], *(value for word, value in named if not word.startswith("keep"))]
    item = axes_of(read[0], scope)[1]
    reader.report("E209", f"{name} takes no axis: the axis is part of the function's name", span,
                  suggestion=along_an_axis(name, reader.source.slice(read[0].span), None if item is None else len(item),
                                           reader.source.slice(axes[0].span) if axes else None))
    return True


def _keyword(reader: Reading, function: str, word: str, value: s.Expr, scope: Scope, place: Place) -> t.Term:
    """A keyword argument: ``shape=(m, n)`` is a call of ``tuple``, ``over=model`` a word."""
    match function, word, value:
        case "scatter", "shape", s.TupleOf(items=items, span=span):
            return t.Call("tuple", tuple(reader.expr(i, scope, "size") for i in items), (), span)
        case "keep", "over", s.Name(text="model", span=span):
            return t.Text("model", span)
        case "keep", "over", _:
            reader.report("E204", "keep ranks over = model", value.span, suggestion="over = model")
            return t.Text("model", value.span)
        case "svd", "rank", _:
            return reader.expr(value, scope, "size")
        case _:
            return reader.expr(value, scope, place)


def _family_of(reader: Reading, function: str, args: Sequence[s.Expr], span: Span) -> s.Expr:
    """``R₁, ..., R_b`` is R."""
    bases: set[str] = set()
    for a in args:
        parts = split(a.text) if isinstance(a, s.Name) else None
        if parts is None and isinstance(a, s.Chain) and isinstance(a.head, s.Name) and len(a.trailers) == 1:
            parts = (a.head.text, "") if isinstance(a.trailers[0], s.Indexed) else None
        if not isinstance(a, s.Dots):
            bases.add(parts[0] if parts is not None else "")
    if len(bases) == 1 and "" not in bases:
        return s.Name(bases.pop(), span)
    reader.report("E209", f"`...` in {function}: the members of one family stand on both sides of it", span,
                  suggestion=f"{function}(R₁, ..., R_b)")
    return next((a for a in args if not isinstance(a, s.Dots)), s.Number(0, span))


def made_call(reader: Reading, name: str, args: tuple[t.Term, ...], kwargs: tuple[tuple[str, t.Term], ...], span: Span,
              place: Place) -> t.Term:
    """The call, checked against the function's signature and against where it stands."""
    name = canonical(name) if name not in reader.functions else name
    if name in reader.functions:
        count = reader.functions[name]
        _check_arguments(reader, name, Signature((count, count)), len(args), kwargs, span)
        if name in reader.training and place not in ("update", "function"):
            reader.report("E210", f"{name} reads gradients or keeps a state: it is known only after backward", span,
                          suggestion="put it under `after backward:`")
        return t.Call(name, args, kwargs, span)
    known = signature(name)
    assert known is not None
    _check_arguments(reader, name, known, len(args), kwargs, span)
    if name in AFTER_BACKWARD_ONLY and place not in ("update", "function"):
        reader.report("E210", f"{name} is for updates", span, suggestion="put it under `after backward:`")
    if name == "range":
        reader.report("E210", "range is for loops and sums", span, suggestion="arange(n) is the vector 0 … n − 1")
    if name == "attn" and reader.site != "attention":
        reader.report("E210", "attn is for the attention site", span, once="attn",
                      suggestion="adapter NAME on attention(W_Q ∈ (ℝ^{e×d})^H, …)")
    return t.Call(name, args, kwargs, span)


def _check_arguments(reader: Reading, name: str, known: Signature, count: int, kwargs: Sequence[tuple[str, t.Term]],
                     span: Span) -> None:
    """E209 for a wrong number of arguments or an unknown keyword."""
    low, high = known.arity
    form = OPERATORS[name].signature if name in OPERATORS and name not in reader.functions else None
    if not low <= count <= high:
        wanted = str(low) if low == high else f"{low} to {high}"
        if name in ("max", "min") and count > high:
            form = f"two at a time: {name}({name}(a, b), c) of sizes, {name}imum({name}imum(a, b), c) entry by entry"
        reader.report("E209", f"{name} takes {wanted} argument{'' if wanted == '1' else 's'}, not {count}", span,
                      suggestion=form)
    seen: set[str] = set()
    for word, value in kwargs:
        if word in seen:
            reader.report("E209", f"{name}: {word} is given twice", value.span)
        elif word not in known.keywords:
            reader.report("E209", f"{name} has no argument called {word}", value.span,
                          suggestion=f"it has {', '.join(known.keywords)}" if known.keywords else form)
        seen.add(word)


def unknown_function(reader: Reading, head: s.Name, args: s.Args, scope: Scope, place: Place) -> bool:
    """Report ``f(…)`` where f is nothing at all; True when it was so."""
    parts = split(head.text)
    if not reader.is_free(head.text, scope) or (parts is not None and not reader.is_free(parts[0], scope)):
        return False
    if parts is not None and index_of(parts[1], head.span, scope) is not None:
        return False
    if place == "size" and len(args.args) == 1:
        return False  # k(k-1)/2 with k unknown
    close = nearest(head.text, [*builtin_names(), *reader.functions])
    reader.report("E203", f"there is no function `{head.text}`", head.span, once=key(head.text),
                  suggestion=f"write `{glued} @ …`" if (glued := product(head.text, scope)) is not None else
                  _A_LOOP if parts is not None and parts[0] == "Π" else
                  _HABITS[head.text] if head.text in _HABITS else
                  f"did you mean {' or '.join(close)}?" if close else
                  f"define it, `{head.text}(e) ← …`, or declare the tensor `{head.text}`")
    return True


def member(reader: Reading, e: s.Chain) -> t.Term:
    """``model.layer[l].output[pos]``: the language has no attributes."""
    text = reader.source.slice(e.span) or "…"
    members = [x.name for x in e.trailers if isinstance(x, s.Member)]
    known = next((name for name in members if signature(name) is not None), None)
    habit = next((name for name in members if name in _HABITS), None)
    if known is not None:
        suggestion = f"{known}(e)"
    elif habit is not None:
        suggestion = _HABITS[habit]
    elif isinstance(e.head, s.Name) and e.head.text in ("np", "torch", "F", "nn", "math"):
        suggestion = "an operator or a function of the language; `padp explain E203` shows how they are called"
    elif reader.site == "hidden":
        suggestion = "the site binds the hidden state as h"
    else:
        suggestion = "a hidden state is a site: `adapter NAME on hidden(h ∈ ℝ^d)`"
    reader.report("E510", f"`{text}` is not known: the language has no attributes of Python objects", e.span,
                  suggestion=suggestion, once=text)
    return t.Var(text, e.span)
