"""What other people's notations mean here: each gets the way to write it."""

from __future__ import annotations

import re

import pytest

import padp
from padp.dsl.diagnostics import Diagnostic

HEAD = "adapter T(r = 4) on linear(W ∈ ℝ^{m×n})\nB ∈ ℝ^{m×r}: learned, init = 0\ng ∈ ℝ^r: learned, init = 1\n"

NOTATIONS: dict[str, tuple[str, str]] = {
    **{f"A ∈ ℝ^{{r×n}}: learned, init = {word}\ny ← (W + B @ A) @ x\n": ("E204", remedy) for word, remedy in (
        ("randn", "init = normal("), ("N(0, 0.02)", "init = normal(0, 0.02)"), ("he", "init = kaiming_normal"),
        ("glorot", "init = xavier"), ("rand", "init = uniform("))},
    "y ← W @ x + (Σ_e g_e) · bias\n": ("E201", "Σ_{e ∈ range(n)}"),
    "y ← W @ x + (Π_e g) · bias\n": ("E201", "for e in range(r)"),
    "y ← W @ (Π_e (I - g_e · I)) @ x\n": ("E203", "for i in range(r)"),
    "y ← W.t() @ x\n": ("E510", "Aᵀ"),
}


@pytest.mark.parametrize("text", NOTATIONS)
def test_a_notation_of_others_is_told_how_it_is_written(text: str) -> None:
    code, remedy = NOTATIONS[text]
    found = [d for d in padp.check(HEAD + text) if d.code == code]
    assert any(remedy in (d.suggestion or "") for d in found), list(map(str, found))


LOW = """adapter T(r = 4, α = 16) on linear(W ∈ ℝ^{m×n})
A ∈ ℝ^{r×n}: learned, init = kaiming
B ∈ ℝ^{m×r}: learned, init = 0
s ∈ ℝ^r: learned, init = 1
"""
ATTENTION = "adapter T on attention(W_Q ∈ (ℝ^{e×d})^H, W_K ∈ (ℝ^{e×d})^G, W_V ∈ (ℝ^{e×d})^G, W_O ∈ (ℝ^{d×e})^H)\n"
HIDDEN = "adapter T(r = 4) on hidden(h ∈ ℝ^d)\nR ∈ ℝ^{r×d}: learned, init = orthogonal\n"


def errors(text: str) -> list[Diagnostic]:
    return [d for d in padp.check(text) if d.severity == "error"]


def applied(text: str, seen: str | None = None) -> str:
    """A program with its one finding's suggestion in the place of what was found, or of ``seen``."""
    (found,) = errors(text)
    said = re.search("write `([^`]+)`", found.suggestion or "")
    assert said is not None, str(found)
    assert found.span is not None
    place = text.index(seen, found.span.start) if seen else found.span.start
    return text[:place] + said[1] + text[place + len(seen) if seen else found.span.end:]


# What is written, and what it must become.
SIDE_BY_SIDE: dict[str, str] = {
    LOW + "y ← (W + «BA») @ x\n": "B @ A",
    LOW + "y ← W @ x + «BAx»\n": "B @ A @ x",
    LOW + "y ← «Wx» + B @ A @ x\n": "W @ x",
    LOW + "y ← W @ x + (α/r) · «BAx»\n": "B @ A @ x",
    LOW + "y ← W @ x + α«BA» @ x\n": "B @ A",
    LOW + "y ← W @ x + B @ (s ⊙ «Ax»)\n": "(A @ x)",
    LOW + "y ← W @ x + (α/«rm») · B @ A @ x\n": "(r · m)",
    LOW + "ΔW ← B @ A\ny ← W @ x + «ΔWx»\n": "ΔW @ x",
    LOW + "f(v) ← «BA» @ v\ny ← W @ x + f(x)\n": "B @ A",
    HIDDEN + "h ← h + Rᵀ @ «Rh»\n": "R @ h",
    ATTENTION + "y ← attn(q = «W_Qx»)\n": "W_Q @ x",
}


@pytest.mark.parametrize("marked", SIDE_BY_SIDE)
def test_known_names_side_by_side_are_told_with_their_signs(marked: str) -> None:
    text, start = marked.replace("«", "").replace("»", ""), marked.index("«")
    (found,) = errors(text)
    assert found.span is not None and (found.code, found.span.start) == ("E201", start)
    assert [d.code for d in padp.check(text) if d.code == "W301"] == []
    assert found.suggestion == f"write `{SIDE_BY_SIDE[marked]}`"
    assert errors(applied(text)) == []


def test_a_word_that_is_not_made_of_names_is_told_to_declare_it() -> None:
    (found,) = errors(LOW + "y ← W @ x + BC @ x\n")
    assert found.suggestion is not None and found.suggestion.startswith("declare it, `BC")


@pytest.mark.parametrize(("text", "word", "product"), [
    ("adapter T(r = 2) on linear(W ∈ ℝ^{m×n})\nC ∈ ℝ^{nr}: learned, init = 0\ny ← W @ x + sum(C) · bias\n",
     "nr", "n·r"),
    ("adapter T(b = 2) on linear(W ∈ ℝ^{m×n}) where n = bk\nC ∈ ℝ^k: learned, init = 0\ny ← W @ x + sum(C) · bias\n",
     "bk", "b·k"),
])
def test_sizes_side_by_side(text: str, word: str, product: str) -> None:
    (found,) = errors(text)
    assert (found.code, found.suggestion) == ("E309", f"write `{product}`")
    assert errors(text.replace(word, product)) == []


@pytest.mark.parametrize("seen", ["W_{down}", "W_{1}", "W_{up,1}", "ΔW_{q}"])
def test_a_subscript_in_braces_is_no_part_of_a_name(seen: str) -> None:
    text = f"adapter T(r = 4) on linear(W ∈ ℝ^{{m×n}})\n{seen} ∈ ℝ^{{r×n}}: learned, init = kaiming\n" \
           f"B ∈ ℝ^{{m×r}}: learned, init = 0\ny ← W @ x + B @ {seen} @ x\n"
    once = applied(text)
    name = re.search("write `([^`]+)`", errors(text)[0].suggestion or "")
    assert name is not None
    assert errors(once.replace(seen, name[1])) == []


def test_a_use_with_braces_of_a_name_without() -> None:
    text = "adapter T(r = 4) on linear(W ∈ ℝ^{m×n})\nW_down ∈ ℝ^{r×n}: learned, init = kaiming\n" \
           "B ∈ ℝ^{m×r}: learned, init = 0\ny ← W @ x + B @ W_{down} @ x\n"
    (found,) = errors(text)
    assert (found.code, found.suggestion) == ("E201", "write `W_down`, one name")


@pytest.mark.parametrize("count", ["rn + mr", "nr + rm", "r(m + n)", "2rn/2 + mr", "r · n + mr", "O(rn + mr)"])
@pytest.mark.parametrize("form", ["params: {}", "{} params"])
def test_counts_in_letters_side_by_side_are_claims(count: str, form: str) -> None:
    low = LOW.replace("s ∈ ℝ^r: learned, init = 1\n", "").replace(", α = 16", "")
    assert padp.check(f"{low}y ← (W + B @ A) @ x\n# {form.format(count)}\n") == []


@pytest.mark.parametrize(("count", "code"), [
    ("2rn + mr", "E401"), ("mn", "E401"), ("rn²", "E401"), ("O(r)", "E401"), ("O(rm)", "E401"), ("rn/mr", "N402")])
@pytest.mark.parametrize("form", ["params: {}", "{} params"])
def test_wrong_counts_in_letters_side_by_side_are_found(count: str, code: str, form: str) -> None:
    """Where it is open what is divided by, the claim is not read."""
    low = LOW.replace("s ∈ ℝ^r: learned, init = 1\n", "").replace(", α = 16", "")
    assert [d.code for d in padp.check(f"{low}y ← (W + B @ A) @ x\n# {form.format(count)}\n")] == [code]


@pytest.mark.parametrize("product", ["t · W_Q", "t ⊙ W_Q", "W_Q · t", "W_Q ⊙ t", "diag(t) @ W_Q", "t @ W_Q", "t W_Q",
                                     "W_Q / t"])
def test_a_number_for_each_head(product: str) -> None:
    text = f"{ATTENTION}t ∈ ℝ^H: learned, init = 1\ny ← attn(q = ({product}) @ x)\n"
    (found,) = errors(text)
    assert found.suggestion is not None
    space, use = re.findall("`([^`]+)`", found.suggestion)
    assert errors(text.replace("t ∈ ℝ^H", space).replace(product, use)) == []


def test_a_number_for_each_member_of_any_family() -> None:
    text = "adapter T(k = 4) on linear(W ∈ ℝ^{m×n}) where n = k·b\nR ∈ (ℝ^{k×k})^b: learned, init = I\n" \
           "s ∈ ℝ^b: learned, init = 1\ny ← W @ blkdiag(s · R) @ x\n"
    (found,) = errors(text)
    assert "declare `s ∈ (ℝ)^b`" in (found.suggestion or "")
    assert errors(text.replace("s ∈ ℝ^b", "s ∈ (ℝ)^b")) == []


@pytest.mark.parametrize(("sum_", "number"), [
    ("(B + 1) @ A", "1"), ("(1 - B) @ A", "1"), ("(B - 2) @ A", "2"), ("(α + B) @ A", "α"), ("B @ (A + r)", "r"),
    ("(B + 0.5) @ A", "0.5"), ("B @ diag(1 - s) @ A", "1"), ("B @ diag(s + 1) @ A", "1")])
def test_a_number_in_every_entry(sum_: str, number: str) -> None:
    text = f"{LOW}y ← (W + {sum_}) @ x\n"
    assert errors(applied(text, number)) == []


def test_a_number_on_the_diagonal() -> None:
    (found,) = errors("adapter T on linear(W ∈ ℝ^{m×n})\nC ∈ ℝ^{n×n}: learned, init = 0\ny ← W @ (C + 1) @ x\n")
    assert found.suggestion == "write `ones(n, n)` for 1, or `I` for 1 on the diagonal"


@pytest.mark.parametrize("call", ["max(s, 0)", "max(0, s)", "min(s, 1)", "max(s, s)", "min(α, s)", "max(2 · s, -1)"])
def test_max_of_two_that_are_no_sizes(call: str) -> None:
    text = f"{LOW}y ← W @ x + B @ diag({call}) @ A @ x\n"
    assert ("relu(s)" in str(errors(text)[0])) == (call in ("max(s, 0)", "max(0, s)"))
    assert errors(applied(text)) == []


@pytest.mark.parametrize("function", ["sum", "mean", "max", "min"])
@pytest.mark.parametrize(("argument", "way"), [
    ("B, dim=0", "_col(B)"), ("B, axis=1", "_row(B)"), ("B, dim=-1", "_row(B)"), ("s, dim=0", "(s)"),
    ("B, dim=1, keepdim=1", "_row(B)")])
def test_an_axis_is_part_of_the_name(function: str, argument: str, way: str) -> None:
    text = f"{LOW}u ← {function}({argument})\ny ← W @ x + ‖u‖ · B @ (s ⊙ (A @ x))\n"
    (found,) = errors(text)
    assert (found.code, found.suggestion) == ("E209", f"write `{function}{way}`")
    assert errors(applied(text)) == []


@pytest.mark.parametrize(("word", "remedy"), [
    ("avg", "mean(M)"), ("average", "mean(M)"), ("amax", "max(M)"), ("amin", "min(M)"), ("fabs", "abs(e)"),
    ("absolute", "abs(e)"), ("clip", "clamp(e"), ("fmax", "maximum(a"), ("fmin", "minimum(a")])
def test_functions_of_array_libraries(word: str, remedy: str) -> None:
    (found,) = errors(f"{LOW}y ← W @ x + {word}(B) @ (s ⊙ (A @ x))\n")
    assert found.code == "E203" and remedy in (found.suggestion or "")


OTHER_SITES: dict[str, tuple[str, str]] = {
    LOW + "y ← W @ x + B @ (s ⊙ (A @ x)) + b\n": ("bias", "a linear site gives W, x and bias"),
    LOW + "y ← W @ h + B @ (s ⊙ (A @ x))\n": ("x", "`h` is of a hidden site"),
    LOW + "y ← W @ X + B @ (s ⊙ (A @ x))\n": ("x", "a linear site gives W, x and bias"),
    HIDDEN + "h ← h + Rᵀ @ R @ x\n": ("h", "a hidden site gives h"),
    ATTENTION + "y ← attn(q = W_Q @ h)\n": ("x", "`h` is of a hidden site"),
    ATTENTION + "y ← attn(q = W_Q @ x + b)\n": ("b_Q", "an attention site gives"),
    ATTENTION + "y ← attn(q = W_Q @ x + bias)\n": ("b_Q", "`bias` is of a linear site"),
    ATTENTION + "y ← attn(q = W @ x)\n": ("W_Q", "`W` is of a linear site"),
}


@pytest.mark.parametrize("text", OTHER_SITES)
def test_a_name_of_another_site(text: str) -> None:
    name, note = OTHER_SITES[text]
    (found,) = errors(text)
    assert f"write `{name}`" in (found.suggestion or "") and any(note in n for n in found.notes), str(found)
    assert errors(applied(text)) == []


@pytest.mark.parametrize("name", ["W", "bias"])
def test_what_a_hidden_site_has_not(name: str) -> None:
    (found,) = errors(f"{HIDDEN}h ← h + Rᵀ @ R @ {name}\n")
    assert "adapter NAME on linear(W ∈ ℝ^{m×n})" in (found.suggestion or "")
    assert found.notes == (f"a hidden site gives h; `{name}` is of a linear site",)


@pytest.mark.parametrize("name", ["W_Q", "b_Q", "b_O"])
def test_a_head_s_names_at_a_linear_site(name: str) -> None:
    """b_Q is no slice of B."""
    (found,) = errors(f"{LOW}y ← W @ x + B @ (s ⊙ (A @ x)) + {name}\n")
    note = f"a linear site gives W, x and bias; `{name}` is of an attention site"
    assert (found.code, found.notes) == ("E201", (note,))


@pytest.mark.parametrize(("text", "wrong", "right"), [
    (HIDDEN + "y ← h + Rᵀ @ R @ h\n", "y ←", "h ←"), (LOW + "h ← W @ x + B @ (s ⊙ (A @ x))\n", "h ←", "y ←")])
def test_the_output_of_another_site(text: str, wrong: str, right: str) -> None:
    (found,) = errors(text)
    assert found.code == "E207" and f"write `{right} …` for `{wrong} …`" in (found.suggestion or "")
    assert errors(text.replace(wrong, right)) == []


@pytest.mark.parametrize(("head", "body"), [
    ("linear(W_0 ∈ ℝ^{m×n})", "y ← W_0 @ x"), ("linear(M ∈ ℝ^{m×n})", "y ← M @ x + bias"),
    ("hidden(z ∈ ℝ^d)", "z ← 2 · z")])
def test_what_a_site_gives_under_another_name_is_one_finding(head: str, body: str) -> None:
    (found,) = errors(f"adapter T on {head}\n{body}\n")
    assert found.code == "E204" and (found.suggestion or "").startswith("write `")


def test_the_frozen_weight_of_papers() -> None:
    text = LOW + "y ← W_0 @ x + B @ (s ⊙ (A @ x))\n"
    assert "write `W`" in (errors(text)[0].suggestion or "")
    assert errors(applied(text, "W_0")) == []


@pytest.mark.parametrize(("value", "index"), [("ones(r)", "0"), ("g ⊙ g", "1"), ("zeros(r)", "12"), ("g", "3")])
def test_an_entry_written_like_a_name(value: str, index: str) -> None:
    (found,) = [d for d in padp.check(f"{HEAD}e ← {value}\ne_{index} ← 2\ny ← W @ x + sum(e) · (B @ g)\n")
                if d.code == "W301"]
    assert f"e[{index}] ←" in (found.suggestion or "")


@pytest.mark.parametrize("start", ["I_{0,:}", "I", "2 · I", "I_{:,1}"])
@pytest.mark.parametrize("space", ["ℝ^n", "ℝ^{n×m}"])
def test_a_start_whose_identity_has_no_size(start: str, space: str) -> None:
    found = [d for d in padp.check(f"{HEAD}v ∈ {space}: learned, init = {start}\ny ← W @ x + sum(v) · bias\n")
             if d.code == "E301"]
    assert all("eye(n)" in (d.suggestion or "") for d in found if "open size" in d.message), list(map(str, found))
    assert found or (start, space) in {("I_{0,:}", "ℝ^{n×m}"), ("I_{:,1}", "ℝ^{n×m}")}


@pytest.mark.parametrize(("last", "output"), [
    ("Y ← (W + B @ A) @ x", "y ← Y"), ("z ← A @ x\nY ← W @ x + B @ z", "y ← Y"), ("Y ← W + B @ A", "y ← Y @ x"),
    ("W' ← W + B @ A", "y ← W' @ x"),
])
def test_a_program_without_y(last: str, output: str) -> None:
    (found,) = [d for d in padp.check(f"{LOW}{last}\n") if d.code == "E207"]
    assert found.suggestion == output
    assert errors(f"{LOW}{last}\n{output}\n") == []


@pytest.mark.parametrize("matrix", ["W + B @ A", "B @ A", "W'", "(α/r) · B @ A", "W - B @ A", "detach(W)"])
def test_a_matrix_in_the_place_of_y(matrix: str) -> None:
    """The suggestion is a program."""
    head = f"{LOW}W' ← W + B @ A\n"
    (found,) = errors(f"{head}y ← {matrix}\n")
    assert found.code == "E301"
    assert found.suggestion is not None
    assert errors(f"{head}{found.suggestion}\n") == []


@pytest.mark.parametrize("left", ["U", "U, S", "U, S, V, T", "U, U, U, U, U, Σ, Vᵀ"])
@pytest.mark.parametrize("right", ["svd(W)", "qr(W)", "svd(W, rank = r)", "svd(W + B @ A)"])
def test_parts_of_a_decomposition_are_one_mistake(left: str, right: str) -> None:
    program = f"{LOW}{left} ← {right}\ny ← W @ x + B @ A @ x + sum(U) · bias\n"
    found = errors(program)
    if (left.count(",") + 1, right[:2]) in {(2, "qr")}:
        assert found == []
        return
    assert {d.code for d in found} <= {"E209", "E205"}, list(map(str, found))
    assert len([d for d in found if d.code == "E209"]) == 1
    assert right[:2] in str(found)


@pytest.mark.parametrize("default", ["exp(exp(5))", "1/0", "exp(5)", "log(0)", "0/0", "sqrt(-1)", "√(0 - 2)"])
@pytest.mark.parametrize("use", ["A ∈ ℝ^{r×n}: learned\ny ← W @ x + sum(A) · bias\n",
                                 "v ∈ ℝ^n: learned\ny ← W @ x + r · sum(v) · bias\n"])
def test_a_default_that_is_no_number(default: str, use: str) -> None:
    (found,) = errors(f"adapter T(r = {default}) on linear(W ∈ ℝ^{{m×n}})\n{use}")
    assert (found.code, "the default of `r`" in found.message) == ("E308", True), str(found)
    with pytest.raises(padp.PadpError, match="E308"):
        padp.compile(f"adapter T(r = {default}) on linear(W ∈ ℝ^{{m×n}})\n{use}")


@pytest.mark.parametrize("default", ["√2", "2.5", "-3", "7/2", "π"])
def test_a_default_that_is_no_size(default: str) -> None:
    text = f"adapter T(r = {default}) on linear(W ∈ ℝ^{{m×n}})\nA ∈ ℝ^{{r×n}}: learned\ny ← W @ x + sum(A) · bias\n"
    (found,) = errors(text)
    assert found.code == "E308"
    assert errors(text.replace("ℝ^{r×n}", "ℝ^n").replace("sum(A)", "r · sum(A)")) == []


@pytest.mark.parametrize("relation", ["n = bk", "m = kb", "bk = n"])
def test_letters_of_a_relation_side_by_side(relation: str) -> None:
    text = f"adapter T(b = 2, k = 2) on linear(W ∈ ℝ^{{m×n}}) where {relation}\nv ∈ ℝ^b: learned\n" \
        "y ← W @ x + sum(v) · bias\nw ∈ ℝ^k: learned\nminimise sum(w)\n"
    (found,) = errors(text)
    assert (found.code, found.suggestion) == ("E309", f"write `{'b·k' if 'bk' in relation else 'k·b'}`")


@pytest.mark.parametrize("text", ["", " ", "\n\n", "# only a comment\n", "# A ∈ ℝ^{m×n}\n\n# and more\n"])
def test_nothing_is_no_program(text: str) -> None:
    with pytest.raises(padp.PadpError, match="adapter NAME"):
        padp.compile(text)
