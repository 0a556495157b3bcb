"""Syntax tree → resolved program: every name gets its meaning, one variant is chosen.

    resolve(program, source, variant) -> Method             raises PadpError with all findings
    resolve_leniently(program, source, variant) -> (Method, findings)

Both read in the same way. A name that is declared nowhere is reported and stays a ``Var``; when a comment of the
program gives its shape it becomes a parameter by hypothesis, so that shapes can be checked all the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import lru_cache
from importlib.resources import files
from typing import Literal

from padp.compiler import terms as t
from padp.compiler.calls import AFTER_BACKWARD_ONLY, RANDOM, signature
from padp.compiler.expressions import Reader
from padp.compiler.hypotheses import hypotheses
from padp.compiler.ranges import axes_of, range_of
from padp.compiler.reading import Place
from padp.compiler.scope import Entry, Scope, key, nearest, nowhere, plain, split, walk
from padp.compiler.spaces import parameter_entry, read_initial, read_space, size_names
from padp.dsl import syntax as s
from padp.dsl.diagnostics import Diagnostic, PadpError, Related
from padp.dsl.parse import parse
from padp.dsl.source import Source, Span

SITES = ("linear", "hidden", "attention")
ROLES = ("learned", "frozen", "shared", "init", "seed")
OPTIONS = {"linear": (), "hidden": ("positions", "layers"), "attention": ()}
LONGEST_EXPANSION = 20_000  # terms of a function after all functions in it are written out
_NOWHERE = Span(0, 0)


def list_variants(program: s.Program) -> tuple[str, ...]:
    """The variants of a program, the default first."""
    return tuple(dict.fromkeys(x.name for x in program.body if isinstance(x, s.Variant)))


def body_of(program: s.Program, variant: str | None) -> list[s.Statement]:
    """The statements of one variant: the common ones in their order, with the variant's own in their place."""
    body: list[s.Statement] = []
    taken = False
    for statement in program.body:
        match statement:
            case s.Variant(name=name, body=inner):
                if name == variant and not taken:
                    body.extend(inner)
                    taken = True
            case s.Common(body=inner):
                body.extend(inner)
            case _:
                body.append(statement)
    return body


def resolve(program: s.Program, source: Source, variant: str | None = None,
            prelude: s.Program | None = None) -> t.Method:
    """The method that a program describes; ``PadpError`` holds everything that is wrong with its names."""
    method, findings = resolve_leniently(program, source, variant, prelude)
    if any(d.severity == "error" for d in findings):
        raise PadpError(findings)
    return method


def resolve_leniently(program: s.Program, source: Source, variant: str | None = None,
                      prelude: s.Program | None = None) -> tuple[t.Method, list[Diagnostic]]:
    """The method as far as it can be read, and what is wrong with its names. Never raises on a program."""
    resolver = _Resolver(program, source, variant, load_prelude() if prelude is None else prelude)
    try:
        return resolver.method(), resolver.reader.findings
    except RecursionError:
        too_deep = Diagnostic("E105", "this program is nested too deeply", program.span, source)
        header = program.header
        empty = t.Method("block" if header is None else header.name, "", "linear", None, (), (), (), (), (), (), (), (),
                         (), "y", source, program.span)
        return empty, [*resolver.reader.findings, too_deep]


@lru_cache(maxsize=1)
def load_prelude() -> s.Program:
    """The functions that are written in the language itself."""
    text = files("padp.stdlib").joinpath("prelude.padp").read_text(encoding="utf-8")
    return parse(Source.of(text, "prelude.padp"))


def title_of(source: Source) -> str:
    """The first comment that stands on a line of its own, up to a run of spaces (what follows is a reference)."""
    for line in source.text.splitlines():
        if line.lstrip().startswith("#"):
            words = line.strip().lstrip("#").strip(" ─-=")
            return words.split("   ")[0].strip()
    return ""


class _Resolver:
    """One run over one program."""

    def __init__(self, program: s.Program, source: Source, variant: str | None, prelude: s.Program) -> None:
        self.program, self.source, self.prelude = program, source, prelude
        header = program.header
        site = "linear" if header is None else header.site
        self.reader = Reader(source, site if site in SITES else "linear", hypotheses(program.body, source))
        self.reader.declared_at = {key(n.text): n.span for x in walk(tuple(program.body)) if isinstance(x, s.Declare)
                                   for n in x.names}
        self.report = self.reader.report
        self.variant = self.chosen_variant(variant)
        self.body = body_of(program, self.variant)
        self.parameters: list[t.Parameter] = []
        self.minimise: list[t.Term] = []
        self.updates: list[t.Step] = []
        self.definitions: dict[str, tuple[tuple[str, ...], s.Expr, Span, bool]] = {}
        self.assigned: dict[str, int] = {}
        self.readers: list[tuple[str, t.Term, int]] = []  # what must not change later: minimise, init
        self.clock = 0

    # ------------------------------------------------------------ the whole

    def method(self) -> t.Method:
        """Header, sizes, declarations and statements, functions, output: in this order."""
        header = self.program.header
        scope = Scope()
        for constant in ("I", "π"):
            scope.bind(Entry(constant, "constant", _NOWHERE))
        hyper = self.hyperparameters(header, scope)
        bindings = self.bindings(header)
        self.bind_sizes(header, bindings, scope)
        bound = self.bound(bindings, scope)
        relations = self.relations(header, scope)
        options = self.options(header, scope)
        self.collect_functions(scope)
        self.two_meanings(scope)
        site_scope = scope.inner()
        steps: list[t.Step] = []
        self.block(self.body, scope, steps, "value", ())
        output = self.output(steps, scope)
        self.parameters.extend(p for p, _, _ in self.reader.assumed.values())
        functions = self.functions(site_scope, steps)
        self.changed_after_use()
        self.report_assumed()
        return t.Method(
            name="block" if header is None else header.name,
            title=title_of(self.source),
            site=self.reader.site,
            variant=self.variant,
            hyper=hyper,
            bound=bound,
            relations=relations,
            options=options,
            parameters=tuple(self.parameters),
            functions=functions,
            body=tuple(steps),
            minimise=tuple(self.minimise),
            updates=tuple(self.updates),
            output=output,
            source=self.source,
            span=self.program.span,
        )

    def chosen_variant(self, wanted: str | None) -> str | None:
        names = list_variants(self.program)
        seen: dict[str, Span] = {}
        for x in self.program.body:
            if isinstance(x, s.Variant):
                if x.name in seen:
                    self.report("E205", f"variant {x.name} is there twice", x.span,
                                related=[Related(seen[x.name], "first here")])
                seen.setdefault(x.name, x.span)
        if wanted is None or wanted in names:
            return wanted if wanted is not None else (names[0] if names else None)
        span = self.program.span if self.program.header is None else self.program.header.span
        known = f"its variants are {', '.join(names)}" if names else "it has no variants"
        self.report("E208", f"there is no variant {wanted}: {known}", span)
        return names[0] if names else None

    # ------------------------------------------------------------ header

    def hyperparameters(self, header: s.Header | None, scope: Scope) -> tuple[t.Hyperparameter, ...]:
        made: list[t.Hyperparameter] = []
        for h in header.hyper if header is not None else ():
            if scope.find(h.name) is not None:
                self.report("E205", f"`{h.name}` already has a meaning", h.span, suggestion="another name")
                continue
            default: t.Term | None
            match h.default:
                case None:
                    default = None
                case s.Text(value=value, span=span):
                    default = t.Text(value, span)
                case given:
                    default = self.reader.expr(given, scope, "size")
            made.append(t.Hyperparameter(h.name, default, h.knob, h.span))
            scope.bind(Entry(h.name, "number", h.span, (), ()))
        return tuple(made)

    def bindings(self, header: s.Header | None) -> list[s.Binding]:
        """The site's bindings as written, or its usual ones."""
        site = self.reader.site
        span = _NOWHERE if header is None else header.span
        if header is not None and header.site not in SITES:
            close = nearest(header.site, SITES)
            self.report("E204", f"there is no site `{header.site}`", header.span,
                        suggestion=f"on {close[0] if close else 'linear(W ∈ ℝ^{m×n})'}",
                        notes=[f"sites: {', '.join(SITES)}"])
        given = list(header.bindings) if header is not None and header.site in SITES else []
        if given:
            self.refuse_given_sizes(header, given)
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

    def refuse_given_sizes(self, header: s.Header | None, bindings: Sequence[s.Binding]) -> None:
        """E202 for a hyperparameter with the name of a size that the layer gives."""
        sizes = {key(d.text): d.span for x in bindings for d in (*x.space.dims, *x.space.family)
                 if isinstance(d, s.Name)}
        for h in header.hyper if header is not None else ():
            if key(h.name) in sizes:
                self.report("E202", f"`{h.name}` is a size of the layer and a hyperparameter", h.span,
                            suggestion="leave it out of the header: the layer gives its sizes",
                            related=[Related(sizes[key(h.name)], "the size")])

    def assigned_names(self) -> set[str]:
        """Keys of names that some statement binds."""
        found: set[str] = set()
        for node in walk(tuple(self.body)):
            if isinstance(node, s.Assign):
                for target in node.targets:
                    head = target.head if isinstance(target, s.Chain) else target
                    if isinstance(head, s.Name):
                        found.add(key(head.text))
        return found

    def bind_sizes(self, header: s.Header | None, bindings: Sequence[s.Binding], scope: Scope) -> None:
        """Dimensions are what stands in the spaces and relations of a program; they have no order."""
        assigned = self.assigned_names()
        spaces = [x.space for x in bindings]
        spaces += [x.space for x in walk(tuple(self.body)) if isinstance(x, s.Declare)]
        for space in spaces:
            dims = (*space.dims, *space.family)
            if len(dims) == 1 and isinstance(dims[0], s.Name) and key(dims[0].text) in assigned:
                continue  # ℝ^Ω: an index set
            self.bind_names(dims, scope)
        for relation in header.relations if header is not None else ():
            sides = (relation.left, relation.right) if isinstance(relation, s.Compare) else (relation.operand,)
            self.bind_names(sides, scope)

    def bind_names(self, dims: Iterable[s.Expr], scope: Scope) -> None:
        for name in size_names(dims):
            if scope.find(name.text) is None and signature(name.text) is None:
                scope.bind(Entry(name.text, "number", name.span, (), ()))

    def bound(self, bindings: Sequence[s.Binding], scope: Scope) -> tuple[t.Bound, ...]:
        """What the site provides: the tensors it names, and those that follow from their shapes."""
        site = self.reader.site
        made: dict[str, t.Bound] = {}
        allowed = {"linear": ("W", "x", "bias"), "hidden": ("h",),
                   "attention": ("W_Q", "W_K", "W_V", "W_O", "b_Q", "b_K", "b_V", "b_O", "x")}[site]
        for binding in bindings:
            found = scope.find(binding.name)
            if binding.name not in allowed:
                self.report("E204", f"{site} has no `{binding.name}` to bind", binding.span,
                            suggestion=f"{site} binds {', '.join(allowed)}")
            elif binding.name in made:
                self.report("E205", f"`{binding.name}` is bound twice", binding.span,
                            related=[Related(made[binding.name].span, "first here")])
            elif found is not None:
                self.report("E202", f"`{binding.name}` is a dimension and a tensor", binding.span,
                            related=[Related(found.span, "a number here")], suggestion="another letter for one of them")
            else:
                made[binding.name] = t.Bound(binding.name, read_space(self.reader, binding.space, scope), binding.span)

        def derive(name: str, source: str, dims: slice, keep_family: bool = True) -> None:
            whole = made.get(source)
            if whole is not None and name not in made:
                family = whole.space.family if keep_family else ()
                space = t.SpaceTerm("ℝ", whole.space.dims[dims], family, None, whole.span)
                made[name] = t.Bound(name, space, whole.span)

        if site == "linear":
            whole = made.get("W")
            if whole is not None and (len(whole.space.dims) != 2 or whole.space.family or whole.space.kind != "ℝ"):
                self.report("E204", "the weight of a linear layer is one matrix", whole.span,
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
        return tuple(made.values())

    def relations(self, header: s.Header | None, scope: Scope) -> tuple[t.Test, ...]:
        return tuple(self.reader.test(r, scope) for r in (header.relations if header is not None else ()))

    def options(self, header: s.Header | None, scope: Scope) -> tuple[tuple[str, t.Term], ...]:
        made: list[tuple[str, t.Term]] = []
        for word, value in header.options if header is not None else ():
            known = OPTIONS[self.reader.site]
            if word not in known:
                self.report("E204", f"the site {self.reader.site} has no option {word}", value.span,
                            suggestion=f"options: {', '.join(known)}" if known else None)
            elif word in dict(made):
                self.report("E205", f"{word} is given twice", value.span)
            elif isinstance(value, s.Text):
                made.append((word, t.Text(value.value, value.span)))
            else:
                made.append((word, self.reader.expr(value, scope, "size")))
        return tuple(made)

    # ------------------------------------------------------------ one name, two meanings

    def two_meanings(self, scope: Scope) -> None:
        """A tensor that a comment calls by the name of a dimension: E202; it is read by where it stands.

        Only in a block without a header: elsewhere a comment declares nothing.
        """
        if self.program.header is not None:
            return
        declared = {key(n.text) for x in self.body if isinstance(x, s.Declare) for n in x.names}
        for found in self.reader.hypotheses.values():
            taken = scope.find(found.name)
            if taken is None or taken.kind != "number" or key(found.name) in declared:
                continue
            uses = [x.span for a in walk(tuple(self.body)) if isinstance(a, s.Assign) for x in walk(a.value)
                    if isinstance(x, s.Name) and key(x.text) == key(found.name)]  # fmt: skip
            related = [Related(taken.span, "the dimension")] if taken.span != _NOWHERE else []
            self.report("E202", f"`{found.name}` is a dimension and a tensor", found.span,
                        suggestion=f"another name for the tensor, `{found.text.replace(found.name, 'mag', 1)}`",
                        related=[*related, *(Related(span, "the tensor") for span in uses[:1])])
            self.shadow_value(found.name, read_space(self.reader, found.space, scope), found.role, None,
                              found.span, scope)

    def shadow_value(self, name: str, space: t.SpaceTerm, role: Literal["learned", "frozen"],
                     init: t.Term | None, span: Span, scope: Scope) -> None:
        """Keep a tensor that has the name of a dimension, under a name of its own."""
        parameter = t.Parameter(f"{name} (the tensor)", space, role, False, init, None, span)
        self.parameters.append(parameter)
        scope.value_of[key(name)] = parameter_entry(parameter)

    # ------------------------------------------------------------ functions

    def collect_functions(self, scope: Scope) -> None:
        """Definitions ``g(w) ← e``, the program's before the prelude's."""
        for statement in self.body:
            if not isinstance(statement, s.Assign) or len(statement.targets) != 1:
                continue
            match statement.targets[0]:
                case s.Chain(head=s.Name(text=name, span=span), trailers=(s.Args(args=args, kwargs=()),)) if (
                    scope.find(name) is None
                ):
                    names = tuple(a.text for a in args if isinstance(a, s.Name))
                    if signature(name) is not None:
                        self.report("E205", f"`{name}` is a function of the language", span, suggestion="another name")
                    elif name in self.definitions:
                        self.report("E205", f"the function {name} is defined twice", span,
                                    related=[Related(self.definitions[name][2], "first here")])
                    elif len(names) != len(args) or len(set(names)) != len(names) or not names:
                        self.report("E106", f"the parameters of {name} are different names", span,
                                    suggestion=f"{name}(u, v) ← …")
                    elif statement.op != "←":
                        self.report("E106", f"a function is defined with ←, not {statement.op}", span)
                    else:
                        self.definitions[name] = (names, statement.value, span, False)
                case _:
                    pass
        for statement in self.prelude.body:
            match statement:
                case s.Assign(targets=(s.Chain(head=s.Name(text=name), trailers=(s.Args(args=args),)),), value=value):
                    names = tuple(a.text for a in args if isinstance(a, s.Name))
                    self.definitions.setdefault(name, (names, value, _NOWHERE, True))
                case _:
                    pass
        self.reader.functions = {name: len(d[0]) for name, d in self.definitions.items()}
        self.refuse_recursion()
        self.reader.training = self.training_functions()

    def callees(self, name: str) -> list[str]:
        parameters, body, _, _ = self.definitions[name]
        return [n.text for n in walk(body) if isinstance(n, s.Name)
                and n.text in self.definitions and n.text not in parameters]

    def refuse_recursion(self) -> None:
        """No function reaches itself, and none grows beyond a limit when all calls in it are written out."""
        size: dict[str, int] = {}
        open_: list[str] = []
        circles: set[str] = set()

        def visit(name: str) -> int:
            if name in open_:
                self.report("E106", f"the function {name} calls itself ({' → '.join([*open_, name])})",
                            self.definitions[name][2], once=name, suggestion="write a loop")
                circles.add(name)
                return 0
            if name not in size:
                open_.append(name)
                total = sum(1 for _ in walk(self.definitions[name][1]))
                for callee in self.callees(name):
                    total = min(total + visit(callee), LONGEST_EXPANSION + 1)
                open_.pop()
                size.setdefault(name, total)
            return size[name]

        for name in list(self.definitions):
            if visit(name) > LONGEST_EXPANSION:
                self.report("E105", f"the function {name} is too large when the functions in it are written out",
                            self.definitions[name][2], once=name)
        for name in circles:  # broken here, so that nobody goes around for ever
            names, _, span, from_prelude = self.definitions[name]
            self.definitions[name] = (names, s.Name(names[0], span), span, from_prelude)

    def training_functions(self) -> set[str]:
        """Functions that read a gradient or keep a state, directly or through another."""
        found = {
            name
            for name, (_, body, _, _) in self.definitions.items()
            if any((isinstance(n, s.Unary) and n.op == "∇") or (isinstance(n, s.Name) and n.text in AFTER_BACKWARD_ONLY)
                   for n in walk(body))
        }
        while True:
            more = {n for n in self.definitions if n not in found and found & set(self.callees(n))}
            if not more:
                return found
            found |= more

    def functions(self, scope: Scope, steps: Sequence[t.Step]) -> tuple[t.Function, ...]:
        """The functions that are used, those they use included, each after what it calls."""
        made: dict[str, t.Function] = {}
        for p in self.parameters:
            if not p.name.endswith("(the tensor)"):
                scope.bind(parameter_entry(p))
        for name, (names, body, span, from_prelude) in self.definitions.items():
            inner = scope.inner() if not from_prelude else Scope()
            if from_prelude:
                for constant in ("I", "π"):
                    inner.bind(Entry(constant, "constant", _NOWHERE))
            for parameter in names:
                inner.bind(Entry(parameter, "tensor", span, learned=True))
            term = self.reader.expr(body, inner, "function")
            made[name] = t.Function(name, names, nowhere(term) if from_prelude else term, span)
        wanted: dict[str, t.Function] = {}
        seen: set[str] = set()

        def use(tree: object) -> None:
            for node in walk(tree):
                if isinstance(node, t.Call) and node.function in made and node.function not in seen:
                    seen.add(node.function)
                    use(made[node.function].body)
                    wanted[node.function] = made[node.function]

        use((tuple(steps), tuple(self.minimise), tuple(self.updates), tuple(self.parameters)))
        return tuple(wanted.values())

    # ------------------------------------------------------------ statements

    def block(self, body: Sequence[s.Statement], scope: Scope, out: list[t.Step], place: Place,
              loops: tuple[s.For, ...]) -> None:
        """Statements in order; ``loops`` are the loops around them, outermost first."""
        for statement in body:
            self.clock += 1
            match statement:
                case s.Remark():
                    pass
                case s.Declare():
                    if loops or place == "update":
                        self.report("E106", "tensors are declared outside of loops and updates", statement.span,
                                    suggestion="declare a family, `v ∈ (ℝ^n)^r: learned`, and use `v_i` here")
                    self.declare(statement, scope)
                case s.Assign():
                    self.assign(statement, scope, out, place, loops)
                case s.For():
                    self.loop(statement, scope, out, place, loops)
                case s.Minimise(value=value, span=span):
                    if loops or place == "update":
                        self.report("E106", "minimise stands outside of loops and updates", span)
                    term = self.reader.expr(value, scope, "value")
                    self.minimise.append(term)
                    self.readers.append(("minimise", term, self.clock))
                case s.AfterBackward(body=inner, span=span):
                    if loops or place == "update":
                        self.report("E106", "after backward stands at the outer level", span)
                    self.block(inner, scope.inner(), self.updates, "update", ())
                case s.Variant(span=span) | s.Common(span=span):
                    self.report("E106", "variants stand at the outer level", span)
                    self.block(statement.body, scope, out, place, loops)

    def declare(self, d: s.Declare, scope: Scope) -> None:
        """``A, B ∈ SPACE: roles``."""
        roles: dict[str, s.Role] = {}
        for role in d.roles:
            if role.name not in ROLES:
                close = nearest(role.name, ROLES)
                self.report("E204", f"`{role.name}` is no role", role.span, suggestion=close[0] if close else None,
                            notes=[f"roles: {', '.join(ROLES)}"])
            elif role.name in roles:
                self.report("E205", f"{role.name} is said twice", role.span)
            elif (role.value is None) == (role.name in ("init", "seed")):
                wanted = f"{role.name} = …" if role.value is None else role.name
                self.report("E204", f"`{role.name}` is written `{wanted}`", role.span, suggestion=wanted)
            else:
                roles[role.name] = role
        if ("learned" in roles) == ("frozen" in roles) and all(r.name in ROLES for r in d.roles):
            self.report("E204", "a declared tensor is either learned or frozen", d.span,
                        suggestion=f"{d.names[0].text} ∈ …: learned, init = 0")
        frozen = "frozen" in roles and "learned" not in roles
        space = read_space(self.reader, d.space, scope)
        start, number = (roles[r].value if r in roles else None for r in ("init", "seed"))
        init = None if start is None else read_initial(self.reader, start, scope)
        seed = None if number is None else self.reader.expr(number, scope, "size")
        if frozen and init is None:
            self.report("E204", "a frozen tensor needs to be told its values", d.span,
                        suggestion="frozen, init = kaiming, seed = 0; what is computed from W is written `A ← …`")
        if frozen and seed is None and any(isinstance(x, t.Call) and x.function in RANDOM and self.is_initialiser(x)
                                           for x in walk(init)):
            self.report("E204", "frozen random numbers need a seed", d.span, suggestion="seed = 0")
        if space.kind in ("ℂ", "ℕ"):
            self.report("E204", f"a declared tensor is real; this is in {space.kind}", d.span,
                        suggestion="ℝ; two real tensors for a complex one, `Ω ← …` for indices")
        if "shared" in roles:
            self.refuse_shared(roles["shared"].span, frozen, init, scope)
        for name in d.names:
            self.declare_name(name, space, frozen, "shared" in roles, init, seed, scope)

    def refuse_shared(self, span: Span, frozen: bool, init: t.Term | None, scope: Scope) -> None:
        """E106 for what cannot be one tensor for all sites: a learned one, and one that starts from a site's values."""
        if not frozen:
            self.report("E106", "a shared tensor is frozen: what is learned belongs to one site", span,
                        suggestion="`frozen, shared` for one tensor of the model, `learned` for one at each site")
        elif any(isinstance(x, t.Var) and (found := scope.find(x.name)) is not None and found.kind == "tensor"
                 for x in walk(init)):
            self.report("E106", "a shared tensor is the same at every site, so it cannot start from one's tensor", span,
                        suggestion="leave out `shared`, or start it from random numbers")

    def is_initialiser(self, call: t.Call) -> bool:
        """Whether a call's name means an initialiser: no function of the program or of the table is called so."""
        return call.function not in self.definitions and signature(call.function) is None

    def declare_name(self, name: s.Name, space: t.SpaceTerm, frozen: bool, shared: bool, init: t.Term | None,
                     seed: t.Term | None, scope: Scope) -> None:
        parameter = t.Parameter(name.text, space, "frozen" if frozen else "learned", shared, init, seed, name.span)
        found = scope.find(name.text)
        if found is not None and found.kind == "number":
            header = self.program.header
            hyper = header is not None and any(key(h.name) == key(name.text) for h in header.hyper)
            what = "hyperparameter" if hyper else "dimension"
            self.report("E202", f"`{name.text}` is a {what} and a tensor", name.span,
                        suggestion="another name for one of them", related=[Related(found.span, "the number")])
            self.shadow_value(name.text, space, parameter.role, init, name.span, scope)
            return
        if found is not None and found.kind == "constant":
            self.report("E205", f"`{name.text}` has a fixed meaning", name.span, suggestion="another name")
            return
        if found is not None:
            self.report("E205", f"`{name.text}` is declared twice", name.span,
                        related=[Related(found.span, "first here")])
            return
        self.parameters.append(parameter)
        if init is not None:
            self.readers.append((f"the initial value of {name.text}", init, self.clock))
        scope.bind(parameter_entry(parameter))

    def loop(self, f: s.For, scope: Scope, out: list[t.Step], place: Place, loops: tuple[s.For, ...]) -> None:
        """``for i in range(n):``; names first bound inside are local, unless they are written by index."""
        domain = self.reader.domain(f.iterable, scope, place)
        size = domain.args[0] if isinstance(domain, t.Call) and domain.function == "range" and len(domain.args) == 1 \
            else None
        inner = scope.inner()
        variables: list[str] = []
        for variable in f.variables:
            name = plain(variable.text) if split(variable.text) is None else variable.text
            if name in variables:
                self.report("E205", f"`{name}` is there twice", variable.span)
            self.reader.refuse_taken(name, variable.span, scope)
            inner.bind(Entry(name, "index", variable.span, size=size if len(f.variables) == 1 else None))
            variables.append(name)
        if isinstance(domain, t.Call) and domain.function == "range" and len(variables) != 1:
            self.report("E209", f"range gives one number at a time, not {len(variables)}", f.span,
                        suggestion="for i in range(n):")
        steps: list[t.Step] = []
        self.block(f.body, inner, steps, place, (*loops, f))
        out.append(t.Loop(tuple(variables), domain, tuple(steps), f.span))
        written = {x.name for x in walk(tuple(steps)) if isinstance(x, t.Write)}
        for entry in inner:
            before = scope.find(entry.name)
            if before is None and entry.name in written:
                scope.bind(replace(entry, family=None, item=None))
            elif before is None and entry.kind == "tensor" and entry.name not in self.reader.assumed:
                self.reader.local_names.setdefault(key(entry.name), entry.span)
            elif before is None and entry.kind in ("number", "tensor"):
                scope.bind(entry)  # declared by a comment, or a size in its shape
            elif before is not None and before != entry and before.kind == "tensor" == entry.kind:
                scope.bind(replace(entry, item=None if entry.item != before.item else entry.item))

    # ------------------------------------------------------------ assignments

    def assign(self, a: s.Assign, scope: Scope, out: list[t.Step], place: Place, loops: tuple[s.For, ...]) -> None:
        """``targets ← value``."""
        if len(a.targets) > 1:
            self.assign_several(a, scope, out, place)
            return
        target = next(iter(a.targets))
        match target:
            case s.Group(inner=inner):
                self.assign(replace(a, targets=(inner,)), scope, out, place, loops)
            case s.Name(text=text, span=span):
                self.assign_name(text, span, a, scope, out, place, loops)
            case s.Chain(head=s.Name(text=text, span=span), trailers=(s.Transposed(),)):
                self.let((text + "ᵀ",), self.value(a, text + "ᵀ", scope, place), span, a, scope, out)
            case s.Chain(head=s.Name(text=text, span=span), trailers=(s.Transposed(), *rest)) if _indexed(rest):
                self.write(text + "ᵀ", _items(rest), a, scope, out, place)
            case s.Chain(head=s.Name(text=text), trailers=rest) if _indexed(rest):
                self.write(text, _items(rest), a, scope, out, place)
            case s.Chain(head=s.Name(text=text), trailers=(s.Args(),)) if text in self.definitions and not loops:
                pass  # a function: see collect_functions
            case s.Chain(head=s.Name(text=text, span=span), trailers=(s.Args(),)):
                found = scope.find(text)
                if found is not None and found.kind != "tensor":
                    self.report("E202", f"`{text}` has a meaning already and cannot name a function", span,
                                suggestion="another name")
                elif found is not None:
                    self.report("E106", f"`{text}` is a tensor and cannot be defined as a function", span,
                                suggestion=f"`{text}_{{…}} ← …` writes into a tensor")
                elif loops:
                    self.report("E106", "functions are defined outside of loops", span)
            case _:
                self.report("E106", "this cannot be assigned to", a.span, suggestion="a name, `R ← …`, or some of its "
                            "entries, `R_{i,:} ← …`")
                self.reader.expr(a.value, scope, place)

    def assign_several(self, a: s.Assign, scope: Scope, out: list[t.Step], place: Place) -> None:
        """``U, Σ, Vᵀ ← svd(W)``."""
        names: list[str] = []
        for target in a.targets:
            match target:
                case s.Name(text=text):
                    names.append(text)
                case s.Chain(head=s.Name(text=text), trailers=(s.Transposed(),)):
                    names.append(text + "ᵀ")
                case _:
                    self.report("E106", "several values are given to plain names", a.span,
                                suggestion="U, Σ, Vᵀ ← svd(W)")
                    names.append("_")
        if len({key(n) for n in names}) != len(names):
            self.report("E205", "one name is there twice", a.span)
        if a.op != "←":
            self.report("E106", f"{a.op} changes one name", a.span)
        value = self.reader.expr(a.value, scope, place)
        match value:
            case t.Call(function="svd"):
                wanted = 3
            case t.Call(function="qr"):
                wanted = 2
            case _:
                wanted = 0
                self.report("E209", f"{len(names)} names take a value in parts: only svd and qr give one", a.span,
                            suggestion="one assignment for each name, separated by `;`")
        if wanted and wanted != len(names):
            parts = "U, Σ, Vᵀ ← svd(M)" if wanted == 3 else "Q, R ← qr(M)"
            self.report("E209", f"{wanted} values for {len(names)} names", a.span, suggestion=parts)
        elif wanted == 3 and self.is_transposed_later(names[2]):
            self.report("E209", f"the third value of svd is the transpose already: `{names[2]}` is bound to Vᵀ, and "
                                f"the program reads `{names[2]}ᵀ`", a.span, suggestion="U, Σ, Vᵀ ← svd(M)")
        self.let(tuple(names), value, a.span, a, scope, out)

    def is_transposed_later(self, name: str) -> bool:
        """Whether ``Vᵀ`` is read where the name that is bound is ``V``."""
        return any(isinstance(x, s.Chain) and isinstance(x.head, s.Name) and key(x.head.text) == key(name)
                   and isinstance(x.trailers[0], s.Transposed) for x in walk(tuple(self.body)))

    def assign_name(self, text: str, span: Span, a: s.Assign, scope: Scope, out: list[t.Step], place: Place,
                    loops: tuple[s.For, ...]) -> None:
        """``R ← e``, or ``s_i ← e``, which defines s entry by entry."""
        if isinstance(a.value, s.Name) and a.value.text in ("learned", "frozen") and scope.find(a.value.text) is None:
            self.declared_in_place(text, span, a.value.text, scope, loops)
            return
        parts = split(text)
        if parts is not None and scope.find(text) is None and self.reader.entry(text, scope, "value") is None:
            base, sub = parts
            found = scope.find(sub)
            index = s.Name(sub, span)
            if found is not None and found.kind == "index":
                if not self.is_local(text, base, loops):
                    self.write(base, (index,), a, scope, out, place)
                    return
            elif found is None and len(sub) == 1 and sub.isalpha() and _mentions(a.value, sub):
                self.write(base, (index,), a, scope, out, place)
                return
        self.let((text,), self.value(a, text, scope, place), span, a, scope, out)

    def is_local(self, text: str, base: str, loops: Sequence[s.For]) -> bool:
        """``Hᵢ ← …`` in a loop over i, with H in no other form anywhere: a name that lives for one iteration."""
        if not loops or base in ("y", "h"):  # what a site reads lives on
            return False

        def mentions(tree: object) -> list[str]:
            names = [n.text for n in walk(tree) if isinstance(n, s.Name)]
            return [n for n in names if n == base or (split(n) or ("",))[0] == base]

        everywhere, here = mentions(tuple(self.body)), mentions(loops[-1].body)
        return len(everywhere) == len(here) and all(key(n) == key(text) for n in here)

    def declared_in_place(self, text: str, span: Span, role: str, scope: Scope, loops: Sequence[s.For]) -> None:
        """``vᵢ ← learned``: reported, and read as the declaration that was meant."""
        base, sub = split(text) or (text, "")
        index = scope.find(sub) if sub else None
        found = self.reader.hypotheses.get(key(base)) or self.reader.hypotheses.get(key(text))
        family: tuple[t.Term, ...] = ()
        length = ""
        if index is not None and index.kind == "index" and loops:
            size = index.size if index.size is not None else t.Var(f"|{sub}|", span)
            family = (size,)
            length = size.name if isinstance(size, t.Var) else "N"
        name = base if family else text
        if found is None:
            shape = f"(ℝ^{{…}})^{length}" if length else "ℝ^{…}"
            self.report("E201", f"`{text} ← {role}` is no declaration", span, once=key(name),
                        suggestion=f"before the loop: {name} ∈ {shape}: {role}, init = kaiming")
            return
        space = read_space(self.reader, found.space, scope)
        shape = self.source_of(found.text)
        shape = f"({shape})^{length}" if length else shape
        self.report("E201", f"`{text} ← {role}` is no declaration", span, once=key(name),
                    related=[Related(found.span, "its shape is in this comment")],
                    suggestion=f"{'before the loop: ' if loops else ''}{name} ∈ {shape}: {role}, init = kaiming")
        init = None if found.init is None else read_initial(self.reader, found.init, scope)
        parameter = t.Parameter(name, replace(space, family=(*family, *space.family)),
                                "frozen" if role == "frozen" else "learned", False, init, None, span)
        self.reader.assumed.setdefault(name, (parameter, None, span))
        scope.bind(parameter_entry(parameter))

    @staticmethod
    def source_of(declaration: str) -> str:
        return declaration.split("∈", 1)[-1].split(":", 1)[0].strip()

    def value(self, a: s.Assign, name: str, scope: Scope, place: Place) -> t.Term:
        """The right side of ``name op value`` with ``+=`` and ``-=`` written out."""
        value = self.reader.expr(a.value, scope, place)
        if a.op == "←":
            return value
        if scope.find(name) is None:
            self.reader.undeclared(name, a.span, scope, place)
        return t.Arith("+" if a.op == "+=" else "-", t.Var(name, a.span), value, a.span)

    def let(self, names: tuple[str, ...], value: t.Term, span: Span, a: s.Assign, scope: Scope,
            out: list[t.Step]) -> None:
        """Bind whole names."""
        shapes = self.shapes_of(value, len(names), scope)
        for name, (family, item) in zip(names, shapes, strict=True):
            self.refuse_fixed(name, span, scope)
            found = scope.find(name)
            if found is None or found.kind == "tensor":
                scope.bind(Entry(name, "tensor", span, family, item, None, bool(found and found.learned)))
            self.assigned[name] = self.clock
        out.append(t.Let(names, value, a.span))

    def refuse_fixed(self, name: str, span: Span, scope: Scope) -> None:
        """E202 for assigning to a number, an index or ``I``."""
        found = scope.find(name)
        if found is None or found.kind == "tensor":
            return
        kinds = {"number": "a dimension or hyperparameter", "index": "the index of a loop"}
        what = kinds.get(found.kind, "a fixed name")
        self.report("E202", f"`{name}` is {what} and cannot be assigned to", span, suggestion="another name",
                    related=[Related(found.span, "it gets its meaning here")] if found.span != _NOWHERE else [])

    def shapes_of(self, value: t.Term, count: int, scope: Scope) -> list[
        tuple[tuple[t.Term, ...] | None, tuple[t.Term, ...] | None]
    ]:
        """The symbolic axes of what is bound: known for copies and for the parts of an svd or a qr."""
        match value:
            case t.Call(function="svd" | "qr" as function, args=(matrix,), kwargs=kwargs):
                family, item = axes_of(matrix, scope)
                if item is None or len(item) != 2:
                    return [(family, None)] * count
                p, q = item
                rank = dict(kwargs).get("rank", t.Call("min", (p, q)))
                made = [(p, rank), (rank,), (rank, q)] if function == "svd" else [(p, rank), (rank, q)]
                return [(family, made[k] if k < len(made) else None) for k in range(count)]
            case _:
                return [axes_of(value, scope)] * count

    def write(self, name: str, items: Sequence[s.Expr], a: s.Assign, scope: Scope, out: list[t.Step],
              place: Place) -> None:
        """``A_{i,:} ← e``; an index that is bound nowhere runs over the range that its uses in e imply."""
        span = a.span
        self.refuse_fixed(name, span, scope)
        known = scope.find(name)
        free: list[str] = []
        for x in items:
            for n in walk(x) if not isinstance(x, s.Slice) else ():
                if isinstance(n, s.Name) and scope.find(n.text) is None and _mentions(a.value, n.text) \
                        and signature(n.text) is None and n.text not in free:
                    free.append(n.text)
        inner = scope.inner()
        ranges: list[tuple[str, t.Term]] = []
        for index in free:
            size = range_of(self.reader, index, a.value, inner, place, span)
            size = size if size is not None else t.Var(f"|{index}|", span)
            inner.bind(Entry(index, "index", span, size=size))
            ranges.append((index, size))
        value = self.reader.expr(a.value, inner, place)
        if known is None and a.op != "←":
            self.reader.undeclared(name, span, scope, place)
        canonical_name = name if known is None else known.name
        step: t.Step = t.Write(canonical_name, self.reader.indices(items, inner), a.op, value, span)
        for index, size in reversed(ranges):
            step = t.Loop((index,), t.Call("range", (size,), (), span), (step,), span)
        out.append(step)
        self.assigned[canonical_name] = self.clock
        if known is None:
            item = (ranges[0][1],) if len(ranges) == 1 == len(items) else None
            scope.bind(Entry(name, "tensor", span, () if item else None, item))
        elif known.kind == "tensor":
            scope.bind(replace(known, span=span))

    # ------------------------------------------------------------ the end

    def output(self, steps: Sequence[t.Step], scope: Scope) -> str:
        """The name that the program defines for its site: y, or h."""
        site = self.reader.site
        wanted = "h" if site == "hidden" else "y"
        if wanted not in self.assigned and self.program.header is None and "h" in self.assigned:
            wanted = "h"
        if self.only_functions():
            return wanted
        bound = [x for x in walk(tuple(steps)) if isinstance(x, t.Let) and wanted in x.names]
        if wanted not in self.assigned:
            span = self.program.span if self.program.header is None else self.program.header.span
            last = steps[-1] if steps else None
            guess = last.names[-1] if isinstance(last, t.Let) else None
            usual = {"linear": f"y ← {guess or 'W'} @ x", "attention": "y ← attn(q = …)", "hidden": "h ← h + …"}
            self.report("E207", f"the program never says what `{wanted}` is", span, suggestion=usual[site])
            return guess or wanted
        if key(wanted) in self.reader.local_names and scope.find(wanted) is None:
            self.report("E207", f"`{wanted}` is bound inside a loop only, where it lives for one iteration",
                        self.reader.local_names[key(wanted)],
                        suggestion=f"bind `{wanted}` before the loop, or write it by index, `{wanted}_i ← …`")
        answers = [x.value for x in bound if x.names == ("y",)]
        for call in (x for x in walk((tuple(steps), tuple(self.minimise))) if isinstance(x, t.Call)):
            if call.function == "attn" and site == "attention" and not any(call is v for v in answers):
                self.report("E210", "attn is the whole of y", call.span, suggestion="y ← attn(q = …, k = …)")
        if site == "attention" and not all(isinstance(v, t.Call) and v.function == "attn" for v in answers):
            self.report("E210", "at an attention, y is a call of attn", bound[-1].span if bound else steps[-1].span,
                        suggestion="y ← attn(q = …, k = …)")
        return wanted

    def only_functions(self) -> bool:
        """A file without header that defines functions and nothing else, such as the prelude: it has no output."""
        said = [x for x in self.body if not isinstance(x, s.Remark)]
        own = {name for name, (_, _, _, from_prelude) in self.definitions.items() if not from_prelude}
        return self.program.header is None and bool(said) and all(
            isinstance(x, s.Assign) and any(n in own for n in _defined(x)) for x in said)

    def changed_after_use(self) -> None:
        """A term that is read later must not depend on names that change in between."""
        for what, term, time in self.readers:
            for node in walk(term):
                if isinstance(node, t.Var) and self.assigned.get(node.name, 0) > time:
                    self.report("E210", f"{what} uses `{node.name}`, which changes after this line", node.span,
                                suggestion=f"give the later `{node.name}` another name")
                    break

    def report_assumed(self) -> None:
        """Every tensor that only a comment declares, with the declaration to write."""
        for parameter, found, span in self.reader.assumed.values():
            if found is not None:
                self.report("E201", f"`{parameter.name}` is not declared; it is read with the shape of a comment", span,
                            suggestion=found.text, related=[Related(found.span, "this comment")],
                            once=key(parameter.name))


def _defined(a: s.Assign) -> list[str]:
    """The name that ``g(w) ← e`` defines."""
    match a.targets:
        case (s.Chain(head=s.Name(text=name), trailers=(s.Args(),)),):
            return [name]
        case _:
            return []


def _indexed(trailers: Sequence[s.Trailer]) -> bool:
    return bool(trailers) and all(isinstance(x, s.Indexed) for x in trailers)


def _items(trailers: Sequence[s.Trailer]) -> tuple[s.Expr, ...]:
    return tuple(item for x in trailers if isinstance(x, s.Indexed) for item in x.items)


def _mentions(value: s.Expr, letter: str) -> bool:
    """Whether a letter stands in an expression as a name or as the subscript of one."""
    for node in walk(value):
        if isinstance(node, s.Name) and (node.text == letter or (split(node.text) or ("", ""))[1] == letter):
            return True
    return False
