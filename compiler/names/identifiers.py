"""What a name in an expression means: itself, an indexed name, a slice of the capital letter's matrix.

    W, Vᵀ       bound as it stands, or the transpose of a name bound with ᵀ
    v_i         item i of v;  aᵢ with a unbound: the row or column of A along the axis that has i's range
    A           declared by a comment only: taken over as a hypothesis
"""

from __future__ import annotations

from dataclasses import replace

from padp.compiler.names import terms as t
from padp.compiler.names.comment_declarations import Hypothesis
from padp.compiler.names.given import GIVEN
from padp.compiler.names.index_ranges import axes_of, item_of
from padp.compiler.names.reading import Place, Reading
from padp.compiler.names.scope import Entry, Scope, key, split
from padp.compiler.names.signatures import signature
from padp.compiler.names.spaces import parameter_entry, read_initial, read_space
from padp.dsl.source import Span

_OF_THE_FORWARD = frozenset().union(*GIVEN.values())


def read_name(reader: Reading, text: str, span: Span, scope: Scope, place: Place) -> t.Term:
    """A name as written: itself, an indexed name, a slice of the capital letter's matrix."""
    parts = split(text)
    if parts is not None and assume_family(reader, text, *parts, span, scope):
        return item_of(reader, t.Var(parts[0], span), (t.Var(parts[1], span),), span, scope)
    whole = whole_name(reader, text, span, scope, place)
    if whole is not None:
        return whole
    if parts is not None:
        base, sub = parts
        index = index_of(sub, span, scope)
        if index is None and key(text) in _OF_THE_FORWARD:  # b_Q at a linear layer is no slice of B
            reader.undeclared(text, span, scope, place)
            return t.Var(text, span)
        indexed = indexed_name(reader, base, index, sub, span, scope, place)
        if indexed is not None:
            return indexed
        if index is not None and isinstance(index, t.Var) and place != "size":
            reader.undeclared(base, span, scope, place)
            return t.Item(t.Var(base, span), (index,), span)
    if signature(text) is not None or text in reader.functions:
        reader.report("E209", f"`{text}` is a function and stands here without an argument", span,
                      suggestion=f"{text}(…)")
        return t.Var(text, span)
    reader.undeclared(text, span, scope, place)
    return t.Var(text, span)


def whole_name(reader: Reading, text: str, span: Span, scope: Scope, place: Place) -> t.Term | None:
    """A whole bound name, also as the transpose of a name bound with ᵀ, or one that a comment declares."""
    found = reader.entry(text, scope, place)
    if found is not None:
        if place == "update" and found.name in _OF_THE_FORWARD and key(text) not in reader.declared_at:
            reader.report("E210", f"`{found.name}` belongs to the forward pass: after backward there are parameters "
                                  "and their gradients", span, once=f"{found.name} after backward",
                          suggestion="leave it out, or keep what is needed in a parameter")
        if found.kind == "number" and key(text) in reader.sizes and not reader.in_space:
            reader.report("E201", f"`{text}` has no value", span, once=key(text),
                          suggestion=f"give it one in the header: adapter NAME({text} = 8)")
        return t.Var(found.name, span)
    flipped = scope.find(text + "ᵀ")
    if flipped is not None:
        return t.Transpose(t.Var(flipped.name, span), span)
    found = assume(reader, text, span, scope)
    return None if found is None else t.Var(found.name, span)


def index_of(sub: str, span: Span, scope: Scope) -> t.Term | None:
    """A subscript as an index: a number, or a bound dimension or loop index."""
    if sub.isdecimal():
        return t.Number(int(sub), span)
    found = scope.find(sub)
    return t.Var(found.name, span) if found is not None and found.kind in ("number", "index") else None


def indexed_name(reader: Reading, base: str, index: t.Term | None, sub: str, span: Span, scope: Scope,
                 place: Place) -> t.Term | None:
    """``aᵢ``: item i of a, or row or column i of A; None when neither a nor A is known."""
    if index is not None:
        whole = whole_name(reader, base, span, scope, place)
        if whole is not None:
            return item_of(reader, whole, (index,), span, scope)
    if base.upper() == base or not base.islower():
        return None
    matrix = whole_name(reader, base.upper(), span, scope, place)
    if matrix is None:
        return None
    return row_or_column(reader, matrix, base, index, sub, span, scope)


def row_or_column(reader: Reading, matrix: t.Term, base: str, index: t.Term | None, sub: str, span: Span,
                  scope: Scope) -> t.Term:
    """``aᵢ`` with i unbound by name a: the slice of A along the axis whose dimension is i's range."""
    capital = base.upper()
    if index is None:
        reader.report("E206", f"`{sub}` of `{base}_{sub}` is not an index here", span, once=f"{base}_{sub}",
                      suggestion=f"sum or loop over it, `Σ_{{{sub} ∈ range(r)}} …`, or say the slice: "
                                 f"`{capital}_{{:,{sub}}}` is a column, `{capital}_{{{sub},:}}` a row")
        return t.Item(matrix, (t.Range(None, None, None, span), t.Var(sub, span)), span)
    _, item = axes_of(matrix, scope)
    if item is None or len(item) != 2:
        reader.report("E206", f"`{base}_{sub}`: {capital} is not a declared matrix, so which slice is meant is open",
                      span, suggestion=f"`{capital}_{{{sub},:}}` is a row, `{capital}_{{:,{sub}}}` a column")
        return item_of(reader, matrix, (index,), span, scope)
    uses = reader.uses.get(index.name) if isinstance(index, t.Var) else None
    if uses is not None:
        uses.possible.append(item)
        return t.Item(matrix, (index,), span)
    entry = scope.find(index.name) if isinstance(index, t.Var) else None
    size = None if entry is None else entry.size
    fits = [k for k in (0, 1) if size is not None and item[k] == size]
    if len(fits) != 1:
        why = "both are" if fits else "none is known to be"
        reader.report("E206", f"`{base}_{sub}` can be a row or a column of {capital}: the one whose length is the "
                              f"range of {sub} is meant, and {why}", span,
                      suggestion=f"`{capital}_{{{sub},:}}` is a row, `{capital}_{{:,{sub}}}` a column")
    axis = fits[0] if len(fits) == 1 else 0
    colon = t.Range(None, None, None, span)
    return item_of(reader, matrix, (index,) if axis == 0 else (colon, index), span, scope)


def assume(reader: Reading, text: str, span: Span, scope: Scope) -> Entry | None:
    """Take a declaration from a comment, because the name is used and declared nowhere."""
    found = reader.hypotheses.get(key(text))
    if found is None:
        return None
    parts = split(text)
    if parts is not None and scope.find(parts[0]) is not None and index_of(parts[1], span, scope) is not None:
        return None  # v_i with v declared: the comment speaks of an item of v
    name = found.name
    if name not in reader.assumed:
        space = read_space(reader, found.space, scope)
        parameter = t.Parameter(name, space, found.role, found.shared, _assumed_init(reader, found), None, found.span)
        reader.assumed[name] = (parameter, found, span)
    parameter = reader.assumed[name][0]
    made = parameter_entry(parameter)
    scope.bind(made)
    return made


def assume_family(reader: Reading, text: str, base: str, sub: str, span: Span, scope: Scope) -> bool:
    """``# d_i ∈ ℝ^r`` and a sum or loop over i: d is a family; True when base_sub is to be read as its item."""
    index = scope.find(sub)
    if index is None or index.kind != "index" or scope.find(text) is not None:
        return False
    known = reader.assumed.get(base)
    if known is not None and known[1] is reader.hypotheses.get(key(text)) is not None:
        scope.bind(parameter_entry(known[0]))
        return True
    found = reader.hypotheses.get(key(text))
    if found is None or scope.find(base) is not None:
        return False
    length = index.size or t.Var(next(c for c in "NMLFJS" if scope.find(c) is None or c == "N"), span)
    if isinstance(length, t.Var) and scope.find(length.name) is None:
        scope.bind(Entry(length.name, "number", span, (), ()))
    space = read_space(reader, found.space, scope)
    space = replace(space, family=(length, *space.family))
    parameter = t.Parameter(base, space, found.role, found.shared, _assumed_init(reader, found), None, found.span)
    size = length.name if isinstance(length, t.Var) else "N"
    shape = found.text.split("∈", 1)[1].split(":", 1)
    line = replace(found, text=f"{base} ∈ ({shape[0].strip()})^{size}:{shape[1]}")
    reader.hypotheses[key(text)] = line
    reader.assumed[base] = (parameter, line, span)
    scope.bind(parameter_entry(parameter))
    return True


def _assumed_init(reader: Reading, found: Hypothesis) -> t.Term | None:
    return None if found.init is None else read_initial(reader, found.init, Scope())
