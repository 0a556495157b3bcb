"""Programs that say themselves what is to be found in them: ``«E301 A @ B»`` marks the place of a finding.

    judged(text) -> the findings, after comparing codes and places (first and last character) with the marks

Marks may lie inside each other. What is not marked must not be found.
"""

from __future__ import annotations

import padp
from padp import Diagnostic


def plain(text: str) -> tuple[str, list[tuple[str, int, int]]]:
    """The program without its marks, and the marks as (code, first character, end)."""
    out: list[str] = []
    open_: list[tuple[str, int]] = []
    marks: list[tuple[str, int, int]] = []
    at = position = 0
    while position < len(text):
        match text[position]:
            case "«":
                open_.append((text[position + 1 : position + 5], at))
                position += 6
            case "»":
                code, start = open_.pop()
                marks.append((code, start, at))
                position += 1
            case letter:
                out.append(letter)
                at += 1
                position += 1
    assert not open_, "a mark is not closed"
    return "".join(out), sorted(marks, key=lambda m: (m[1], m[0]))


def judged(text: str, variant: str | None = None) -> list[Diagnostic]:
    """The findings of ``padp.check``, which are those that the marks announce and no others."""
    program, marks = plain(text)
    found = padp.check(program, variant)
    assert all(d.span is not None and d.source is not None for d in found)
    places = sorted(((d.code, d.span.start, d.span.end) for d in found if d.span), key=lambda m: (m[1], m[0]))
    assert places == marks, "\n" + "\n".join(map(str, found))
    return found


def messages(text: str) -> str:
    """All findings of a marked program as people see them."""
    return "\n".join(map(str, judged(text)))
