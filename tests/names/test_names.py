"""What names mean: subscripts, slices, juxtaposition, scopes, variants; and what is said when they mean nothing."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from padp.compiler.names import terms as t
from padp.compiler.names.resolve import resolve, resolve_leniently
from padp.compiler.names.scope import key, split, walk
from padp.compiler.names.variants import list_variants
from padp.dsl.diagnostics import Diagnostic, PadpError
from padp.dsl.parse import parse
from padp.dsl.source import Source

HEAD = "adapter T(r = 2, k = 4, α = 8) on linear(W ∈ ℝ^{m×n})\n"
DECLARED = HEAD + """A ∈ ℝ^{r×n}: learned, init = kaiming
B ∈ ℝ^{m×r}: learned, init = 0
λ ∈ ℝ^r: learned, init = 1
"""


def method(text: str, variant: str | None = None) -> t.Method:
    source = Source.of(text)
    return resolve(parse(source), source, variant)


def leniently(text: str) -> tuple[t.Method, list[Diagnostic]]:
    source = Source.of(text)
    return resolve_leniently(parse(source), source)


def value(line: str, text: str = DECLARED) -> t.Term:
    """The term of ``z ← line``."""
    found = method(f"{text}z ← {line}\ny ← W @ x\n")
    step = next(s for s in found.body if isinstance(s, t.Let) and s.names == ("z",))
    return step.value


def show(term: Any) -> str:
    """A term in a short form with all brackets."""
    match term:
        case t.Number(value=v):
            return str(v)
        case t.Var(name=name):
            return name
        case t.Call(function=f, args=args, kwargs=kwargs):
            return f"{f}({', '.join([*map(show, args), *(f'{k}={show(v)}' for k, v in kwargs)])})"
        case t.Arith(op=op, left=a, right=b):
            return f"({show(a)} {op} {show(b)})"
        case t.Negate(operand=a):
            return f"-{show(a)}"
        case t.Power(base=a, exponent=b):
            return f"{show(a)}^{show(b)}"
        case t.Transpose(operand=a):
            return f"{show(a)}ᵀ"
        case t.Inverse(operand=a):
            return f"{show(a)}⁻¹"
        case t.Item(base=a, items=items):
            return f"{show(a)}[{', '.join(map(show, items))}]"
        case t.Range(start=a, stop=b):
            return f"{'' if a is None else show(a)}:{'' if b is None else show(b)}"
        case t.NormOf(operand=a, axis=axis):
            return f"‖{show(a)}‖{axis or ''}"
        case t.Magnitude(operand=a):
            return f"|{show(a)}|"
        case t.SumOver(indices=i, domain=d, body=b):
            return f"Σ[{','.join(i)} in {show(d)}] {show(b)}"
        case t.Choose(then=a, otherwise=b):
            return f"({show(a)} if … else {show(b)})"
        case t.BlockTerm(rows=rows):
            return "[" + "; ".join(", ".join(map(show, row)) for row in rows) + "]"
        case _:
            raise AssertionError(term)


def codes(text: str, variant: str | None = None) -> list[str]:
    with pytest.raises(PadpError) as caught:
        method(text, variant)
    assert all(d.span is not None and d.source is not None for d in caught.value.diagnostics)
    return [d.code for d in caught.value.diagnostics]


# ---------------------------------------------------------------- subscripts


@pytest.mark.parametrize(("text", "parts"), [
    ("a_i", ("a", "i")), ("aᵢ", ("a", "i")), ("R₁₂", ("R", "12")), ("λ_b", ("λ", "b")), ("W_res", ("W", "res")),
    ("V̂", None), ("S_qk'", None), ("x", None), ("â_i", ("â", "i")),
])
def test_split(text: str, parts: tuple[str, str] | None) -> None:
    assert split(text) == parts


def test_spellings_of_a_subscript_are_one_name() -> None:
    assert key("aᵢ") == key("a_i") and key("R₁") == key("R_1")
    found = method(HEAD + "λ_d ∈ ℝ^r: learned, init = 0\nβ₁ ← 1\nz ← λ_d · β_1\ny ← W @ x\n")
    z = found.body[1]
    assert isinstance(z, t.Let) and show(z.value) == "(λ_d · β₁)"


@pytest.mark.parametrize(("line", "want"), [
    ("λ_0", "λ[0]"), ("A_1", "A[1]"), ("A_{:, :k}", "A[:, :k]"), ("A_{r}", "A[r]"), ("B_{:,0}", "B[:, 0]"),
    ("W(x)", "(W * x)"), ("W x", "(W * x)"), ("A(B)⁻¹", "(A * B⁻¹)"), ("skew(λ)⁻¹", "skew(λ)⁻¹"),
    ("(I + W)(I - W)⁻¹", "((I + W) * (I - W)⁻¹)"), ("(I + W)ᵀ(I - W)", "((I + W)ᵀ * (I - W))"),
    ("cos λ · x", "(cos(λ) · x)"), ("cos λ_0 x", "(cos(λ[0]) * x)"), ("sin cos λ", "sin(cos(λ))"),
    ("sin² λ", "sin(λ)^2"), ("2r", "(2 * r)"), ("r(m + n)", "(r * (m + n))"), ("√λ_0", "sqrt(λ[0])"),
    ("‖W‖_F²", "‖W‖F^2"), ("|λ|", "|λ|"), ("W^-1", "W⁻¹"), ("W.T", "Wᵀ"), ("-λ", "-λ"),
    ("x xᵀ", "(x * xᵀ)"), ("W @ x - x", "((W @ x) - x)"), ("[W, bias]", "[W, bias]"), ("[x; 1]", "[x; 1]"),
    ("iFFT2(W)", "ifft2(W)"), ("svd(W, rank = r)", "svd(W, rank=r)"), ("λ if m ≥ n else x", "(λ if … else x)"),
    ("Σ_{i ∈ range(r)} λ_i", "Σ[i in range(r)] λ[i]"), ("Σᵢ λᵢ", "Σ[i in range(r)] λ[i]"),
    ("Σᵢ aᵢ · bᵢᵀ", "Σ[i in range(r)] (A[i] · B[:, i]ᵀ)"), ("Σⱼ W_{:,j} · x_j", "Σ[j in range(n)] (W[:, j] · x[j])"),
    ("Σᵢ A_i", "Σ[i in range(r)] A[i]"), ("Σ_{i ∈ range(m)} bᵢ", "Σ[i in range(m)] B[i]"),
    ("cayley(W)", "cayley(W)"), ("x[2r]", "x[(2 * r)]"),
    ("scatter(λ, x, shape=(m,n))", "scatter(λ, x, shape=tuple(m, n))"),
])
def test_readings(line: str, want: str) -> None:
    assert show(value(line)) == want


def test_a_bound_name_wins() -> None:
    text = DECLARED + "λ_b ∈ ℝ^m: learned, init = 0\nb ← 1\n"
    assert show(value("λ_b", text)) == "λ_b"
    assert show(value("A_i", DECLARED + "A_i ← W\n")) == "Aᵢ"


def test_transposed_names() -> None:
    text = DECLARED + "U, Σ, Vᵀ ← svd(W)\n"
    assert show(value("Vᵀ_{:k}", text)) == "Vᵀ[:k]"
    assert show(value("V", text)) == "Vᵀᵀ"
    assert show(value("Vᵀ.T", text)) == "Vᵀᵀ"
    assert show(value("Uᵀ", text)) == "Uᵀ"
    assert show(value("Σᵢ Σ_i · uᵢ vᵢᵀ", text)) == \
        "Σ[i in range(min(m, n))] (Σ[i] · (U[:, i] * Vᵀᵀ[:, i]ᵀ))"
    found = method(text + "V̂ᵀ ← Vᵀ; V̂ᵀ_{:k} ← A; V̂ᵀ_{0} += λ\ny ← W @ x\n")
    assert [s.name for s in found.body if isinstance(s, t.Write)] == ["V̂ᵀ", "V̂ᵀ"]


def test_ellipsis() -> None:
    text = HEAD + "Q ∈ (ℝ^{k×k})^b: learned, init = 0\nR ← Q\n"
    for line in ("blkdiag(R₁, ..., R_b)", "blkdiag(R_{0}, ..., R_{b-1})", "blkdiag(R)"):
        assert show(value(line, text)) == "blkdiag(R)"
    assert codes(text + "y ← blkdiag(R₁, ..., W) @ x\n") == ["E209"]


def test_spaces() -> None:
    found = method(HEAD + "Q ∈ ℝ^{b×k×k}: learned, init = 0\nΩ ← band(r, 1)\nc ∈ ℝ^Ω: learned, init = 0\nR ∈ St(r, n): "
                   "learned, init = orthogonal\ny ← W @ x\n")
    Q, c, R = found.parameters
    assert ([show(d) for d in Q.space.dims], [show(d) for d in Q.space.family]) == (["k", "k"], ["b"])
    assert c.space.index == "Ω" and [show(d) for d in c.space.dims] == ["|Ω|"]
    assert R.space.kind == "St" and show(R.init) == "orthogonal()"


# ---------------------------------------------------------------- statements


def test_definitions_by_index() -> None:
    found = method(DECLARED + """s_i ← |λ_i| · ‖bᵢ‖
for j in range(r):
    t_j ← λ_j
H_{i,:} ← λ_i · aᵢ
y ← W @ x
""")
    one, two, three = (s for s in found.body if isinstance(s, t.Loop))
    assert one.variables == ("i",) and show(one.domain) == "range(r)" and isinstance(one.body[0], t.Write)
    assert show(one.body[0].value) == "(|λ[i]| · ‖B[:, i]‖)"
    assert isinstance(two.body[0], t.Let)  # t_j is used nowhere else: a name of one iteration
    assert isinstance(three.body[0], t.Write) and show(three.body[0].value) == "(λ[i] · A[i])"


def test_a_name_of_one_iteration() -> None:
    text = HEAD + "v ∈ ℝ^{r×n}: learned, init = 0\nR ← I\nfor i in range(r):\n    Hᵢ ← I - vᵢ vᵢᵀ\n    R ← Hᵢ @ R\n"
    loop = next(s for s in method(text + "y ← W @ R @ x\n").body if isinstance(s, t.Loop))
    assert isinstance(loop.body[0], t.Let) and loop.body[0].names == ("Hᵢ",)
    loop = next(s for s in method(text + "y ← W @ H_{0} @ R @ x\n").body if isinstance(s, t.Loop))
    assert isinstance(loop.body[0], t.Write) and loop.body[0].name == "H"


def test_what_is_bound_in_a_loop_is_local() -> None:
    text = HEAD + "for i in range(r):\n    u ← x · i\n    s_{i} ← 2i\nz ← s\n"
    assert method(text + "y ← W @ x\n").output == "y"
    with pytest.raises(PadpError) as caught:
        method(text + "y ← W @ u\n")
    assert [d.code for d in caught.value.diagnostics] == ["E201"]
    assert "lives for one iteration" in caught.value.diagnostics[0].notes[0]


def test_functions() -> None:
    text = DECLARED + "f(u) ← 2 · u\ng(u, v) ← f(u) + α · v\nunused(u) ← u\n"
    found = method(text + "z ← g(W, W)\ny ← W @ x\n")
    assert [f.name for f in found.functions] == ["f", "g"]
    found = method(DECLARED + "y ← W @ cayley(W) @ x\n")
    assert [f.name for f in found.functions] == ["cayley"]
    found = method(DECLARED + "cayley(K) ← (I + K)(I - K)⁻¹\ny ← W @ cayley(W) @ x\n")
    assert show(found.functions[0].body) == "((I + K) * (I - K)⁻¹)"


def test_variants() -> None:
    text = HEAD + """a ← 1
variant one:
    λ ∈ ℝ^n: learned, init = 1
variant two:
    λ ∈ ℝ^m: learned, init = 2
common:
    b ← λ
y ← W @ x
"""
    source = Source.of(text)
    assert list_variants(parse(source)) == ("one", "two")
    assert method(text).variant == "one" and show(method(text).parameters[0].space.dims[0]) == "n"
    two = method(text, "two")
    assert two.variant == "two" and show(two.parameters[0].space.dims[0]) == "m"
    assert [s.names for s in two.body if isinstance(s, t.Let)] == [("a",), ("b",), ("y",)]
    assert codes(text, "three") == ["E208"]
    assert codes(HEAD + "y ← W @ x\n", "three") == ["E208"]


def test_header() -> None:
    found = method("""# ReFT: an intervention   arXiv:2404.03592
adapter ReFT(r = 4, β₁ = 0.85, knob s = 1, steps) on hidden(h ∈ ℝ^d, positions = "f7+l7") where r ≤ d, d even
h ← h · s
""")
    assert found.title == "ReFT: an intervention" and found.site == "hidden" and found.output == "h"
    assert [(h.name, h.knob, h.default is None) for h in found.hyper] == [
        ("r", False, False), ("β₁", False, False), ("s", True, False), ("steps", False, True)]
    assert found.options == (("positions", t.Text("f7+l7")),)
    assert [test.op for test in found.relations] == ["≤", "even"]
    linear = method("adapter T on linear(W ∈ ℝ^{a×b})\ny ← W @ x\n")
    shapes = {b.name: [show(d) for d in b.space.dims] for b in linear.bound}
    assert shapes == {"W": ["a", "b"], "x": ["b"], "bias": ["a"]}
    joint = method("adapter T on attention\ny ← attn(q = W_Q @ x)\n")
    assert {b.name for b in joint.bound} == {"W_Q", "W_K", "W_V", "W_O", "b_Q", "b_K", "b_V", "b_O", "x"}


def test_training() -> None:
    found = method(DECLARED + """g(w) ← |w ⊙ ∇w|; a(w) ← ema(g(w), 0.9)
y ← (W + B @ A) @ x
minimise ‖A‖_F²
after backward:
    S ← a(λ)
    λ ← keep(λ, S, cubic(r, 1, 10), over = model)
""")
    assert len(found.minimise) == 1 and len(found.updates) == 2
    assert [f.name for f in found.functions] == ["g", "a"]
    last = found.updates[1]
    assert isinstance(last, t.Let) and isinstance(last.value, t.Call)
    assert dict(last.value.kwargs)["over"] == t.Text("model")


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize(("body", "wanted"), [
    ("y ← W @ z\n", ["E201"]),
    ("y ← W @ z + z + q\n", ["E201", "E201"]),  # each name once
    ("y ← frobnicate(W) @ x\n", ["E203"]),
    ("y ← W @ x\nm ← 3\n", ["E202"]),
    ("y ← W @ x\nr ← 3\n", ["E202"]),
    ("y ← W @ x\nI ← W\n", ["E202"]),
    ("m ∈ ℝ^m: learned, init = 0\ny ← W @ x\n", ["E202"]),
    ("r ∈ ℝ^m: learned, init = 0\ny ← W @ x\n", ["E202"]),
    ("A ∈ ℝ^m: learned, init = 0\ny ← W @ x\n", ["E205"]),
    ("W ∈ ℝ^m: learned, init = 0\ny ← W @ x\n", ["E205"]),
    ("C ∈ ℝ^m: learnt, init = 0\ny ← W @ x\n", ["E204"]),
    ("C ∈ ℝ^m: learned, frozen, init = 0\ny ← W @ x\n", ["E204"]),
    ("C ∈ ℝ^m: frozen\ny ← W @ x\n", ["E204"]),
    ("C ∈ ℝ^m: frozen, init = kaiming\ny ← W @ x\n", ["E204"]),
    ("C ∈ ℝ^m: learned, init = kaiming(1, 2)\ny ← W @ x\n", ["E209"]),
    ("C ∈ ℝ^m: learned, init = kayming\ny ← W @ x\n", ["E204"]),
    ("z ← 1\n", ["E207"]),
    ("U, S ← svd(W)\ny ← W @ x\n", ["E209"]),
    ("a, b ← W\ny ← W @ x\n", ["E209"]),
    ("y ← skew(W, W) @ x\n", ["E209"]),
    ("y ← svd(W, full = r) @ x\n", ["E209"]),
    ("y ← W @ cos\n", ["E209"]),
    ("y ← range(3) @ x\n", ["E210"]),
    ("y ← attn(q = x)\n", ["E210"]),
    ("y ← ∇A @ x\n", ["E210"]),
    ("y ← ema(W, 0.9) @ x\n", ["E210"]),
    ("g(w) ← ∇w\ny ← g(A) @ x\n", ["E210"]),
    ("f(u) ← g(u)\ng(u) ← f(u)\ny ← f(W) @ x\n", ["E106"]),
    ("f(u) ← f(u)\ny ← f(W) @ x\n", ["E106"]),
    ("skew(u) ← u\ny ← W @ x\n", ["E205"]),
    ("I(u) ← u\ny ← W @ x\n", ["E202"]),
    ("W(u) ← u\ny ← W @ x\n", ["E106"]),
    ("y ← W @ x\ny ← (Σᵢ 3) · y\n", ["E307"]),
    ("y ← (Σᵢ λᵢ · x_i) · W @ x\n", ["E307"]),  # r against n
    ("y ← aᵢ\n", ["E206"]),
    ("for i in range(k): s_{i} ← ‖aᵢ‖\ny ← W @ x\n", ["E206"]),
    ("s_i ← ‖aᵢ‖\ny ← W @ x\n", ["E206"]),
    ("for A in range(3): z ← 1\ny ← W @ x\n", ["E202"]),
    ("for i, j in range(3): z ← 1\ny ← W @ x\n", ["E209"]),
    ("for i in r: z ← 1\ny ← W @ x\n", ["E307"]),
    ("y ← model.layer[0].output @ x\n", ["E510"]),
    ("y ← ‖W‖_up · x\n", ["E204"]),
    ("y ← (A if A ≥ n else A) @ x\n", ["E210"]),
    ("minimise z\ny ← W @ x\n", ["E201"]),
    ("u ← λ\nminimise ‖u‖\nu ← 2 · u\ny ← W @ x\n", ["E210"]),
    ("y += W @ x\n", ["E201"]),
    ("y ← W @ x\ny_{0} ← learned\n", ["E201"]),
    ("z += 1\ny ← W @ x\n", ["E201"]),
    ("B @ A ← W\ny ← W @ x\n", ["E106"]),
    ("y ← W @ \"x\"\n", ["E106"]),
    ("y ← blkdiag(...) @ x\n", ["E209"]),
    ("y ← B @ ... @ A @ x\n", ["E106"]),
])
def test_refusals(body: str, wanted: list[str]) -> None:
    assert codes(DECLARED + body) == wanted


@pytest.mark.parametrize(("text", "wanted"), [
    ("adapter T on conv(W ∈ ℝ^{m×n})\ny ← W @ x\n", ["E204"]),
    ("adapter T on linear(M ∈ ℝ^{m×n})\ny ← M @ x\n", ["E204"]),
    ("adapter T on linear(W ∈ ℝ^m)\ny ← W\n", ["E204"]),
    ("adapter T(r = 1, r = 2) on linear\ny ← W @ x\n", ["E205"]),
    ("adapter T(I = 1) on linear\ny ← W @ x\n", ["E205"]),
    ("adapter T on hidden(h ∈ ℝ^d, place = \"all\")\nh ← h\n", ["E204"]),
    ("adapter T on hidden(h ∈ ℝ^d)\ny ← h\n", ["E207"]),
    ("adapter T on attention\ny ← W_Q @ x\n", ["E210"]),
    ("adapter T on attention\nz ← attn(q = x)\ny ← z\n", ["E210", "E210"]),
    ("adapter T(r = s) on linear\ny ← W @ x\n", ["E201"]),
])
def test_headers_refused(text: str, wanted: list[str]) -> None:
    assert codes(text) == wanted


def test_nearest_names_and_two_places() -> None:
    with pytest.raises(PadpError) as caught:
        method(DECLARED + "ΔW ← B @ A\ny ← (W + ΔV) @ x\n")
    (found,) = caught.value.diagnostics
    assert found.notes == ("names that look like it: ΔW",)
    with pytest.raises(PadpError) as caught:
        method(DECLARED + "A ∈ ℝ^r: learned, init = 0\ny ← W @ x\n")
    (found,) = caught.value.diagnostics
    assert found.related and found.source is not None
    assert found.source.position(found.related[0].span.start) == (2, 1)


def test_nested_sums_take_no_time() -> None:
    sums = "".join(f"Σ{c}" for c in "ₐₑₕᵢⱼₖₗₘₙₒₚᵣₛₜᵤᵥₓ")
    assert set(codes(HEAD.replace("m×n", "p×q") + f"y ← ({sums} 1) · W @ x\n")) <= {"E202", "E307"}


def test_functions_that_would_grow_without_bound() -> None:
    lines = ["f0(u) ← u + u"] + [f"f{i}(u) ← f{i - 1}(u) + f{i - 1}(u)" for i in range(1, 40)]
    assert "E105" in codes(HEAD + "\n".join(lines) + "\ny ← W @ f39(x)\n")


# ---------------------------------------------------------------- programs without declarations


def suggestions(found: Sequence[Diagnostic]) -> dict[str, str | None]:
    return {m[1]: d.suggestion for d in found if (m := re.search("`(.*?)`", d.message))}


def test_shapes_from_comments() -> None:
    found, wrong = leniently("""# A ∈ ℝ^{r×n}, B ∈ ℝ^{m×r}: frozen random, shared ALL layers
# λ_d ∈ ℝ^r, λ_b ∈ ℝ^r: learned per-layer
# γ ∈ ℝ^n: learned, init=1
ΔW ← (λ_b ⊙ B) @ (λ_d ⊙ A)        # ΔW ∈ ℝ^{m×n}
y ← (W + ΔW) @ (x ⊙ γ)
""")
    assert {p.name: (p.role, p.shared) for p in found.parameters} == {
        "A": ("frozen", True), "B": ("frozen", True), "λ_d": ("learned", False), "λ_b": ("learned", False),
        "γ": ("learned", False)}
    said = suggestions(wrong)
    assert said["A"] == "A ∈ ℝ^{r×n}: frozen, shared, init = kaiming, seed = 0"
    assert said["γ"] == "γ ∈ ℝ^n: learned, init = 1"
    assert {d.code for d in wrong} == {"E201"}


def test_shapes_from_claims_on_results() -> None:
    found, wrong = leniently("""Q_skew ← skew(Q)    # Q_skew ∈ ℝ^{b×k×k}, antisymmetric
ΔW ← B @ A          # ΔW ∈ ℝ^{m×n}, rank r
y ← (W + (α/r) · ΔW) @ x
""")
    said = suggestions(wrong)
    assert said["Q"] == "Q ∈ (ℝ^{k(k-1)/2})^{b}: learned, init = 0"
    assert said["B"] == "B ∈ ℝ^{m×r}: learned, init = 0"
    assert said["r"] == "give it one in the header: adapter NAME(r = 8)"
    assert {p.name for p in found.parameters} == {"Q", "A", "B"}


def test_a_dimension_and_a_tensor_of_one_name() -> None:
    found, wrong = leniently("# m ∈ ℝ^{m}: learned magnitude\ny ← (m · W) @ x\n")
    assert [d.code for d in wrong] == ["E202"]
    last = found.body[-1]
    assert isinstance(last, t.Let) and show(last.value) == "((m (the tensor) · W) @ x)"
    assert [show(d) for d in found.parameters[0].space.dims] == ["m"]


def test_declarations_in_loops() -> None:
    found, wrong = leniently("""R ← I
for i in range(r):
    vᵢ ← learned                  # v ∈ ℝ^d
    R ← (I - vᵢ vᵢᵀ) @ R
y ← (W @ Rᵀ) @ x
""")
    (v,) = found.parameters
    assert (v.name, [show(d) for d in v.space.family], [show(d) for d in v.space.dims]) == ("v", ["r"], ["d"])
    assert suggestions(wrong)["vᵢ ← learned"] == "before the loop: v ∈ (ℝ^d)^r: learned, init = kaiming"
    loop = found.body[1]
    assert isinstance(loop, t.Loop) and [s.names for s in loop.body if isinstance(s, t.Let)] == [("R",)]


def test_undeclared_things_stay_and_are_said_once() -> None:
    found, wrong = leniently("""h ← model.layer[l].output[pos]
for (i,j,θ) in givens_pairs:
    h ← h + θ · q
h ← h + q
""")
    assert [d.code for d in wrong] == ["E510", "E201", "E201"]
    assert found.output == "h"
    names = {v.name for v in walk(found.body) if isinstance(v, t.Var)}
    assert {"model.layer[l].output[pos]", "givens_pairs", "q"} <= names


SEED = Path(__file__).parents[2].parent / "shared" / "seed" / "adapters_pseudocode.md"
SAMPLES = [
    "ΔW ← B @ A\ny ← (W + ΔW) @ x\n", "â_i ← ‖aᵢ‖, b̂ⱼ ← ‖bⱼ‖\ny ← x\n", "ΔW ← Σₜ cₜ · uᵢ vⱼᵀ\n",
    "R ← B_m @ ... @ B₂ @ B₁\n", "y ← attn(W_Q' @ x, W_K' @ x, ...)\n", DECLARED + "y ← W @ x\n",
    "for i in range(d//2):\n    x̂[2i] ← α_i · x[2i]\n",
]


def test_the_blocks_of_the_source_document() -> None:
    if not SEED.exists():
        pytest.skip("the source document is not part of this clone")
    blocks = re.findall(r"```\n(.*?)```", SEED.read_text(encoding="utf-8"), re.S)
    assert len(blocks) == 20
    said: dict[int, set[str]] = {}
    for number, block in enumerate(blocks, 1):
        found, wrong = leniently(block)
        assert found.body and all(d.span is not None and d.source is not None for d in wrong)
        said[number] = {d.code for d in wrong}
    assert all("E201" in s for n, s in said.items() if n not in (4,)) and "E202" in said[4]
    assert "E207" in said[19] and "E510" in said[20]


WORDS = [
    "W", "x", "A", "B", "λ", "aᵢ", "λ_i", "R₁", "i", "j", "r", "m", "n", "I", "Vᵀ", "Ω", "skew", "cos", "svd",
    "ema", "∇A", "range", "attn", "blkdiag", "learned", "2", "0.5", "...", "Σᵢ ", "Σ_{i ∈ range(r)} ", "(", ")",
    "[", "]", "_{", "}", ":", ",", ";", "←", "+=", "+", "-", "·", "@", "⊙", "⊗", "/", "//", "‖", "|", "²", "⁻¹",
    "ᵀ", "∈", "ℝ^{r×n}", "\n", "for i in range(r):", "for (i,j) in Ω:", "after backward:", "minimise",
    "variant a:", "common:", "\n    ", " ",
]


@settings(max_examples=400, deadline=None)
@given(st.lists(st.sampled_from(WORDS), max_size=25), st.sampled_from([*SAMPLES, HEAD, ""]), st.booleans())
def test_nothing_but_diagnostics_comes_out(words: list[str], start: str, spaced: bool) -> None:
    text = start + (" " if spaced else "").join(words) + "\n"
    source = Source.of(text)
    try:
        program = parse(source)
    except PadpError:
        return
    found, wrong = resolve_leniently(program, source)
    assert isinstance(found, t.Method)
    if any(d.severity == "error" for d in wrong):
        with pytest.raises(PadpError):
            resolve(program, source)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(SAMPLES), st.data())
def test_mutated_programs(sample: str, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(sample)))
    cut = data.draw(st.integers(0, 4))
    text = sample[:at] + data.draw(st.sampled_from(WORDS)) + sample[at + cut :]
    source = Source.of(text)
    try:
        program = parse(source)
    except PadpError:
        return
    resolve_leniently(program, source)
