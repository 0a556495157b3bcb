"""Diagnostics drawn: as text for people (``as_text.py``), as JSON for programs, as annotations for GitHub."""

from __future__ import annotations

import json
from collections.abc import Iterable

from padp.dsl.as_text import within
from padp.dsl.diagnostics import Diagnostic
from padp.dsl.source import Source, Span


def render_json(diagnostics: Iterable[Diagnostic]) -> str:
    """A JSON array, one object a diagnostic. Lines and columns count from 1, in code points; ends are exclusive."""
    return json.dumps([_record(d) for d in diagnostics], ensure_ascii=False, indent=2)


def render_github(diagnostics: Iterable[Diagnostic]) -> str:
    """Workflow commands, one line a diagnostic: ``::error file=…,line=…,col=…,title=E301::message``."""
    return "\n".join(_github(d) for d in diagnostics)


# ---------------------------------------------------------------- records


def _range(source: Source | None, span: Span | None) -> dict[str, int] | None:
    if source is None or span is None:
        return None
    span = within(source, span)
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
