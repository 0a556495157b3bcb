"""What the header of a program says: hyperparameters, the site and what it binds, sizes, relations, options.

    adapter NAME(r = 8) on linear(W ∈ ℝ^{m×n}, …) where n = b·k
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from padp.compiler.names import terms as t
from padp.compiler.names.expressions import Reader
from padp.compiler.names.given import GIVEN
from padp.compiler.names.scope import Entry, Scope, key, nearest, walk
from padp.compiler.names.signatures import signature
from padp.compiler.names.spaces import read_space, size_names
from padp.dsl import syntax as s
from padp.dsl.diagnostics import Related

SITES = ("linear", "hidden", "attention")
OPTIONS = {"linear": (), "hidden": ("positions", "layers"), "attention": ()}


def read_hyperparameters(reader: Reader, header: s.Header | None, scope: Scope) -> tuple[t.Hyperparameter, ...]:
    """The header's numbers and words, with their defaults."""
    made: list[t.Hyperparameter] = []
    for h in header.hyper if header is not None else ():
        if scope.find(h.name) is not None:
            reader.report("E205", f"`{h.name}` already has a meaning", h.span, suggestion="another name")
            continue
        default: t.Term | None
        match h.default:
            case None:
                default = None
            case s.Text(value=value, span=span):
                default = t.Text(value, span)
            case given:
                default = reader.expr(given, scope, "size")
        made.append(t.Hyperparameter(h.name, default, h.knob, h.span))
        scope.bind(Entry(h.name, "number", h.span, (), ()))
    return tuple(made)


def read_bindings(reader: Reader, header: s.Header | None) -> list[s.Binding]:
    """The site's bindings as written, or its usual ones."""
    site = reader.site
    span = s.NOWHERE if header is None else header.span
    if header is not None and header.site not in SITES:
        close = nearest(header.site, SITES)
        reader.report("E204", f"there is no site `{header.site}`", header.span,
                      suggestion=f"on {close[0] if close else 'linear(W ∈ ℝ^{m×n})'}",
                      notes=[f"sites: {', '.join(SITES)}"])
    given = list(header.bindings) if header is not None and header.site in SITES else []
    if given:
        _refuse_calculated_sizes(reader, given)
        _refuse_given_sizes(reader, header, given)
        return given

    def real(dims: str, family: str = "") -> s.Space:
        return s.Space("ℝ", tuple(s.Name(d, span) for d in dims), tuple(s.Name(f, span) for f in family), span)

    match site:
        case "linear":
            usual = [("W", real("mn"))]
        case "hidden":
            usual = [("h", real("d"))]
        case _:
            usual = [("W_Q", real("ed", "H")), ("W_K", real("ed", "G")), ("W_V", real("ed", "G")),
                     ("W_O", real("de", "H"))]
    return [s.Binding(name, space, span) for name, space in usual]


def _refuse_calculated_sizes(reader: Reader, bindings: Sequence[s.Binding]) -> None:
    """E204 for a size of the layer that is no name: the layer gives it, and a relation says what it is."""
    for binding in bindings:
        for size in (*binding.space.dims, *binding.space.family):
            if not isinstance(size, s.Name):
                reader.report("E204", f"the sizes of `{binding.name}` are names, which the layer gives numbers",
                              size.span, suggestion=f"{binding.name} ∈ ℝ^{{m×n}}, and a relation, where m = …")


def _refuse_given_sizes(reader: Reader, header: s.Header | None, bindings: Sequence[s.Binding]) -> None:
    """E202 for a hyperparameter with the name of a size that the layer gives."""
    sizes = {key(d.text): d.span for x in bindings for d in (*x.space.dims, *x.space.family)
             if isinstance(d, s.Name)}
    for h in header.hyper if header is not None else ():
        if key(h.name) in sizes:
            reader.report("E202", f"`{h.name}` is a size of the layer and a hyperparameter", h.span,
                          suggestion="leave it out of the header: the layer gives its sizes",
                          related=[Related(sizes[key(h.name)], "the size")])


def bind_sizes(header: s.Header | None, bindings: Sequence[s.Binding], body: Sequence[s.Statement],
               scope: Scope) -> None:
    """Dimensions are what stands in the spaces and relations of a program; they have no order."""
    assigned = _assigned_names(body)
    spaces = [x.space for x in bindings]
    spaces += [x.space for x in walk(tuple(body)) if isinstance(x, s.Declare)]
    for space in spaces:
        dims = (*space.dims, *space.family)
        if len(dims) == 1 and isinstance(dims[0], s.Name) and key(dims[0].text) in assigned:
            continue  # ℝ^Ω: an index set
        _bind_names(dims, scope)
    for relation in header.relations if header is not None else ():
        sides = (relation.left, relation.right) if isinstance(relation, s.Compare) else (relation.operand,)
        _bind_names(sides, scope)


def _bind_names(dims: Iterable[s.Expr], scope: Scope) -> None:
    """A name in a size is a number, unless it has a meaning already."""
    for name in size_names(dims):
        if scope.find(name.text) is None and signature(name.text) is None:
            scope.bind(Entry(name.text, "number", name.span, (), ()))


def _assigned_names(body: Sequence[s.Statement]) -> set[str]:
    """Keys of names that some statement binds."""
    found: set[str] = set()
    for node in walk(tuple(body)):
        if isinstance(node, s.Assign):
            for target in node.targets:
                head = target.head if isinstance(target, s.Chain) else target
                if isinstance(head, s.Name):
                    found.add(key(head.text))
    return found


def provided(reader: Reader, bindings: Sequence[s.Binding], scope: Scope) -> tuple[t.Bound, ...]:
    """What the site provides: the tensors it names, and those that follow from their shapes."""
    site = reader.site
    made: dict[str, t.Bound] = {}
    allowed = GIVEN[site]
    renamed: tuple[str, str] | None = None
    for binding in bindings:
        found = scope.find(binding.name)
        if binding.name not in allowed:
            reader.report("E204", f"{site} has no `{binding.name}` to bind", binding.span,
                          suggestion=f"write `{allowed[0]}`: {site} binds {', '.join(allowed)}" if site != "attention"
                          else f"{site} binds {', '.join(allowed)}")
            if site != "attention" and allowed[0] not in made and found is None:  # no more to say of its sizes
                made[allowed[0]] = t.Bound(allowed[0], read_space(reader, binding.space, scope), binding.span)
                renamed = (binding.name, allowed[0])
        elif binding.name in made:
            reader.report("E205", f"`{binding.name}` is bound twice", binding.span,
                          related=[Related(made[binding.name].span, "first here")])
        elif found is not None:
            reader.report("E202", f"`{binding.name}` is a dimension and a tensor", binding.span,
                          related=[Related(found.span, "a number here")], suggestion="another letter for one of them")
        else:
            made[binding.name] = t.Bound(binding.name, read_space(reader, binding.space, scope), binding.span)

    def derive(name: str, source: str, dims: slice, keep_family: bool = True) -> None:
        whole = made.get(source)
        if whole is not None and name not in made:
            family = whole.space.family if keep_family else ()
            space = t.SpaceTerm("ℝ", whole.space.dims[dims], family, None, whole.span)
            made[name] = t.Bound(name, space, whole.span)

    if site == "linear":
        whole = made.get("W")
        if whole is not None and (len(whole.space.dims) != 2 or whole.space.family or whole.space.kind != "ℝ"):
            reader.report("E204", "the weight of a linear layer is one matrix", whole.span,
                          suggestion="linear(W ∈ ℝ^{m×n})")
        derive("x", "W", slice(-1, None))
        derive("bias", "W", slice(0, 1))
    elif site == "attention":
        for letter in "QKV":
            derive(f"b_{letter}", f"W_{letter}", slice(0, 1))
            derive("x", f"W_{letter}", slice(-1, None), keep_family=False)
        derive("b_O", "W_O", slice(0, 1), keep_family=False)
    for tensor in made.values():
        scope.bind(Entry(tensor.name, "tensor", tensor.span, tensor.space.family, tensor.space.dims))
    if renamed is not None:
        scope.alias(*renamed)
    return tuple(made.values())


def read_relations(reader: Reader, header: s.Header | None, scope: Scope) -> tuple[t.Test, ...]:
    """What ``where`` says."""
    return tuple(reader.test(r, scope) for r in (header.relations if header is not None else ()))


def read_options(reader: Reader, header: s.Header | None, scope: Scope) -> tuple[tuple[str, t.Term], ...]:
    """What the site is told: positions and layers of a hidden state."""
    made: list[tuple[str, t.Term]] = []
    for word, value in header.options if header is not None else ():
        known = OPTIONS[reader.site]
        if word not in known:
            reader.report("E204", f"the site {reader.site} has no option {word}", value.span,
                          suggestion=f"options: {', '.join(known)}" if known else None)
        elif word in dict(made):
            reader.report("E205", f"{word} is given twice", value.span)
        elif isinstance(value, s.Text):
            made.append((word, t.Text(value.value, value.span)))
        else:
            made.append((word, reader.expr(value, scope, "size")))
    return tuple(made)
