"""A finding as text for people: ``file:line:col: error[E301]: …``, its line with carets, notes, and what to try.

    as_text(finding)         also what ``str(diagnostic)`` gives
    display_width(text)      columns on a screen; everything that aligns with text measures it here
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from padp.dsl.source import Source, Span

_COLOURS = {"error": "\033[1;31m", "warning": "\033[1;33m", "note": "\033[1;36m"}
_UNPRINTABLE = ("Cc", "Cf", "Cs", "Zl", "Zp")
_TAB = 4
_WIDEST_LINE = 160


class Place(Protocol):
    """A place that matters, and why."""

    @property
    def span(self) -> Span: ...
    @property
    def message(self) -> str: ...


class Finding(Protocol):
    """What is drawn of a diagnostic."""

    @property
    def code(self) -> str: ...
    @property
    def severity(self) -> str: ...
    @property
    def message(self) -> str: ...
    @property
    def span(self) -> Span | None: ...
    @property
    def source(self) -> Source | None: ...
    @property
    def related(self) -> Sequence[Place]: ...
    @property
    def notes(self) -> Sequence[str]: ...
    @property
    def suggestion(self) -> str | None: ...


@dataclass(frozen=True, slots=True)
class _Ink:
    """Terminal codes, or nothing."""

    loud: str
    quiet: str
    line: str
    off: str


def display_width(text: str, start: int = 0) -> int:
    """Columns that ``text`` takes on a screen when it begins at column ``start``.

    A combining mark takes none, an East Asian wide character two, a tab as many as reach the next multiple of four, all
    else one (what does not print is drawn as �). Everything that aligns with text measures it here.
    """
    width = start
    for char in text:
        if char == "\t":
            width += _TAB - width % _TAB
        elif unicodedata.category(char) not in ("Mn", "Me"):
            width += 2 if unicodedata.east_asian_width(char) in "WF" else 1
    return width - start


def as_text(d: Finding, color: bool = False) -> str:
    """``file:line:col: error[E301]: …``, the source line with carets, related places, notes, and what to try."""
    ink = _Ink(_COLOURS[d.severity], "\033[2m", "\033[34m", "\033[0m") if color else _Ink("", "", "", "")
    place = ""
    if d.source is not None:
        place = f"{d.source.name}: "
        if d.span is not None:
            line, column = d.source.position(within(d.source, d.span).start)
            place = f"{d.source.name}:{line}:{column}: "
    lines = [f"{place}{ink.loud}{d.severity}[{d.code}]{ink.off}: {d.message}"]
    margin = _margin(d)
    if d.source is not None and d.span is not None:
        lines += _excerpt(d.source, d.span, "", "^", margin, ink)
    for related in d.related:
        if d.source is not None:
            lines += _excerpt(d.source, related.span, related.message, "-", margin, ink)
        else:
            lines.append(f"  {related.message}")
    sign = f"{' ' * margin} {ink.line}={ink.off} {ink.quiet}"
    lines += [f"{sign}note:{ink.off} {_hang(note, margin + 9)}" for note in d.notes]
    if d.suggestion is not None:
        lines.append(f"{sign}try:{ink.off} {_hang(d.suggestion, margin + 8)}")
    return "\n".join(lines)


def _excerpt(source: Source, span: Span, message: str, caret: str, margin: int, ink: _Ink) -> list[str]:
    """The line that a span begins on, and carets under the part of it that the span covers."""
    span = within(source, span)
    number, column = source.position(span.start)
    line = source.line(number)
    before, marked = line[: column - 1], line[column - 1 : column - 1 + span.end - span.start]
    more = "…" if marked and span.start + len(marked) < span.end else ""
    before, marked, line = _clip(before, marked, line)
    start = display_width(before)
    carets = caret * max(display_width(marked, start), 1) + more
    bar = f"{ink.line}|{ink.off}"
    colour = ink.loud if caret == "^" else ink.line
    return [
        f"{' ' * margin} {bar}",
        f"{ink.line}{number:>{margin}} |{ink.off} {_shown(line)}".rstrip(),
        f"{' ' * margin} {bar} {' ' * start}{colour}{carets}{ink.off} {message}".rstrip(),
    ]


def _clip(before: str, marked: str, line: str) -> tuple[str, str, str]:
    """A very long line is cut around the marked part."""
    if len(line) <= _WIDEST_LINE:
        return before, marked, line
    first = max(0, len(before) - _WIDEST_LINE // 2)
    line = line[first:]
    cut = "…" if first else ""
    before = cut + before[first:]
    if len(line) > _WIDEST_LINE:
        line = line[:_WIDEST_LINE] + "…"
    return before, marked[: max(1, _WIDEST_LINE - len(before))], cut + line


def _shown(line: str) -> str:
    """The line as it can be printed: tabs as spaces, control and direction characters as �."""
    out: list[str] = []
    width = 0
    for char in line:
        step = display_width(char, width)
        if char == "\t":
            char = " " * step
        elif unicodedata.category(char) in _UNPRINTABLE:
            char = "\ufffd"
        out.append(char)
        width += step
    return "".join(out)


def _margin(d: Finding) -> int:
    spans = ([d.span] if d.span is not None else []) + [r.span for r in d.related]
    if d.source is None or not spans:
        return 1
    return max(len(str(d.source.position(within(d.source, span).start)[0])) for span in spans)


def within(source: Source, span: Span) -> Span:
    """The span, cut to the text that there is."""
    start = min(max(span.start, 0), len(source.text))
    return Span(start, min(max(span.end, start), len(source.text)))


def _hang(text: str, indent: int) -> str:
    return text.replace("\n", "\n" + " " * indent)
