"""The comments of a program, each with its place and the statement that it stands behind, cut into pieces.

    remarks(body, source)       every comment
    pieces(remark)              a comment cut at , ; → outside of brackets
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from padp.dsl import syntax as s
from padp.dsl.source import Source, Span

_ORNAMENT = " \t─━═-=*~.│|"


@dataclass(frozen=True, slots=True)
class Remark:
    """A comment with its place; ``statement`` is the one that it stands behind, None for a line of its own."""

    text: str
    span: Span
    statement: s.Declare | s.Assign | None


def remarks(body: Sequence[s.Statement], source: Source) -> Iterator[Remark]:
    """Every comment of some statements, with its own place in the text."""
    for statement in body:
        match statement:
            case s.Remark(text=text, span=span):
                yield Remark(text, place_of(source, text, span.start, span), None)
            case s.Declare() | s.Assign():
                if statement.comment:
                    place = place_of(source, statement.comment, statement.span.end, statement.span)
                    yield Remark(statement.comment, place, statement)
            case s.Minimise(comment=comment, span=span):
                if comment:
                    yield Remark(comment, place_of(source, comment, span.end, span), None)
            case _:
                if statement.comment:
                    yield Remark(statement.comment, place_of(source, statement.comment, statement.span.start,
                                                             statement.span), None)
                yield from remarks(statement.body, source)


def place_of(source: Source, comment: str, start: int, otherwise: Span) -> Span:
    """Where a comment stands in the text."""
    at = source.text.find(comment, source.text.find("#", start))
    return Span(at, at + len(comment)) if at >= 0 else otherwise


def pieces(remark: Remark) -> Iterator[tuple[str, Span]]:
    """A comment cut at ``, ; →`` outside of brackets, each piece without ornament."""
    text, depth, start = remark.text, 0, 0
    cuts: list[tuple[int, int]] = []
    for at, c in enumerate(text):
        depth += (c in "([{") - (c in ")]}")
        if c in ",;→" and depth <= 0:
            cuts.append((start, at))
            start = at + 1
    for low, high in [*cuts, (start, len(text))]:
        piece = text[low:high]
        inner = piece.strip(_ORNAMENT)
        if inner:
            first = remark.span.start + low + piece.index(inner)
            yield inner, Span(first, first + len(inner))
