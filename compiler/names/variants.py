"""The variants of a program: their names, the statements of one, the one that is chosen."""

from __future__ import annotations

from padp.compiler.names.reading import Reading
from padp.dsl import syntax as s
from padp.dsl.diagnostics import Related
from padp.dsl.source import Span


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


def chosen_variant(program: s.Program, reader: Reading, wanted: str | None) -> str | None:
    """The variant that is wanted, or the default; E205 and E208 for what cannot be chosen."""
    names = list_variants(program)
    seen: dict[str, Span] = {}
    for x in program.body:
        if isinstance(x, s.Variant):
            if x.name in seen:
                reader.report("E205", f"variant {x.name} is there twice", x.span,
                              related=[Related(seen[x.name], "first here")])
            seen.setdefault(x.name, x.span)
    if wanted is None or wanted in names:
        return wanted if wanted is not None else (names[0] if names else None)
    span = program.span if program.header is None else program.header.span
    known = f"its variants are {', '.join(names)}" if names else "it has no variants"
    reader.report("E208", f"there is no variant {wanted}: {known}", span)
    return names[0] if names else None
