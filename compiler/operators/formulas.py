"""IR nodes as people write them: ``h + Rᵀ @ b``. For messages; what has a name is called by it.

    formula(node, {id(node): name}) -> text
"""

from __future__ import annotations

from collections.abc import Mapping

import sympy as sp

from padp.compiler.ir.dims import show
from padp.compiler.ir.nodes import Node
from padp.compiler.operators.table import OPERATORS

LONGEST = 120
"""Formulas longer than this are cut off."""

_SUM, _PRODUCT, _ATOM = 0, 1, 2
_TRANSPARENT = ("orthonormal", "special_orthogonal", "assumed", "lying", "expand", "spread", "detach", "paired")
_SPELLED = {"blkdiag_of": "blkdiag", "iota": "arange"}
_NAMED = ("param", "weight", "bias", "input", "knob", "undeclared", "text", "carry")


def formula(node: Node, names: Mapping[int, str] | None = None) -> str:
    """The node in the notation of the language, as far as it has one."""
    text = _text(node, names or {}, _SUM, 12)
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


def _text(node: Node, names: Mapping[int, str], level: int, depth: int) -> str:
    """``level``: a sum may stand bare, a product may, or only an atom; ``depth``: how much further down to go."""
    name = names.get(id(node))
    if name is not None:
        return name
    if depth == 0:
        return "…"
    if node.op in _TRANSPARENT and len(node.args) == 1:
        return _text(node.args[0], names, level, depth)
    text, own = _written(node, names, depth - 1)
    return f"({text})" if own < level else text


def _written(node: Node, names: Mapping[int, str], depth: int) -> tuple[str, int]:
    def part(a: Node, level: int) -> str:
        return _text(a, names, level, depth)

    match node.op, node.args:
        case op, () if op in _NAMED:
            return str(node.attrs[0]), _ATOM
        case "param", _:
            return str(node.attrs[0]), _ATOM
        case "const", _:
            value = show(node.attrs[0])
            return value, _SUM if isinstance(node.attrs[0], sp.Add) else _ATOM
        case "eye", _:
            return "I", _ATOM
        case "full", _:
            value = show(node.attrs[0])
            if value == "0" or not node.type.rank:
                return value, _ATOM
            ones = f"ones({', '.join(show(d) for d in node.type.item)})"
            return (ones, _ATOM) if value == "1" else (f"{value} · {ones}", _PRODUCT)
        case "add", terms:
            text = ""
            for term in terms:
                negative = term.op == "scale" and term.args[0].op == "const" and term.args[0].attrs[0] == -1
                body = part(term.args[1], _PRODUCT) if negative else part(term, _SUM if not text else _PRODUCT)
                text += (f" - {body}" if negative else f" + {body}") if text else (f"-{body}" if negative else body)
            return text, _SUM
        case "scale", (s, a) if s.op == "const" and s.attrs[0] == -1:
            return f"-{part(a, _PRODUCT)}", _SUM
        case "scale", (s, a):
            return f"{part(s, _ATOM)} · {part(a, _ATOM)}", _PRODUCT
        case ("prod" | "dotted"), factors:
            return " @ ".join(part(f, _ATOM) for f in factors), _PRODUCT
        case "mul", (a, c):
            return f"{part(a, _ATOM)} ⊙ {part(c, _ATOM)}", _PRODUCT
        case "div", (a, c):
            return f"{part(a, _ATOM)} / {part(c, _ATOM)}", _PRODUCT
        case "outer", (a, c):
            return f"{part(a, _ATOM)} {part(c, _ATOM)}ᵀ", _PRODUCT
        case "t", (a,):
            return f"{part(a, _ATOM)}ᵀ", _ATOM
        case "inv", (a,):
            return f"{part(a, _ATOM)}⁻¹", _ATOM
        case "pow", (a,):
            return f"{part(a, _ATOM)}^{show(node.attrs[0])}", _ATOM
        case "point", (a,) if node.attrs and node.attrs[0] == "sqrt" and a.op == "sumsq":
            axis = {"all": "", "row": "_row", "col": "_col"}[str(a.attrs[0])]
            return f"‖{part(a.args[0], _SUM)}‖{axis}", _ATOM
        case "point", (a,) if node.attrs:
            return f"{node.attrs[0]}({part(a, _SUM)})", _ATOM
        case "sumsq", (a,):
            return f"‖{part(a, _SUM)}‖²", _ATOM
        case "out", (whole,):
            return f"{whole.op}({part(whole.args[0], _SUM)}){'₁₂₃'[int(node.attrs[0])]}", _ATOM
        case "slice", (a,):
            axis, start, stop, _ = node.attrs
            before = ":," if axis == -1 and node.type.rank == 2 else ""
            return f"{part(a, _ATOM)}_{{{before}{show(start)}:{show(stop)}}}", _ATOM
        case "reduce", (a,):
            kind, axis = str(node.attrs[0]), str(node.attrs[1]) if len(node.attrs) > 1 else "all"
            return f"{kind}{'' if axis == 'all' else '_' + axis}({part(a, _SUM)})", _ATOM
        case ("kron" | "kron_vectors"), (a, c):
            return f"{part(a, _ATOM)} ⊗ {part(c, _ATOM)}", _PRODUCT
        case "dot", (a, c):
            return f"{part(a, _ATOM)}ᵀ @ {part(c, _ATOM)}", _PRODUCT
        case "take", (a, *index):
            return f"{part(a, _ATOM)}_{{{', '.join(part(i, _SUM) for i in index)}}}", _ATOM
        case "sumloop", (a,):
            return f"Σ {part(a, _ATOM)}", _PRODUCT
        case "loop", _:
            return "…", _ATOM
        case ("put" | "write"), (a, *_):
            return part(a, _ATOM), _ATOM
        case "cat", args:
            below = node.type.rank == 1 or node.attrs[0] in (0, -2)
            return f"[{('; ' if below else ', ').join(part(a, _SUM) for a in args)}]", _ATOM
        case op, args if op in OPERATORS:
            return f"{op}({', '.join(part(a, _SUM) for a in args)})", _ATOM
        case op, args if op in _SPELLED:
            return f"{_SPELLED[op]}({', '.join(part(a, _SUM) for a in args)})", _ATOM
        case _, (a,):  # moved, repeated or cut in a way that has no notation
            return part(a, _ATOM), _ATOM
        case _, args:
            return f"[{', '.join(part(a, _SUM) for a in args)}]", _ATOM
