"""Text cut into logical lines: what a statement may be, before anybody reads it.

A physical line ends at its newline unless a bracket is open. Comments are taken out here: one after a statement goes
with it, one on a line of its own stands between statements. So are the troubles that would make all later lines
unreadable: brackets and quotes that do not close.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from padp.dsl.diagnostics import Diagnostic, Related
from padp.dsl.limits import MAX_NESTING, MAX_STATEMENT
from padp.dsl.source import Source, Span


@dataclass(frozen=True, slots=True)
class Comment:
    """``# text`` without its ``#``; ``column`` is the width of what stands before it on its line."""

    text: str
    column: int
    span: Span


@dataclass(frozen=True, slots=True)
class Line:
    """One logical line: ``span`` is its code, ``comment`` what follows on its last line, ``inner`` those between."""

    indent: str
    span: Span
    comment: Comment | None
    inner: tuple[Comment, ...]
    sound: bool  # False: a diagnostic has been given, the code is not worth reading


_MARK = re.compile(r'#[^\n]*|"[^"\n]*"|["\n()\[\]{}]')
_CLOSER = {"(": ")", "[": "]", "{": "}"}
_STARTS_STATEMENT = re.compile(
    r"[ \t]*(?:(?:adapter|variant|for|minimise|minimize)[ \t]+[^\W\d]|common[ \t]*:|after[ \t]+backward\b)"
)
_ARROW = re.compile(r"←|<-|\+=|-=|:[ \t]*(?:learned|frozen|shared)\b")
_CONTINUES_HEADER = re.compile(r"\s*(?:#[^\n]*\n\s*)*(?:on|where)[ \t]+[^\W\d]")


def logical_lines(source: Source, text: str) -> tuple[list[Line | Comment], list[Diagnostic]]:
    """The logical lines and own-line comments of ``text`` in order, and what was wrong with its brackets.

    ``text`` is ``source.text`` with look-alike characters replaced; offsets are the same.
    """
    out: list[Line | Comment] = []
    found: list[Diagnostic] = []
    at = 1 if text.startswith("\ufeff") else 0
    while at < len(text):
        code = at
        while code < len(text) and text[code] in " \t":
            code += 1
        indent = text[at:code]
        if code == len(text) or text[code] == "\n":
            at = code + 1
        elif text[code] == "#":
            end = _line_end(text, code)
            out.append(_comment(source, at, code, end))
            at = end + 1
        else:
            line, at = _one_line(source, text, indent, code, found)
            out.append(line)
    return out, found


def _one_line(source: Source, text: str, indent: str, start: int, found: list[Diagnostic]) -> tuple[Line, int]:
    """The logical line whose code begins at ``start``, and where the next physical line begins."""
    open_brackets: list[int] = []
    inner: list[Comment] = []
    sound = True
    line_start = start - len(indent)
    at = end = start
    is_header = text.startswith("adapter", start)

    def complain(code: str, message: str, where: Span, suggestion: str, *related: Related) -> None:
        nonlocal sound
        if sound:
            found.append(Diagnostic(code, message, where, source, related, (), suggestion))
        sound = False

    while True:
        mark = _MARK.search(text, at)
        stop = len(text) if mark is None else mark.start()
        gap = text[at:stop].rstrip(" \t")
        if gap:
            end = at + len(gap)
        if mark is None:
            at = len(text)
            break
        piece, at = mark.group(), mark.end()
        if piece == "\n":
            if not open_brackets and not (is_header and _CONTINUES_HEADER.match(text, at)):
                at = mark.start()
                break
            if open_brackets and _begins_statement(text, at):
                at = mark.start()
                break
            line_start = at
        elif piece[0] == "#":
            inner.append(_comment(source, line_start, mark.start(), at))
        elif piece == '"':
            complain("E103", "this quote is not closed on its line", Span(mark.start(), at), 'close it with `"`')
            end = at
        elif piece[0] == '"':
            end = at
        elif piece in _CLOSER:
            open_brackets.append(mark.start())
            end = at
            if len(open_brackets) > MAX_NESTING:
                complain("E105", f"brackets are nested more than {MAX_NESTING} deep", Span(mark.start(), at),
                         "give parts of the expression names of their own")
        else:
            end = at
            here = Span(mark.start(), at)
            if not open_brackets:
                complain("E103", f"`{piece}` closes nothing: no bracket is open here", here, f"remove `{piece}`")
            else:
                opener = open_brackets.pop()
                if _CLOSER[text[opener]] != piece:
                    complain("E103", f"`{text[opener]}` is closed by `{piece}`", here,
                             f"write `{_CLOSER[text[opener]]}` instead of `{piece}`",
                             Related(Span(opener, opener + 1), "opened here"))
    if open_brackets:
        opener = open_brackets[-1]
        complain("E103", f"this `{text[opener]}` is not closed", Span(opener, opener + 1),
                 f"close it with `{_CLOSER[text[opener]]}`")
    if end - start > MAX_STATEMENT:
        complain("E105", f"this statement is longer than {MAX_STATEMENT} characters", Span(start, start + 1),
                 "give parts of it names of their own")
    last = inner.pop() if inner and inner[-1].span.start >= end else None
    if last is not None and "\n" in text[end : last.span.start]:
        inner.append(last)
        last = None
    return Line(indent, Span(start, end), last, tuple(inner), sound), at + 1


def _begins_statement(text: str, at: int) -> bool:
    """Whether the physical line at ``at`` cannot be inside a bracket: it assigns, declares, or opens a block."""
    code = re.sub(r'"[^"\n]*"', "", text[at : _line_end(text, at)]).partition("#")[0]
    return _STARTS_STATEMENT.match(code) is not None or _ARROW.search(code) is not None


def _comment(source: Source, line_start: int, start: int, end: int) -> Comment:
    return Comment(source.text[start + 1 : end].strip(), start - line_start, Span(start, end))


def _line_end(text: str, at: int) -> int:
    end = text.find("\n", at)
    return len(text) if end < 0 else end
