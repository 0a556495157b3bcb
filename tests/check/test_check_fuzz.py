"""Whatever is typed, ``padp.check`` answers with findings that can be drawn: no exception, no endless computation."""

from __future__ import annotations

import re

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from padp.checking import check_source
from padp.compiler.library import library, load
from padp.dsl.as_text import as_text
from padp.dsl.codes import pages
from padp.dsl.render import render_github, render_json
from padp.dsl.source import Source

LIBRARY = [load(name).text for name in library()]
HEADS = [
    "",
    "adapter T(r = 2, k = 4, knob α = 1) on linear(W ∈ ℝ^{m×n}) where n = b·k\n"
    "A ∈ ℝ^{r×n}: learned, init = kaiming\nB ∈ ℝ^{m×r}: learned, init = 0\nλ ∈ ℝ^r: learned, init = 1\n",
    "adapter T(r = 2) on hidden(h ∈ ℝ^d)\nR ∈ St(r, d): learned, init = orthogonal\n",
    "adapter T on attention\n",
]
VALUES = (
    "W x y h A B λ R Σ Vᵀ aᵢ λ_i R₁ i j r m n k b I Ω π 0 1 2 -1 0.5 1e9 ( ) [ ] _{ ^{ } , : + - · @ ⊙ ⊗ / // ‖ | "
    "² ⁻¹ ᵀ √ ∇A Σᵢ Σ_{i∈range(r)} skew(λ) svd(W) qr(W) diag(λ) blkdiag(R) cayley(A) tree(n) band(r,1) sample(m,n,k,0) "
    "largest(W,k) scatter(λ,Ω,shape=(m,n)) fft(x) Re(x) topk(λ,k) softmax(x) expm(A) trace(W) detach(A) drop(x,0.1) "
    "perm(butterfly(n,k,0)) family(A) reshape(A,n,r) ‖A‖_row ‖W‖_F ema(A,0.9) attn(q=x) W_Q grouped(W_K) if else even"
).split()
WORDS = [
    *VALUES,
    *"; ← += ∈ learned frozen shared init = kaiming ℝ^n ℝ^{r×n} O(k) St(r,n) minimise range(r) concat #".split(),
    "\n", "\n    ", "for i in range(r):\n    ", "variant a:\n    ", "common:\n    ", "after backward:\n    ",
    "# params: r(m + n)\n", "# rank r\n", "# R ∈ O(n), orthogonal\n", "where n = b·k", "y ← W @ x\n",
]  # fmt: skip


def check(text: str) -> None:
    source = Source.of(text)
    found = check_source(source)
    for d in found:
        assert d.code in pages()
        assert d.source is not None and d.span is not None
        assert 0 <= d.span.start <= d.span.end <= len(source.text)
        assert all(0 <= r.span.start <= r.span.end <= len(source.text) for r in d.related)
        assert as_text(d) and render_github([d])
    render_json(found)


@given(st.one_of(st.text(), st.lists(st.sampled_from(WORDS), max_size=40).map(" ".join)), st.sampled_from(HEADS))
@settings(max_examples=150, deadline=None)
def test_any_text(text: str, head: str) -> None:
    check(head + text + "\n")


@st.composite
def statements(draw: st.DrawFn) -> str:
    """Lines that are likely to parse: what stands between the arrows is anything."""
    names = st.sampled_from(["A", "B", "C", "λ", "R", "z", "s_i", "R_{:2}", "y", "h"])
    values = st.lists(st.sampled_from(VALUES), min_size=1, max_size=7)
    lines = draw(st.lists(st.tuples(names, values), min_size=1, max_size=6))
    return "".join(f"{name} ← {' '.join(words)}\n" for name, words in lines)


@given(statements(), st.sampled_from(HEADS))
@settings(max_examples=150, deadline=None)
def test_any_statements(text: str, head: str) -> None:
    check(head + text)


@st.composite
def mutated(draw: st.DrawFn) -> str:
    """A program of the library with words changed, taken out, doubled or swapped, or with lines left out or moved."""
    text: str = draw(st.sampled_from(LIBRARY))
    for _ in range(draw(st.integers(1, 3))):
        if draw(st.booleans()):
            lines = text.splitlines(keepends=True)
            at = draw(st.integers(0, len(lines) - 1))
            line = lines.pop(at)
            if draw(st.booleans()):
                lines.insert(draw(st.integers(0, len(lines))), line)
            text = "".join(lines) or "\n"
        else:
            spans = [m.span() for m in re.finditer(r"\w+|[^\w\s]", text)]
            if not spans:
                continue
            start, end = draw(st.sampled_from(spans))
            other = draw(st.sampled_from(spans))
            piece = draw(st.sampled_from(["", text[start:end] * 2, text[slice(*other)], draw(st.sampled_from(WORDS))]))
            text = text[:start] + piece + text[end:]
    return text


@given(mutated())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_mutated_programs_of_the_library(text: str) -> None:
    check(text)
