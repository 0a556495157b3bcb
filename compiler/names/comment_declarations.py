"""Declarations that a program only makes in its comments: ``# A ∈ ℝ^{r×n}, B ∈ ℝ^{m×r}: frozen random``.

They are hypotheses: a name that is declared nowhere else is read with the shape of such a comment, so that checking can
go on, and is reported together with the declaration to write.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from padp.compiler.names.scope import key, split
from padp.dsl import syntax as s
from padp.dsl.diagnostics import PadpError
from padp.dsl.parse import parse
from padp.dsl.source import Source, Span

_NAME = r"[^\W\d_][\w\u0300-\u036f]*[′']*"
_SET = (
    r"\(\s*[ℝℂℕR]\s*\^\s*(?:\{[^{}]*\}|[^\s,;:(){}]+)\s*\)\s*\^\s*(?:\{[^{}]*\}|\w+)"
    r"|[ℝℂℕR]\s*\^\s*(?:\{[^{}]*\}|[^\s,;:(){}]+)"
    r"|(?:SO|O|St)\([^()]*\)"
    r"|ℝ(?!\w)"
)
_PIECE = re.compile(
    rf"(?<![\w′'])(?P<names>{_NAME}(?:\s*,\s*(?:{_NAME}|\.\.\.|…))*)\s*(?:each\s*)?(?:∈|\bin\b)\s*(?P<space>{_SET})"
)
_LONGEST = 1000  # characters of a comment that are looked at
_INIT = re.compile(r"\binit\s*=\s*([^,;\s]+)")


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """What a comment says of a name. ``text`` is the declaration to write; ``implied``: only by a claim on a result."""

    name: str
    space: s.Space
    role: Literal["learned", "frozen"]
    shared: bool
    init: s.Expr | None
    text: str
    span: Span
    implied: bool = False


def comments(body: Sequence[s.Statement]) -> Iterator[tuple[str, Span]]:
    """Every comment of a program with the place of its line, in order."""
    for statement in body:
        if isinstance(statement, s.Remark):
            yield statement.text[:_LONGEST], statement.span
            continue
        if statement.comment is not None:
            yield statement.comment[:_LONGEST], statement.span
        if isinstance(statement, (s.For, s.Variant, s.Common, s.AfterBackward)):
            yield from comments(statement.body)


def _within(source: Source, comment: str, line: Span, piece: re.Match[str]) -> Span:
    """The place of a piece of the comment that stands in or behind a statement."""
    at = source.text.find(comment, source.text.find("#", line.start))
    return Span(at + piece.start(), at + piece.end()) if at >= 0 else line


def hypotheses(body: Sequence[s.Statement], source: Source) -> dict[str, Hypothesis]:
    """Declarations in the comments of a program, by the key of their names; the first of a name counts."""
    found: dict[str, Hypothesis] = {}
    for name, implied in _implied(body, source):
        found.setdefault(key(name), implied)
    for comment, line in comments(body):
        for piece in _PIECE.finditer(comment):
            span = _within(source, comment, line, piece)
            roles = comment[comment.rfind(";", 0, piece.start()) + 1:].split(";")[0]  # those of its part of the comment
            frozen, shared = "frozen" in roles, "shared" in roles
            start = _INIT.search(roles)
            names = [n.strip() for n in piece["names"].split(",")]
            for name, family in _families(names):
                made = _declared(name, piece["space"], family, frozen, shared, start[1] if start else None, span)
                if made is not None and (key(name) not in found or found[key(name)].implied):
                    found[key(name)] = made
    return found


_RANK = re.compile(r"\brank\s+([^\W\d_]+)\b")


def _implied(body: Sequence[s.Statement], source: Source) -> Iterator[tuple[str, Hypothesis]]:
    """What a claim on a result says of its operands: ``K ← skew(θ)  # K ∈ ℝ^{k×k}`` and ``ΔW ← B @ A  # ΔW ∈ ℝ^{m×n},
    rank r``."""
    for statement in body:
        if not isinstance(statement, s.Assign) or statement.comment is None:
            continue
        piece = _PIECE.search(statement.comment[:_LONGEST])
        shape = re.search(r"\^\s*\{([^{}]*)\}", piece["space"]) if piece is not None else None
        dims = [d.strip() for d in re.split("[×x]", shape[1])] if shape is not None else []
        span = statement.span if piece is None else _within(source, statement.comment[:_LONGEST], statement.span, piece)
        starts: tuple[str | None, ...] = (None,)
        match statement.value:
            case s.Chain(head=s.Name(text="skew"), trailers=(s.Args(args=(s.Name(text=name),)),)) if (
                len(dims) >= 2 and dims[-1] == dims[-2]
            ):
                k = dims[-1] if len(dims[-1]) == 1 else f"({dims[-1]})"
                triangle = f"ℝ^{{{k}({k}-1)/2}}"
                space = f"({triangle})^{{{'×'.join(dims[:-2])}}}" if dims[:-2] else triangle
                pieces = [(name, space)]
            case s.Binary(op="@", left=s.Name(text=left), right=s.Name(text=right)) if len(dims) == 2:
                rank = _RANK.search(statement.comment)
                pieces = [(left, f"ℝ^{{{dims[0]}×{rank[1]}}}"), (right, f"ℝ^{{{rank[1]}×{dims[1]}}}")] if rank else []
                starts = (None, "kaiming")  # one of the two at 0 is the identity, both would never move
            case _:
                pieces = []
        for (name, space), start in zip(pieces, starts, strict=False):
            made = _declared(name, space, None, False, False, start, span)
            if made is not None:
                yield name, replace(made, implied=True)


def _families(names: list[str]) -> Iterator[tuple[str, str | None]]:
    """``B₁, ..., B_m`` is the family B of m; a name with a letter for a subscript, ``d_i``, one of unknown size."""
    if "..." in names or "…" in names:
        parts = [split(n) for n in names if n not in ("...", "…")]
        bases = {p[0] for p in parts if p is not None}
        if len(bases) == 1 and None not in parts and parts[-1] is not None:
            yield bases.pop(), parts[-1][1]
        return
    for name in names:
        yield name, None


def _declared(name: str, space: str, family: str | None, frozen: bool, shared: bool, init: str | None,
              span: Span) -> Hypothesis | None:
    roles = "frozen" if frozen else "learned"
    for start in (f", init = {init}", "") if init else ("",):
        try:
            program = parse(Source.of(f"A ∈ {space}: {roles}{start}\n"))
        except PadpError:
            continue
        match program.body:
            case (s.Declare(space=read, roles=given),):
                if family is not None:
                    read = replace(read, family=(s.Name(family), *read.family))
                value = next((r.value for r in given if r.name == "init"), None)
                text = f"({space})^{family}" if family is not None else space
                tail = f": {roles}{', shared' if shared else ''}, init = {init or ('kaiming' if frozen else '0')}"
                line = f"{name} ∈ {text}{tail}{', seed = 0' if frozen else ''}"
                role: Literal["learned", "frozen"] = "frozen" if frozen else "learned"
                return Hypothesis(name, _moved(read, span), role, shared, _moved(value, span), line, span)
            case _:
                continue
    return None


def _moved(tree: Any, span: Span) -> Any:
    """A tree with every place set to that of the comment it was read from."""
    if isinstance(tree, tuple):
        return tuple(_moved(part, span) for part in tree)
    if hasattr(tree, "__dataclass_fields__"):
        parts = {name: _moved(getattr(tree, name), span) for name in tree.__dataclass_fields__ if name != "span"}
        return replace(tree, **parts, span=span)
    return tree
