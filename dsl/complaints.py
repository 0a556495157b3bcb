"""Syntax errors in words.

What somebody meant is told from a mark on the line, else from where the parser stood and what it then saw (the two
tables of ``mistakes.py``), else from what could have followed. Grammar terminals never show.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from typing import Protocol, cast

from lark import Token
from lark.exceptions import UnexpectedCharacters, UnexpectedInput, UnexpectedToken

from padp.dsl.diagnostics import Diagnostic
from padp.dsl.grammar import parser
from padp.dsl.mistakes import EXAMPLES, HABITS, Complaint
from padp.dsl.source import Source, Span
from padp.dsl.spellings import GREEK, KEYWORDS, SUBSCRIPTS


def habit_on(source: Source, text: str, line: Span) -> Diagnostic | None:
    """The first of ``HABITS`` that the logical line ``line`` of ``text`` shows."""
    code = _code(text, line)
    bare = re.sub(r'"[^"\n]*"', lambda m: '"' + " " * (len(m.group()) - 2) + '"', code)
    for habit in HABITS:
        found = habit.mark.search(bare)
        if found is not None:
            start, end = found.span("here")
            message = habit.message.replace("{seen}", code[start:end])
            where = Span(line.start + start, line.start + end)
            return Diagnostic(habit.code, message, where, source, suggestion=habit.suggestion)
    return None


def explain(error: UnexpectedInput, source: Source, text: str, line: Span) -> Diagnostic:
    """The diagnostic for what Lark could not read in the logical line ``line`` of ``text``."""
    if isinstance(error, UnexpectedCharacters):
        return _strange(source, text, min(cast(int, error.pos_in_stream), line.end - 1))
    place, seen = _place(error, text, line)
    bar = _open_bar(error)
    if bar is not None and (not seen or seen in ")]};,:" or (seen in ("|", "||", "‖") and seen != str(bar))):
        return _unclosed(source, bar)
    code = _code(text, line)
    said = code[: place.start - line.start].rpartition(";")[2]
    for complaint in _complaints().get(_key(error), ()):
        if re.search(complaint.after, said):
            whole = " ".join(code.split())
            message = complaint.message.replace("{seen}", seen)
            suggestion = complaint.suggestion.replace("{line}", whole if len(whole) < 60 else "…")
            suggestion = suggestion.replace("{seen}", seen)
            return Diagnostic(complaint.code, message, place, source, suggestion=suggestion)
    return _generic(error, source, text, line, place, seen)


def _unclosed(source: Source, bar: Token) -> Diagnostic:
    notes = ("`||` is the norm ‖; put a space between two bars `|`",) if str(bar) == "||" else ()
    where = Span(cast(int, bar.start_pos), cast(int, bar.end_pos))
    return Diagnostic("E103", f"this `{bar}` is not closed", where, source, (), notes, f"close it with `{bar}`")


# ---------------------------------------------------------------- by example


class _State(Protocol):
    """What is read of Lark's parser at the place of an error."""

    @property
    def position(self) -> int: ...
    @property
    def value_stack(self) -> list[object]: ...


class _Stopped(Protocol):
    @property
    def parser_state(self) -> _State: ...
    def accepts(self) -> set[str]: ...


def _stopped(error: UnexpectedInput) -> _Stopped:
    return cast(_Stopped, error.interactive_parser)


def _key(error: UnexpectedInput) -> tuple[int, str]:
    token = error.token.type if isinstance(error, UnexpectedToken) else "?"
    return _stopped(error).parser_state.position, token


@lru_cache(maxsize=1)
def _complaints() -> dict[tuple[int, str], tuple[Complaint, ...]]:
    known: dict[tuple[int, str], tuple[Complaint, ...]] = {}
    for complaint in EXAMPLES:
        for key in {_key(failure) for _, failure in failures(complaint)}:
            known[key] = (*known.get(key, ()), complaint)
    return known


def failures(complaint: Complaint) -> list[tuple[str, UnexpectedInput]]:
    """Where each snippet of a complaint stops the parser."""
    out: list[tuple[str, UnexpectedInput]] = []
    for snippet in complaint.snippets:
        try:
            parser().parse(snippet)
        except UnexpectedInput as error:
            out.append((snippet, error))
    return out


def _code(text: str, line: Span) -> str:
    """The line with its inner comments blanked out; offsets stay."""
    return re.sub(r"#[^\n]*", lambda m: " " * len(m.group()), text[line.start : line.end])


# ---------------------------------------------------------------- by what could have followed

_SHOWN = (":", "∈", "←", "=", ")", "]", "}", ",", "if", "else", "on", "where", "+", "×")


def _generic(error: UnexpectedInput, source: Source, text: str, line: Span, place: Span, seen: str) -> Diagnostic:
    accepts = {_spelling(terminal) for terminal in _stopped(error).accepts()}
    before = _code(text, Span(line.start, place.start)).split()
    after = f" after `{_last_piece(before[-1])}`" if before else ""
    if seen in ("ℝ", "ℂ", "ℕ"):
        return Diagnostic("E101", f"`{seen}` is a space, not a value", place, source,
                          suggestion="spaces stand after `∈` in declarations and headers")
    if "(" in accepts and "NUMBER" in accepts and "+" not in accepts:  # an operand is due
        if not seen:
            return Diagnostic("E101", f"the line ends where a value is needed{after}", place, source,
                              suggestion="write the value, or remove what stands before it")
        return Diagnostic("E101", f"a value is needed{after}, not `{seen}`", place, source,
                          suggestion="write a name, a number or a bracket here")
    if seen not in KEYWORDS and "+" in accepts and re.match(r"[\w(\[√∇Σ∑\"]", seen):
        return Diagnostic("E101", f"an operator is missing before `{seen}`", place, source,
                          suggestion="write `·`, `@`, `⊙`, `+` … between the two")
    due = [f"`{sign}`" for sign in _SHOWN if sign in accepts]
    if "NAME" in accepts:
        due.insert(0, "a value" if "NUMBER" in accepts else "a name")
    message = f"`{seen}` cannot stand{after or ' here'}" if seen else f"the line is not complete{after}"
    suggestion = "what can follow: " + ", ".join(due[:3]) if due else None
    return Diagnostic("E101", message, place, source, suggestion=suggestion)


def _spelling(terminal: str) -> str:
    """How a terminal is written, where it has one spelling; else its name (which is not shown)."""
    fixed = {"ASSIGN": "←", "__IN": "∈"}
    pattern = parser().get_terminal(terminal).pattern if terminal != "$END" else None
    return fixed.get(terminal, str(pattern.value) if pattern is not None and pattern.type == "str" else terminal)


def _last_piece(word: str) -> str:
    found = re.search(r"[^\W\d][\w']*$|[0-9.]+$|\W$", word)
    return found.group() if found is not None else word[-1]


# ---------------------------------------------------------------- places and characters


def _place(error: UnexpectedInput, text: str, line: Span) -> tuple[Span, str]:
    """The span and text of the token that could not be read; behind the line, and empty, at its end."""
    token = cast(Token, error.token) if isinstance(error, UnexpectedToken) else None
    if token is None or token.type == "$END":
        return Span(line.end, line.end), ""
    start, end = cast(int, token.start_pos), cast(int, token.end_pos)
    return Span(start, end), text[start:end]


def _open_bar(error: UnexpectedInput) -> Token | None:
    """The last ‖ or | that was opened and not closed, if no bracket was opened after it."""
    for value in reversed(_stopped(error).parser_state.value_stack):
        if isinstance(value, Token) and str(value) in ("‖", "||", "|"):
            return value
        if isinstance(value, Token) and str(value)[-1:] in "([{":
            return None
    return None


_LATEX = {"cdot": "·", "times": "×", "otimes": "⊗", "odot": "⊙", "sum": "Σ", "sqrt": "√", "nabla": "∇", "in": "∈",
          "leftarrow": "←", "gets": "←", "top": "ᵀ", "mathbb": "ℝ", "hat": "x_hat", "tilde": "x_tilde", "bar": "x_bar",
          "le": "≤", "leq": "≤", "ge": "≥", "geq": "≥", "neq": "≠", "|": "‖", "Vert": "‖"}


def _strange(source: Source, text: str, at: int) -> Diagnostic:
    """A character that begins no token."""
    char = text[at]
    here = Span(at, at + 1)
    latex = re.compile(r"\\([A-Za-z]+|\|)").match(text, at)
    if latex is not None:
        glyph = GREEK.get(latex.group(1)) or _LATEX.get(latex.group(1))
        return Diagnostic("E102", f"`{latex.group()}` is LaTeX", Span(at, latex.end()), source,
                          suggestion=f"write `{glyph}`" if glyph else "write the sign itself, or its ASCII spelling")
    twin = _twin(char)
    if char in "₊₋₌₍₎":
        return Diagnostic("E102", f"{_called(char)}: a subscript glyph cannot be computed with", here, source,
                          suggestion="write the index in braces: `x_{i+1}`")
    if twin is not None:
        return Diagnostic("E102", f"{_called(char)} looks like `{twin}` and is another character", here, source,
                          suggestion=f"write `{twin}`")
    if char in SUBSCRIPTS.values() or unicodedata.name(char, "").startswith("SUBSCRIPT"):
        return Diagnostic("E102", f"{_called(char)}: a subscript must follow a name", here, source,
                          suggestion="write the index in braces: `(a + b)_{i}`")
    if unicodedata.category(char) == "Lm" or char in "⁺⁻⁽⁾⁼":
        return Diagnostic("E102", f"{_called(char)} cannot be a superscript here", here, source,
                          suggestion="write an exponent as `^{…}`; the transpose is `ᵀ`, the inverse `⁻¹`")
    if char == "%":
        return Diagnostic("E102", "there is no remainder `%`", here, source,
                          suggestion="`//` divides dimensions; loops go by `range`")
    if char == "_":
        return Diagnostic("E102", "`_` joins a name and a subscript; one of them is missing", here, source,
                          suggestion="write `a_i` or `a_{i}`")
    if char == "'":
        return Diagnostic("E102", "a prime must follow a name", here, source,
                          suggestion='text stands between double quotes: `"…"`')
    return Diagnostic("E102", f"{_called(char)} is not of the language", here, source,
                      suggestion="remove it, or spell it out")


def _called(char: str) -> str:
    """A character as people can recognise it: itself where it prints, and its number where it does not or is rare."""
    name = unicodedata.name(char, "")
    point = f"U+{ord(char):04X}" + (f" {name}" if name else "")
    if char.isascii() and char.isprintable():
        return f"`{char}`"
    return f"`{char}` ({point})" if char.isprintable() and not unicodedata.combining(char) else point


_CYRILLIC = dict(zip("аеорсухіјѕАВЕКМНОРСТХІЈЅ", "aeopcyxijsABEKMHOPCTXIJS", strict=True))  # noqa: RUF001  their point


def _twin(char: str) -> str | None:
    """The ASCII character that ``char`` is taken for: Cyrillic look-alikes, full-width and styled letters."""
    folded = unicodedata.normalize("NFKC", char)
    if char in _CYRILLIC:
        return _CYRILLIC[char]
    one = len(folded) == 1 and folded != char and (folded.isascii() or folded in GREEK.values())
    return folded if one and unicodedata.category(char) not in ("Lm", "No") and not folded.isspace() else None
