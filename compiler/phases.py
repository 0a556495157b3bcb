"""The way of a program, phase by phase: each line is computed once, from the lines above it.

    Program    a source
        tree            text → tree                                   dsl
        variant(name)   the ways of one variant, an object each
        findings        what is to be said about all of it            check
    Variant    one program, all sizes
        resolved        tree → names, and what is wrong with them     names
        method          the same, where nothing is wrong
        cases           names → typed IR, a case of its conditionals each      elaborate
        counts          learned scalars, as formulas                  facts
        capabilities    what the adapter can do, with reasons         facts
        normal          typed IR → normal form, a case each           normal
        at(…)           → Sized
    Sized      one program at one size
        sizes           relations → numbers                           sizes, facts
        compiled        names → typed IR → normal form → plans → graphs        elaborate, normal, plan, graph

torch is imported by the last line only. Where ``PADP_VERIFY`` is set, as in tests, a verifier looks at what is given.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any, TypeVar

from padp.compiler.check.check import findings
from padp.compiler.check.claim_grammar import supposed
from padp.compiler.elaborate.cases import Case, cases
from padp.compiler.elaborate.elaborate import elaborate
from padp.compiler.elaborate.state import Elaborated, NeedCases
from padp.compiler.facts.abilities import Capability, capabilities
from padp.compiler.facts.counts import Counted, counted
from padp.compiler.facts.requirements import unmet
from padp.compiler.ir import verify
from padp.compiler.ir.budget import budget, measured, spend
from padp.compiler.ir.nodes import Node
from padp.compiler.library import tree
from padp.compiler.names.resolve import resolve_leniently
from padp.compiler.names.terms import Method
from padp.compiler.names.variants import list_variants
from padp.compiler.normal.normal_form import Simplifier
from padp.compiler.plan.verify import verify as verify_plan
from padp.compiler.sizes.solve import solve
from padp.dsl import syntax
from padp.dsl.diagnostics import Diagnostic, PadpError
from padp.dsl.source import Source

if TYPE_CHECKING:
    from padp.compiler.graph.compile import Compiled

T = TypeVar("T")


class Once:
    """What has been computed, with the steps that it took: who asks again pays them again, so that the answer of a
    budget does not depend on what was asked before."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[Any, int]] = {}

    def __call__(self, name: str, work: Callable[[], T]) -> T:
        known = self._known.get(name)
        if known is not None:
            spend(known[1])
        else:
            known = self._known.setdefault(name, measured(work))
        value: T = known[0]
        return value


class Program:
    """One source. ``program(source)`` gives the one object of it."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self._variants: dict[str | None, Variant] = {}

    @property
    def tree(self) -> syntax.Program:
        """Raises PadpError with every syntax error."""
        return tree(self.source)

    @property
    def variants(self) -> tuple[str, ...]:
        """The names of the variants, the default first; () when there are none."""
        return list_variants(self.tree)

    def variant(self, name: str | None) -> Variant:
        """The variant of that name; None where there are none."""
        return self._variants.setdefault(name, Variant(self, name))

    def findings(self, variant: str | None = None) -> list[Diagnostic]:
        """All findings, each once, in the order of the text; of all variants unless one is named."""
        return findings(self.source, variant, self.variant)

    @cached_property
    def errors(self) -> tuple[Diagnostic, ...]:
        """The findings for which nothing can be compiled."""
        found = tuple(d for d in self.findings() if d.severity == "error")
        if not found and self.tree.header is not None:
            for name in self.variants or (None,):
                _verified("check", *(case.typed.output for case in self.variant(name).cases))
        return found


class Variant:
    """One program for all sizes."""

    def __init__(self, program: Program, name: str | None) -> None:
        self.program, self.name = program, name
        self._once = Once()

    @property
    def resolved(self) -> tuple[Method, Sequence[Diagnostic]]:
        """The method as far as it can be read, and what is wrong with its names."""
        return self._once("names", lambda: resolve_leniently(self.program.tree, self.program.source, self.name))

    @property
    def method(self) -> Method:
        """The resolved program. Raises PadpError with everything that is wrong with its names."""
        method, wrong = self.resolved
        if any(d.severity == "error" for d in wrong):
            raise PadpError(wrong)
        return method

    @property
    def cases(self) -> Sequence[Case]:
        """The typed program; one for each case where a conditional on sizes is open. Raises NeedCases for too many."""
        method, _ = self.resolved

        def made() -> Sequence[Case]:
            found = cases(method, supposed(self.program.tree, self.program.source))
            _verified("elaborate", *(case.typed.output for case in found), checked=False)
            return found

        return self._once("typed", made)

    @property
    def declared(self) -> Elaborated:
        """The typed program; only its declarations where a conditional on sizes leaves the body open."""
        try:
            typed = self.cases
        except NeedCases:
            typed = ()
        if len(typed) == 1:
            return typed[0].typed
        return self._once("declared", lambda: elaborate(replace(self.resolved[0], body=(), minimise=())))

    @property
    def counts(self) -> Counted:
        """Learned scalars a site, as formulas."""
        return self._once("counts", lambda: counted(self.resolved[0], self.declared))

    @property
    def capabilities(self) -> Sequence[Capability]:
        """What the adapter can do, for all sizes."""
        return self._once("capabilities", lambda: capabilities(self.method, self.cases))

    @property
    def normal(self) -> Sequence[Node]:
        """The output as a sum of chains, of each case."""
        def made() -> Sequence[Node]:
            found = [Simplifier(case.typed.graph)(case.typed.output) for case in self.cases]
            _verified("normal", *found)
            return found

        return self._once("normal", made)

    def unmet(self, sizes: Mapping[str, Any], where: str = "") -> list[Diagnostic]:
        """E501 for each requirement of the program that these sizes and hyperparameters break."""
        try:
            typed = self.cases
        except NeedCases:  # too many of them: what is typed at the sizes themselves says it
            typed = ()
        return unmet(self.method, typed, sizes, where)

    def adds(self) -> bool:
        """Whether y = base(x) + delta(x) where the sizes are not known."""
        return any(c.name == "additive" and c.holds for c in self.capabilities)

    def at(self, given: Mapping[str, int], hyper: Mapping[str, Any], where: str = "") -> Sized:
        """The program at the sizes of a layer; ``where`` names it in errors. Equal arguments give the same object."""
        return _sized(self, tuple(sorted(given.items())), tuple(sorted(hyper.items())), where)


class Sized:
    """One program at one size. Raises PadpError E501 for sizes that its relations or requirements refuse."""

    def __init__(self, variant: Variant, given: Mapping[str, int], hyper: Mapping[str, Any], where: str) -> None:
        self.variant, self.hyper = variant, dict(hyper)
        self.sizes: Mapping[str, int] = solve(variant.method, dict(given), self.hyper, where)
        broken = variant.unmet({**self.hyper, **self.sizes}, where)
        if broken:
            raise PadpError(broken)

    def compiled(self, has_bias: bool | frozenset[str], **purpose: Any) -> Compiled:
        """Plans and graphs. ``purpose``: ``tokens``, ``device`` and ``width`` that plans are made for."""
        from padp.compiler.graph.compile import compile_method

        made = compile_method(self.variant.method, self.sizes, self.hyper, has_bias, adds=self.variant.adds, **purpose)
        if verify.WANTED:
            for each in (made, made.usual):
                verify_plan(*each.outputs, *each.many.outputs, *each.one.outputs, *each.kept)
        return made


def _verified(phase: str, *roots: Node, checked: bool = True) -> None:
    """The verifier of the IR, which takes no steps of a budget."""
    if verify.WANTED:
        with budget(None, sys.maxsize):
            for root in roots:
                verify.verify(phase, root, checked=checked)


@lru_cache(maxsize=2048)
def _sized(variant: Variant, given: tuple[tuple[str, int], ...], hyper: tuple[tuple[str, Any], ...], where: str
           ) -> Sized:
    return Sized(variant, dict(given), dict(hyper), where)


@lru_cache(maxsize=256)
def program(source: Source) -> Program:
    """The one ``Program`` of a source."""
    return Program(source)


def check(source: Source, variant: str | None = None) -> list[Diagnostic]:
    """All findings on a program (all variants unless one is named), each once, in the order of the text."""
    return program(source).findings(variant)


def require(source: Source) -> None:
    """Raises PadpError with the errors of a program, if it has any."""
    errors = program(source).errors
    if errors:
        raise PadpError(errors)
