"""What one run over one program gathers while its names are resolved."""

from __future__ import annotations

from padp.compiler.names import terms as t
from padp.compiler.names.comment_declarations import hypotheses
from padp.compiler.names.expressions import Reader
from padp.compiler.names.header import SITES
from padp.compiler.names.scope import key, walk
from padp.compiler.names.variants import body_of, chosen_variant
from padp.dsl import syntax as s
from padp.dsl.source import Source, Span


class Run:
    """The program and its reader, and what its statements gave so far; ``clock`` counts them."""

    def __init__(self, program: s.Program, source: Source, variant: str | None, prelude: s.Program) -> None:
        self.program, self.source, self.prelude = program, source, prelude
        header = program.header
        site = "linear" if header is None else header.site
        self.reader = Reader(source, site if site in SITES else "linear", hypotheses(program.body, source))
        self.reader.declared_at = {key(n.text): n.span for x in walk(tuple(program.body)) if isinstance(x, s.Declare)
                                   for n in x.names}
        self.report = self.reader.report
        self.variant = chosen_variant(program, self.reader, variant)
        self.body = body_of(program, self.variant)
        self.parameters: list[t.Parameter] = []
        self.minimise: list[t.Term] = []
        self.updates: list[t.Step] = []
        self.definitions: dict[str, tuple[tuple[str, ...], s.Expr, Span, bool]] = {}
        self.assigned: dict[str, int] = {}
        self.readers: list[tuple[str, t.Term, int]] = []  # what must not change later: minimise, init
        self.clock = 0
