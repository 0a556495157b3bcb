"""Whatever is typed, the answer is a program or a PadpError that can be drawn."""

from __future__ import annotations

import re
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from padp.dsl.as_text import as_text
from padp.dsl.diagnostics import PadpError
from padp.dsl.parse import parse
from padp.dsl.printer import to_text
from padp.dsl.render import render_github, render_json
from padp.dsl.source import Source

MARKDOWN = Path(__file__).with_name("samples.md").read_text(encoding="utf-8")
SAMPLES = re.findall(r"^```\n(.*?)^```$", MARKDOWN, re.DOTALL | re.MULTILINE)
SIGNS = "aWxλΣᵢₜ₁ᵀ⁻²‖|()[]{}_^{,;:.\n \t#\"'=←<->+-*/@·⊙⊗√∇∈ℝ×012∑…\u0302\ufeff\x00é日"
WORDS = (
    "for in if else variant common: minimise adapter on where after backward: knob even odd sqrt grad sum_{ _{ ^{ "
    "learned Σ_{i ∈ Σᵢ ... || <- (x) .T ^-1 R^{ lambda == ** :\n"
).split(" ")


def check(text: str) -> None:
    source = Source.of(text)
    try:
        program = parse(source)
    except PadpError as error:
        for d in error.diagnostics:
            assert d.code in {"E101", "E102", "E103", "E104", "E105", "E106"}
            assert d.span is not None and 0 <= d.span.start <= d.span.end <= len(source.text)
            assert as_text(d) and render_github([d])
        assert render_json(error.diagnostics)
    else:
        for ascii in (False, True):
            printed = to_text(program, ascii)
            assert parse(Source.of(printed)) == program, printed


@given(st.one_of(st.text(), st.text(SIGNS), st.lists(st.sampled_from([*WORDS, *SIGNS])).map(" ".join)))
@settings(max_examples=300, deadline=None)
def test_any_text(text: str) -> None:
    check(text)


@st.composite
def mutated(draw: st.DrawFn) -> str:
    """A sample with pieces taken out, put in or doubled."""
    text: str = draw(st.sampled_from(SAMPLES))
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(text)))
        end = min(len(text), start + draw(st.integers(0, 8)))
        kind = draw(st.sampled_from(("remove", "insert", "replace", "repeat")))
        piece = "" if kind == "remove" else draw(st.one_of(st.sampled_from([*WORDS, *SIGNS]), st.text(max_size=3)))
        if kind == "repeat":
            elsewhere = draw(st.integers(0, len(text)))
            piece = text[elsewhere : elsewhere + draw(st.integers(1, 20))]
        text = text[:start] + piece + text[start if kind in ("insert", "repeat") else end :]
    return text


@given(mutated())
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_mutated_programs(text: str) -> None:
    check(text)
