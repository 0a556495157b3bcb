"""Diagnostics drawn: as text for people, as JSON for programs, as annotations for GitHub."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

from padp.dsl.diagnostics import Diagnostic
from padp.dsl.source import Source, Span

_COLOURS = {"error": "\033[1;31m", "warning": "\033[1;33m", "note": "\033[1;36m"}
_UNPRINTABLE = ("Cc", "Cf", "Cs", "Zl", "Zp")
_TAB = 4
_WIDEST_LINE = 160


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


def render_text(d: Diagnostic, color: bool = False) -> str:
    """``file:line:col: error[E301]: …``, the source line with carets, related places, notes, and what to try."""
    ink = _Ink(_COLOURS[d.severity], "\033[2m", "\033[34m", "\033[0m") if color else _Ink("", "", "", "")
    place = ""
    if d.source is not None:
        place = f"{d.source.name}: "
        if d.span is not None:
            line, column = d.source.position(_within(d.source, d.span).start)
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


def render_json(diagnostics: Iterable[Diagnostic]) -> str:
    """A JSON array, one object a diagnostic. Lines and columns count from 1, in code points; ends are exclusive."""
    return json.dumps([_record(d) for d in diagnostics], ensure_ascii=False, indent=2)


def render_github(diagnostics: Iterable[Diagnostic]) -> str:
    """Workflow commands, one line a diagnostic: ``::error file=…,line=…,col=…,title=E301::message``."""
    return "\n".join(_github(d) for d in diagnostics)


# ---------------------------------------------------------------- text


def _excerpt(source: Source, span: Span, message: str, caret: str, margin: int, ink: _Ink) -> list[str]:
    """The line that a span begins on, and carets under the part of it that the span covers."""
    span = _within(source, span)
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


def _margin(d: Diagnostic) -> int:
    spans = ([d.span] if d.span is not None else []) + [r.span for r in d.related]
    if d.source is None or not spans:
        return 1
    return max(len(str(d.source.position(_within(d.source, span).start)[0])) for span in spans)


def _within(source: Source, span: Span) -> Span:
    start = min(max(span.start, 0), len(source.text))
    return Span(start, min(max(span.end, start), len(source.text)))


def _hang(text: str, indent: int) -> str:
    return text.replace("\n", "\n" + " " * indent)


# ---------------------------------------------------------------- records


def _range(source: Source | None, span: Span | None) -> dict[str, int] | None:
    if source is None or span is None:
        return None
    span = _within(source, span)
    (line, column), (end_line, end_column) = source.position(span.start), source.position(span.end)
    return {"line": line, "column": column, "end_line": end_line, "end_column": end_column}


def _record(d: Diagnostic) -> dict[str, object]:
    return {
        "code": d.code,
        "severity": d.severity,
        "message": d.message,
        "file": d.source.name if d.source is not None else None,
        "range": _range(d.source, d.span),
        "related": [{"message": r.message, "range": _range(d.source, r.span)} for r in d.related],
        "notes": list(d.notes),
        "suggestion": d.suggestion,
    }


def _github(d: Diagnostic) -> str:
    command = {"error": "error", "warning": "warning", "note": "notice"}[d.severity]
    properties = [("file", d.source.name)] if d.source is not None else []
    where = _range(d.source, d.span)
    if where is not None:
        properties.append(("line", str(where["line"])))
        if where["end_line"] == where["line"]:  # columns mean something on one line only
            properties += [("endLine", str(where["end_line"])), ("col", str(where["column"])),
                           ("endColumn", str(max(where["column"], where["end_column"] - 1)))]
        else:
            properties.append(("endLine", str(where["end_line"])))
    properties.append(("title", d.code))
    text = d.message + "".join(f"\nnote: {note}" for note in d.notes)
    if d.suggestion is not None:
        text += f"\ntry: {d.suggestion}"
    listed = ",".join(f"{key}={_escape(value, property_=True)}" for key, value in properties)
    return f"::{command} {listed}::{_escape(text)}"


def _escape(text: str, *, property_: bool = False) -> str:
    text = text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
    return text.replace(":", "%3A").replace(",", "%2C") if property_ else text
