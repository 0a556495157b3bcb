"""What elaboration carries along: bindings, sizes, findings; and what it gives.

    State        while a program is read          Elaborated, Learned, Start      what comes out
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sympy as sp

from padp.compiler.elaborate.conditions import Condition
from padp.compiler.ir.nodes import Graph, Node
from padp.compiler.names.terms import Method, Parameter, Range, SpaceTerm, Test
from padp.dsl.diagnostics import Diagnostic, Related
from padp.dsl.source import Span

INITIALISERS = ("kaiming", "kaiming_normal", "xavier", "normal", "uniform", "trunc_normal", "orthogonal")
WRAPPERS = ("pairs", "unit_std")


class NeedCases(Exception):
    """A conditional on dimensions that symbols do not decide: the caller elaborates each case."""

    def __init__(self, test: Test) -> None:
        super().__init__(test)
        self.test = test


@dataclass(frozen=True)
class Start:
    """How a parameter starts: a named initialiser with its numbers and wrappers, or an expression."""

    kind: str | None = None
    numbers: tuple[float | sp.Expr, ...] = ()
    wrappers: tuple[str, ...] = ()
    node: Node | None = None


@dataclass(frozen=True)
class Learned:
    """A declared tensor with its concrete (or symbolic) type."""

    declaration: Parameter
    node: Node
    stored: tuple[Any, ...]
    start: Start


@dataclass(frozen=True)
class Elaborated:
    """The typed program: ``output`` is y (bias included), ``penalty`` the sum of ``minimise`` terms or None."""

    method: Method
    graph: Graph
    output: Node
    penalty: Node | None
    parameters: Mapping[str, Learned]
    names: Mapping[str, Node]
    sizes: Mapping[str, Any]
    mentions_bias: bool
    diagnostics: tuple[Diagnostic, ...] = ()
    history: tuple[tuple[str, Node, Span], ...] = ()
    requirements: tuple[Condition, ...] = ()


@dataclass
class PendingWrite:
    items: tuple[Node | Range, ...]
    value: Node
    span: Span


@dataclass
class State:
    method: Method
    g: Graph
    concrete: bool
    env: dict[str, Node] = field(default_factory=dict)
    sizes: dict[str, Any] = field(default_factory=dict)
    hypotheses: Mapping[int, Mapping[str, SpaceTerm]] = field(default_factory=dict)
    learned: dict[str, Learned] = field(default_factory=dict)
    diagnostics: list[Diagnostic] = field(default_factory=list)
    pending: dict[str, list[PendingWrite]] = field(default_factory=dict)
    functions: dict[str, Any] = field(default_factory=dict)
    history: list[tuple[str, Node, Span]] = field(default_factory=list)
    requirements: list[Condition] = field(default_factory=list)
    facts: tuple[Any, ...] = ()
    holes: int = 0
    closed: set[int] = field(default_factory=set[int])  # nodes of the graph in which no size is open
    sides: dict[int, tuple[Node, Node]] = field(default_factory=dict[int, tuple[Node, Node]])  # of products, by term
    depth: int = 0
    calls: int = 0
    in_loop: int = 0
    steps: list[tuple[Node, tuple[int, ...], int]] = field(default_factory=list[tuple[Node, tuple[int, ...], int]])
    """Of unrolled loops over index sets, innermost last: the set, its element of now, and which one that is."""
    after_backward: bool = False
    assume: tuple[tuple[Test, bool], ...] = ()


MISTAKEN = "?!"
"""How sizes are called that an error has been reported for."""


def report(s: State, code: str, message: str, span: Span, suggestion: str | None = None,
           notes: Sequence[str] = (), related: Sequence[Related] = ()) -> None:
    """Record a finding; repeated ones are kept once, and what follows from a size that was reported is silent."""
    found = Diagnostic(code, message, span, s.method.source, tuple(related), tuple(notes), suggestion)
    if found not in s.diagnostics and not of_a_mistake(found):
        s.diagnostics.append(found)


def of_a_mistake(found: Diagnostic) -> bool:
    """Whether a finding speaks of a size that an error has been reported for: it says that error again."""
    return any(MISTAKEN in said for said in (found.message, found.suggestion or "", *found.notes,
                                             *(r.message for r in found.related)))
