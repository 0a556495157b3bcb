"""Diagnostics as text, JSON and GitHub annotations."""

from __future__ import annotations

import json
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from padp.dsl.as_text import as_text, display_width
from padp.dsl.diagnostics import Diagnostic, PadpError, Related, refuse
from padp.dsl.render import render_github, render_json
from padp.dsl.source import Source, Span

SOURCE = Source.of("A ← 1\nV̂ᵀ ← 日本 + A_{:k} @ B\n", "some.padp")


def at(piece: str, source: Source = SOURCE) -> Span:
    start = source.text.index(piece)
    return Span(start, start + len(piece))


FULL = Diagnostic(
    "E301", "shapes do not fit", at("A_{:k} @ B"), SOURCE, (Related(at("A ← 1"), "A is a number"),), ("m = 3, n = 4",),
    "write `A · B`",
)


def test_text() -> None:
    assert as_text(FULL) == (
        "some.padp:2:12: error[E301]: shapes do not fit\n"
        "  |\n"
        "2 | V̂ᵀ ← 日本 + A_{:k} @ B\n"
        "  |             ^^^^^^^^^^\n"
        "  |\n"
        "1 | A ← 1\n"
        "  | ----- A is a number\n"
        "  = note: m = 3, n = 4\n"
        "  = try: write `A · B`"
    )


def test_colour_adds_nothing_but_colour() -> None:
    import re

    coloured = as_text(FULL, color=True)
    assert "\033[" in coloured
    lines = [line.rstrip() for line in re.sub(r"\033\[[0-9;]*m", "", coloured).split("\n")]
    assert lines == as_text(FULL).split("\n")


def test_without_place() -> None:
    assert as_text(Diagnostic("W301", "hm")) == "warning[W301]: hm"
    assert as_text(Diagnostic("N401", "hm", None, SOURCE)) == "some.padp: note[N401]: hm"
    assert as_text(Diagnostic("E501", "hm", Span(0, 1), None, (Related(Span(0, 1), "there"),))) == (
        "error[E501]: hm\n  there"
    )


def test_an_error_says_all_of_its_diagnostics() -> None:
    error = PadpError([FULL, Diagnostic("W301", "hm")])
    assert str(error) == f"{as_text(FULL)}\n\nwarning[W301]: hm"
    assert str(refuse("E201", "who?")) == "error[E201]: who?"


LINES = ["V̂ᵀ ← 日本 + A", "\tx ← é", "a\tb\tc", "x̂̃ ← ΔŴ", "\uff57ide ﬁ ‖ ⊙ ⊗", "a\u202eb\x1bc\u200bd", "\u0302a"]


@pytest.mark.parametrize("line", LINES)
def test_carets_do_not_drift(line: str) -> None:
    """Under every character of a line, the carets begin where the line drawn up to it ends."""
    source = Source.of(line)
    for i in range(len(source.text)):
        _, _, drawn, carets = as_text(Diagnostic("E101", "m", Span(i, i + 1), source)).split("\n")
        drawn, carets = drawn.removeprefix("1 |").removeprefix(" "), carets.removeprefix("  | ")
        assert "\t" not in drawn and "\x1b" not in drawn and "\u202e" not in drawn
        assert len(carets) - len(carets.lstrip()) == display_width(source.text[:i])
        assert display_width(drawn) == display_width(source.text.rstrip()) or source.text[-1].isspace()


def test_display_width() -> None:
    assert [display_width(t) for t in ("", "a", "V̂", "x̂̃", "日本", "‖v‖²", "ᵀ")] == [0, 1, 1, 1, 4, 4, 1]
    assert (display_width("\t"), display_width("\t", 3), display_width("ab\tc")) == (4, 1, 5)


@given(st.text(), st.integers(-3, 40), st.integers(-3, 40))
@settings(max_examples=200, deadline=None)
def test_any_span_of_any_text(text: str, a: int, b: int) -> None:
    source = Source.of(text)
    d = Diagnostic("E101", "m", Span(a, b), source, (Related(Span(b, a), "r"),))
    assert as_text(d).count("\n") == 6
    assert json.loads(render_json([d]))[0]["code"] == "E101"
    assert render_github([d]).count("\n") == 0


def test_long_line_is_cut_around_the_place() -> None:
    source = Source.of("a " * 1000 + "HERE" + " b" * 1000)
    lines = as_text(Diagnostic("E101", "m", at("HERE", source), source)).split("\n")
    assert max(map(len, lines)) < 200
    column = lines[3].index("^")
    assert lines[2][column : column + 4] == "HERE"


def test_span_over_lines_marks_the_first() -> None:
    source = Source.of("ab(\nc)\nd")
    assert as_text(Diagnostic("E101", "m", Span(2, 6), source)).split("\n")[2:] == ["1 | ab(", "  |   ^…"]


def test_json() -> None:
    (record,) = json.loads(render_json([FULL]))
    assert record == {
        "code": "E301",
        "severity": "error",
        "message": "shapes do not fit",
        "file": "some.padp",
        "range": {"line": 2, "column": 12, "end_line": 2, "end_column": 22},
        "related": [{"message": "A is a number", "range": {"line": 1, "column": 1, "end_line": 1, "end_column": 6}}],
        "notes": ["m = 3, n = 4"],
        "suggestion": "write `A · B`",
    }
    assert json.loads(render_json([])) == []


def test_github() -> None:
    assert render_github([FULL, Diagnostic("W301", "50% of\na, b: c")]) == (
        "::error file=some.padp,line=2,endLine=2,col=12,endColumn=21,title=E301::shapes do not fit"
        "%0Anote: m = 3, n = 4%0Atry: write `A · B`\n"
        "::warning title=W301::50%25 of%0Aa, b: c"
    )
    named = Diagnostic("N401", "m", Span(0, 1), Source.of("x", "a:b,c%.padp"))
    assert render_github([named]).startswith("::notice file=a%3Ab%2Cc%25.padp,line=1,")


def test_nfc() -> None:
    """Source normalises once; columns count code points of that text."""
    assert unicodedata.is_normalized("NFC", Source.of("a\u0302").text)
