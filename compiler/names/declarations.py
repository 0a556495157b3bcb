"""Declared tensors: ``A, B ∈ SPACE: roles``, and what is declared in another way, or by a comment only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from padp.compiler.names import terms as t
from padp.compiler.names.gathered import Run
from padp.compiler.names.scope import Scope, key, nearest, split, walk
from padp.compiler.names.signatures import RANDOM, signature
from padp.compiler.names.spaces import parameter_entry, read_initial, read_space
from padp.dsl import syntax as s
from padp.dsl.diagnostics import Related
from padp.dsl.source import Span

ROLES = ("learned", "frozen", "shared", "init", "seed")


def declare(run: Run, d: s.Declare, scope: Scope) -> None:
    """``A, B ∈ SPACE: roles``."""
    roles: dict[str, s.Role] = {}
    for role in d.roles:
        if role.name not in ROLES:
            close = nearest(role.name, ROLES)
            run.report("E204", f"`{role.name}` is no role", role.span, suggestion=close[0] if close else None,
                       notes=[f"roles: {', '.join(ROLES)}"])
        elif role.name in roles:
            run.report("E205", f"{role.name} is said twice", role.span)
        elif (role.value is None) == (role.name in ("init", "seed")):
            wanted = f"{role.name} = …" if role.value is None else role.name
            run.report("E204", f"`{role.name}` is written `{wanted}`", role.span, suggestion=wanted)
        else:
            roles[role.name] = role
    if ("learned" in roles) == ("frozen" in roles) and all(r.name in ROLES for r in d.roles):
        run.report("E204", "a declared tensor is either learned or frozen", d.span,
                   suggestion=f"{d.names[0].text} ∈ …: learned, init = 0")
    frozen = "frozen" in roles and "learned" not in roles
    space = read_space(run.reader, d.space, scope)
    start, number = (roles[r].value if r in roles else None for r in ("init", "seed"))
    init = None if start is None else read_initial(run.reader, start, scope)
    seed = None if number is None else run.reader.expr(number, scope, "size")
    if frozen and init is None:
        run.report("E204", "a frozen tensor needs to be told its values", d.span,
                   suggestion="frozen, init = kaiming, seed = 0; what is computed from W is written `A ← …`")
    if frozen and seed is None and any(isinstance(x, t.Call) and x.function in RANDOM and _is_initialiser(run, x)
                                       for x in walk(init)):
        run.report("E204", "frozen random numbers need a seed", d.span, suggestion="seed = 0")
    if space.kind in ("ℂ", "ℕ"):
        run.report("E204", f"a declared tensor is real; this is in {space.kind}", d.span,
                   suggestion="ℝ; two real tensors for a complex one, `Ω ← …` for indices")
    if "shared" in roles:
        _refuse_shared(run, roles["shared"].span, frozen, init, scope)
    for name in d.names:
        _declare_name(run, name, space, frozen, "shared" in roles, init, seed, scope)


def _refuse_shared(run: Run, span: Span, frozen: bool, init: t.Term | None, scope: Scope) -> None:
    """E106 for what cannot be one tensor for all sites: a learned one, and one that starts from a site's values."""
    if not frozen:
        run.report("E106", "a shared tensor is frozen: what is learned belongs to one site", span,
                   suggestion="`frozen, shared`, with a seed, for one random tensor of the model, and a small learned "
                   "tensor at each site that scales or mixes it, as VeRA has; or `learned` for one at each site")
    elif any(isinstance(x, t.Var) and (found := scope.find(x.name)) is not None and found.kind == "tensor"
             for x in walk(init)):
        run.report("E106", "a shared tensor is the same at every site, so it cannot start from one's tensor", span,
                   suggestion="leave out `shared`, or start it from random numbers")


def _is_initialiser(run: Run, call: t.Call) -> bool:
    """Whether a call's name means an initialiser: no function of the program or of the table is called so."""
    return call.function not in run.definitions and signature(call.function) is None


def _declare_name(run: Run, name: s.Name, space: t.SpaceTerm, frozen: bool, shared: bool, init: t.Term | None,
                  seed: t.Term | None, scope: Scope) -> None:
    parameter = t.Parameter(name.text, space, "frozen" if frozen else "learned", shared, init, seed, name.span)
    found = scope.find(name.text)
    if found is not None and found.kind == "number":
        header = run.program.header
        hyper = header is not None and any(key(h.name) == key(name.text) for h in header.hyper)
        what = "hyperparameter" if hyper else "dimension"
        run.report("E202", f"`{name.text}` is a {what} and a tensor", name.span,
                   suggestion="another name for one of them", related=[Related(found.span, "the number")])
        _shadow_value(run, name.text, space, parameter.role, init, name.span, scope)
        return
    if found is not None and found.kind == "constant":
        run.report("E205", f"`{name.text}` has a fixed meaning", name.span, suggestion="another name")
        return
    if found is not None:
        run.report("E205", f"`{name.text}` is declared twice", name.span,
                   related=[Related(found.span, "first here")])
        return
    run.parameters.append(parameter)
    if init is not None:
        run.readers.append((f"the initial value of {name.text}", init, run.clock))
    scope.bind(parameter_entry(parameter))


def two_meanings(run: Run, scope: Scope) -> None:
    """A tensor that a comment calls by the name of a dimension: E202; it is read by where it stands.

    Only in a block without a header: elsewhere a comment declares nothing.
    """
    if run.program.header is not None:
        return
    declared = {key(n.text) for x in run.body if isinstance(x, s.Declare) for n in x.names}
    for found in run.reader.hypotheses.values():
        taken = scope.find(found.name)
        if taken is None or taken.kind != "number" or key(found.name) in declared:
            continue
        uses = [x.span for a in walk(tuple(run.body)) if isinstance(a, s.Assign) for x in walk(a.value)
                if isinstance(x, s.Name) and key(x.text) == key(found.name)]  # fmt: skip
        related = [Related(taken.span, "the dimension")] if taken.span != s.NOWHERE else []
        run.report("E202", f"`{found.name}` is a dimension and a tensor", found.span,
                   suggestion=f"another name for the tensor, `{found.text.replace(found.name, 'mag', 1)}`",
                   related=[*related, *(Related(span, "the tensor") for span in uses[:1])])
        _shadow_value(run, found.name, read_space(run.reader, found.space, scope), found.role, None,
                      found.span, scope)


def _shadow_value(run: Run, name: str, space: t.SpaceTerm, role: Literal["learned", "frozen"],
                  init: t.Term | None, span: Span, scope: Scope) -> None:
    """Keep a tensor that has the name of a dimension, under a name of its own."""
    parameter = t.Parameter(f"{name} (the tensor)", space, role, False, init, None, span)
    run.parameters.append(parameter)
    scope.value_of[key(name)] = parameter_entry(parameter)


def declared_in_place(run: Run, text: str, span: Span, role: str, scope: Scope, loops: Sequence[s.For]) -> None:
    """``vᵢ ← learned``: reported, and read as the declaration that was meant."""
    base, sub = split(text) or (text, "")
    index = scope.find(sub) if sub else None
    found = run.reader.hypotheses.get(key(base)) or run.reader.hypotheses.get(key(text))
    family: tuple[t.Term, ...] = ()
    length = ""
    if index is not None and index.kind == "index" and loops:
        size = index.size if index.size is not None else t.Var(f"|{sub}|", span)
        family = (size,)
        length = size.name if isinstance(size, t.Var) else "N"
    name = base if family else text
    if found is None:
        shape = f"(ℝ^{{…}})^{length}" if length else "ℝ^{…}"
        run.report("E201", f"`{text} ← {role}` is no declaration", span, once=key(name),
                   suggestion=f"before the loop: {name} ∈ {shape}: {role}, init = kaiming")
        return
    space = read_space(run.reader, found.space, scope)
    shape = _source_of(found.text)
    shape = f"({shape})^{length}" if length else shape
    run.report("E201", f"`{text} ← {role}` is no declaration", span, once=key(name),
               related=[Related(found.span, "its shape is in this comment")],
               suggestion=f"{'before the loop: ' if loops else ''}{name} ∈ {shape}: {role}, init = kaiming")
    init = None if found.init is None else read_initial(run.reader, found.init, scope)
    parameter = t.Parameter(name, replace(space, family=(*family, *space.family)),
                            "frozen" if role == "frozen" else "learned", False, init, None, span)
    run.reader.assumed.setdefault(name, (parameter, None, span))
    scope.bind(parameter_entry(parameter))


def _source_of(declaration: str) -> str:
    return declaration.split("∈", 1)[-1].split(":", 1)[0].strip()


def report_assumed(run: Run) -> None:
    """Every tensor that only a comment declares, with the declaration to write."""
    for parameter, found, span in run.reader.assumed.values():
        if found is not None:
            run.report("E201", f"`{parameter.name}` is not declared; it is read with the shape of a comment", span,
                       suggestion=found.text, related=[Related(found.span, "this comment")],
                       once=key(parameter.name))
