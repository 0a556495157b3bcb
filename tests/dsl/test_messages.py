"""Syntax errors: code, place and words."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from padp.dsl.complaints import failures
from padp.dsl.diagnostics import Diagnostic, PadpError
from padp.dsl.grammar import parser
from padp.dsl.mistakes import EXAMPLES, HABITS, Complaint, Habit
from padp.dsl.parse import parse
from padp.dsl.source import Source


def errors(text: str) -> tuple[Diagnostic, ...]:
    with pytest.raises(PadpError) as error:
        parse(Source.of(text))
    return error.value.diagnostics


def known(entry: Habit | Complaint) -> re.Pattern[str]:
    return re.compile(".*".join(map(re.escape, entry.message.split("{seen}"))))


TABLES: tuple[Habit | Complaint, ...] = (*HABITS, *EXAMPLES)
SNIPPETS = [(entry, snippet) for entry in TABLES for snippet in entry.snippets]


@pytest.mark.parametrize(("entry", "snippet"), SNIPPETS, ids=[snippet for _, snippet in SNIPPETS])
def test_snippet_earns_its_message(entry: Habit | Complaint, snippet: str) -> None:
    (d,) = errors(snippet)
    assert known(entry).fullmatch(d.message)
    assert d.code == entry.code
    assert d.suggestion


def test_examples_stop_the_parser_itself() -> None:
    """Not a check made afterwards: else the state where they stop would mean nothing."""
    for complaint in EXAMPLES:
        assert [snippet for snippet, _ in failures(complaint)] == list(complaint.snippets)


def test_messages_never_show_terminals() -> None:
    names = {t.name for t in parser().terminals if len(t.name) > 1} - {"IN", "IF", "O", "SO", "ST", "ON", "FOR", "ELSE"}
    shown = re.compile(r"\b(?:" + "|".join(map(re.escape, names)) + r"|\$END)\b")
    for _, snippet in SNIPPETS:
        for d in errors(snippet):
            assert not shown.search(f"{d.message} {d.suggestion} {d.notes}"), d


# code, line, column, width of what is marked, and words of the message
PLACES: list[tuple[str, str, int, int, int, str]] = [
    ("y = W @ x", "E101", 1, 3, 1, "`=` is not an assignment"),
    ("a ← 1\ny ← W @", "E101", 2, 8, 0, "ends where a value is needed after `@`"),
    ("y ← @ x", "E101", 1, 5, 1, "a value is needed after `←`, not `@`"),
    ("y ← a 2", "E101", 1, 7, 1, "an operator is missing before `2`"),
    ("y ← a b 3.5 x", "E101", 1, 9, 3, "an operator is missing before `3.5`"),
    ("W @ x", "E101", 1, 6, 0, "only names a value"),
    ("for i in range(r)\n    a ← 1", "E101", 1, 18, 0, "colon is missing at the end"),
    ("A ∈ ℝ^{r×n} learned", "E101", 1, 13, 7, "colon is missing before `learned`"),
    ("y ← ℝ^n", "E101", 1, 5, 1, "`ℝ` is a space"),
    ("y ← $", "E102", 1, 5, 1, "`$` is not of the language"),
    ("y ← \\alpha", "E102", 1, 5, 6, "LaTeX"),
    ("y ← W\u0430", "E102", 1, 6, 1, "looks like `a`"),
    ("y ← xⁿ", "E102", 1, 6, 1, "superscript"),
    ("y ← xᵢ₊₁", "E102", 1, 7, 1, "cannot be computed with"),
    ("y ← mask\u0302", "E102", 1, 5, 5, "a mark stands on a single letter"),
    ("y ← a_", "E102", 1, 6, 1, "`_` joins"),
    ("y ← 7 % 2", "E102", 1, 7, 1, "no remainder"),
    ("y ← \u202ea", "E102", 1, 5, 1, "U+202E"),
    ("a ← f(x\nb ← 2", "E103", 1, 6, 1, "this `(` is not closed"),
    ("a ← [x,\n   (b + 2]\nc ← 3", "E103", 2, 10, 1, "`(` is closed by `]`"),
    ("a ← f(x,\n  b\n\nfor i in S:\n  a ← b", "E103", 1, 6, 1, "this `(` is not closed"),
    ("a ← f(x,\n  b\nA ∈ ℝ: learned", "E103", 1, 6, 1, "this `(` is not closed"),
    ("y ← x_{2", "E103", 1, 7, 1, "this `{` is not closed"),
    ("y ← x)", "E103", 1, 6, 1, "closes nothing"),
    ("y ← ‖a + b", "E103", 1, 5, 1, "this `‖` is not closed"),
    ("y ← ‖a‖ + ‖b", "E103", 1, 11, 1, "this `‖` is not closed"),
    ("y ← (‖a + b) · 2", "E103", 1, 6, 1, "this `‖` is not closed"),
    ("y ← f(|a, b)", "E103", 1, 7, 1, "this `|` is not closed"),
    ("y ← ||a| - b|", "E103", 1, 5, 2, "this `||` is not closed"),
    ("y ← a‖", "E103", 1, 6, 1, "this bar closes nothing"),
    ('adapter X(p = "f7) on linear', "E103", 1, 15, 1, "quote is not closed"),
    ("a ← 1\n  b ← 2", "E104", 2, 1, 2, "indented"),
    ("for i in S:\na ← 1", "E104", 1, 1, 11, "a block is missing"),
    ("for i in S:\n  # nothing", "E104", 1, 1, 11, "a block is missing"),
    ("for i in S:\n    a ← 1\n  b ← 2", "E104", 3, 1, 2, "fits no block"),
    ("for i in S:\n    a ← 1\n\tb ← 2", "E104", 3, 1, 1, "mixes tabs and spaces"),
    ("  a ← 1\nb ← 2", "E104", 2, 1, 1, "fits no block"),
    ("y ← 1e999", "E105", 1, 5, 5, "too large"),
    ("Σᵢ ← 3", "E106", 1, 1, 2, "sign of a sum"),
    ("2·a ← 3", "E106", 1, 1, 3, "can stand on the left"),
    ("f(x)² ← 3", "E106", 1, 5, 1, "cannot be assigned to"),
    ("Aᵀ ∈ ℝ^n: learned", "E106", 1, 1, 2, "only a plain name"),
    ("y ← (a, b)", "E106", 1, 7, 1, "a tuple is not a value"),
    ("a, b ← c, d", "E106", 1, 12, 0, "a second value follows"),
    ("y ← None", "E106", 1, 5, 4, "`None`"),
    ("y ← x^T", "E106", 1, 6, 2, "transpose or a power"),
    ("y ← f(a = 1, a = 2)", "E106", 1, 14, 5, "given twice"),
    ("y ← f(a = 1, 2)", "E106", 1, 14, 1, "without a name follows"),
    ("on ← 3", "E106", 1, 1, 2, "word of the language"),
    ("y ← a\nadapter X on linear", "E106", 2, 1, 19, "before all statements"),
    ("adapter X on linear\nadapter Y on linear", "E106", 2, 1, 19, "one adapter"),
    ("variant a:\n  variant b: y ← 3", "E106", 2, 3, 10, "cannot stand inside"),
    ("for i in S:\n  after backward: y ← 3", "E106", 2, 3, 15, "cannot stand inside"),
    ("adapter Überlora on linear", "E106", 1, 9, 8, "ASCII letters"),
    ("y ← [f(i) for i in S]", "E106", 1, 11, 3, "inside brackets"),
    ("def f(x): x", "E106", 1, 1, 3, "`def`"),
]


@pytest.mark.parametrize(("text", "code", "line", "column", "width", "words"), PLACES, ids=[row[0] for row in PLACES])
def test_place(text: str, code: str, line: int, column: int, width: int, words: str) -> None:
    (d,) = errors(text)
    assert d.source is not None and d.span is not None
    assert (d.code, *d.source.position(d.span.start), d.span.end - d.span.start) == (code, line, column, width)
    assert words in d.message
    assert d.suggestion


def test_wrong_bracket_shows_its_opener() -> None:
    (d,) = errors("y ← (a\n  + b]")
    assert [(r.message, r.span.start) for r in d.related] == [("opened here", 4)]


def test_drawn(golden: Callable[[str, str], None]) -> None:
    """All of them as people see them."""
    drawn = [str(d) for text in [*(row[0] for row in PLACES), *(s for _, s in SNIPPETS)] for d in errors(text)]
    golden("dsl/syntax_errors.txt", "\n\n".join(drawn) + "\n")
