"""``padp check --numerics``: true claims are settled, false ones are refuted with sizes, mistakes of padp are found."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torch import Tensor

import padp
from padp.cli import main
from padp.compiler.adapter import Adapter
from padp.compiler.facts.facts import Facts
from padp.compiler.facts.fresh import Starts, Verdict
from padp.compiler.library import library
from padp.compiler.module.module import AdapterModule
from padp.compiler.normal.normal_form import Simplifier
from padp.compiler.numerics.agreement import Difference, difference, differences
from padp.compiler.numerics.trials import Trial, trials
from padp.dsl.diagnostics import Diagnostic
from tests.support.unseen import PROGRAMS

HEAD = "adapter P(r = 2, k = 4) on linear(W ∈ ℝ^{m×n}) where n = b·k\n"
LOW = HEAD + """A, C ∈ ℝ^{r×n}: learned, init = kaiming
B ∈ ℝ^{m×r}: learned, init = 0
Q ∈ (ℝ^{k(k-1)/2})^b: learned, init = 0
"""
TURN = HEAD + """Q ∈ (ℝ^{k(k-1)/2})^b: learned, init = 0
s ∈ ℝ^r: learned, init = 0
K ← skew(Q)
"""


def low(line: str) -> str:
    """A program with ΔW as one line makes it."""
    return LOW + line + "\ny ← (W + ΔW) @ (x + 0 · blkdiag(skew(Q)) @ x)\n"


def turned(line: str) -> str:
    """A program that turns blocks of x by the S that one line makes; the sum of s keeps r in use."""
    return TURN + line + "\ny ← (1 + sum(s)) · (W @ blkdiag(S) @ x)    # not the identity at init\n"


TRUE = {
    "rank of a sum with a common factor": low("ΔW ← B @ A + B @ tanh(C)    # rank r"),
    "exponentials that cancel": turned("S ← expm(K) @ expm(-K)    # identity"),
    "difference of exponentials": turned("S ← expm(K) - expm(-K)    # antisymmetric"),
    "the Cayley map in two parts": turned("S ← (I - K)⁻¹ + K @ (I - K)⁻¹    # orthogonal"),
    "the same as a space": turned("S ← (I - K)⁻¹ + K @ (I - K)⁻¹    # S ∈ O(k)"),
    "orthonormal rows": turned("U, L ← qr(I + K)\nS ← U    # S ∈ St(k, k)"),
}
FALSE = {
    "rank of an element-wise product": (low("ΔW ← (B @ A) ⊙ (B @ C)    # rank r"), "rank r"),
    "twice the exponential": (turned("S ← expm(K) @ expm(K)    # identity"), "identity"),
    "an exponential less I": (turned("S ← expm(K) - I    # antisymmetric"), "antisymmetric"),
    "a series cut off": (turned("S ← I + K + K @ K / 2    # orthogonal"), "orthogonal"),
    "the same as a space": (turned("S ← I + K + K @ K / 2    # S ∈ O(k)"), "S ∈ O(k)"),
}


def added(program: str) -> list[Diagnostic]:
    """What numbers say beyond what rules say."""
    before = padp.check(program)
    return [d for d in padp.check(program, numerics=True) if d not in before]


@pytest.fixture
def undecided(monkeypatch: pytest.MonkeyPatch) -> None:
    """No rule knows anything of a value: every claim is left to numbers, however strong the rules become."""
    for question in ("holds", "rank"):
        monkeypatch.setattr(Facts, question, lambda self, *of: None)  # pyright: ignore
    monkeypatch.setattr("padp.compiler.check.claimed_values.reaches", lambda node: None)  # pyright: ignore
    monkeypatch.setattr(Starts, "fails", lambda self, *of: False)  # pyright: ignore


def codes(found: list[Diagnostic]) -> list[str]:
    return [d.code for d in found]


# ---------------------------------------------------------------- the library and others


@pytest.mark.parametrize("name", library())
def test_library(name: str) -> None:
    assert padp.check(name, numerics=True) == []


@pytest.mark.parametrize("name", PROGRAMS)
def test_unseen_programs_have_no_errors(name: str) -> None:
    found = padp.check(PROGRAMS[name][0], numerics=True)
    assert [d for d in found if d.severity == "error" or d.code in ("N401", "N403")] == []


# ---------------------------------------------------------------- claims


@pytest.mark.usefixtures("undecided")
@pytest.mark.parametrize("name", TRUE)
def test_a_true_claim_is_settled(name: str) -> None:
    before, after = padp.check(TRUE[name]), padp.check(TRUE[name], numerics=True)
    assert "N401" in codes(before)
    assert after == [d for d in before if d.code != "N401"]


@pytest.mark.usefixtures("undecided")
@pytest.mark.parametrize("name", FALSE)
def test_a_false_claim_is_refuted(name: str) -> None:
    program, claim = FALSE[name]
    before, after = padp.check(program), padp.check(program, numerics=True)
    assert [d.span for d in before if d.code == "N401"] == [d.span for d in after if d.code == "E405"]
    (error,) = (d for d in after if d.code == "E405")
    assert error.source is not None and error.span is not None
    assert error.source.slice(error.span) == claim
    assert error.message.startswith(f"`{claim}` is false: ")


@pytest.mark.usefixtures("undecided")
def test_the_rank_that_is_reached_and_the_sizes_are_shown() -> None:
    (error,) = (d for d in added(FALSE["rank of an element-wise product"][0]) if d.code == "E405")
    match = re.search(r"the rank of ΔW is (\d+), not at most (\d+) at m = (\d+), n = (\d+), r = (\d+), k = (\d+)$",
                      error.message)
    assert match is not None
    reached, bound, m, n, r, k = map(int, match.groups())
    assert bound == r
    assert reached == min(m, n, r * (r + 1) // 2)  # Σ_{i ≤ j} (b_i ⊙ b_j) (a_i ⊙ c_j + a_j ⊙ c_i)ᵀ
    assert n % k == 0


@pytest.mark.usefixtures("undecided")
def test_by_how_much_an_identity_fails() -> None:
    """R = 1.5 I: the entries of R − I are up to 0.5."""
    program = turned("S ← 1.5 · expm(K) @ expm(-K)    # identity")
    (error,) = (d for d in added(program) if d.code == "E405")
    assert "the entries of S - I are up to 0.5 at" in error.message


@pytest.mark.usefixtures("undecided")
def test_in_a_loop_the_whole_chain_is_tested() -> None:
    projections = """adapter P(r = 2) on linear(W ∈ ℝ^{m×n})
v ∈ ℝ^{r×n}: learned, init = kaiming
R ← I
for i in range(r):
    R ← (I - v_i v_iᵀ / ‖v_i‖²) @ R    # orthogonal
y ← W @ R @ x    # not the identity at init
"""
    reflections = projections.replace("I - v_i", "I - 2 · v_i")
    assert codes(padp.check(projections)) == codes(padp.check(reflections)) == ["N401"]
    assert codes(padp.check(projections, numerics=True)) == ["E405"]
    assert padp.check(reflections, numerics=True) == []


@pytest.mark.usefixtures("undecided")
def test_a_claim_of_one_variant() -> None:
    body = """adapter Two(k = 4) on linear(W ∈ ℝ^{m×n}) where n = b·k
Q ∈ (ℝ^{k(k-1)/2})^b: learned, init = 0
K ← skew(Q)
variant exact:
    S ← (I - K)⁻¹ + K @ (I - K)⁻¹    # orthogonal
variant cut:
    S ← I + K + K @ K / 2    # orthogonal
common:
    y ← W @ blkdiag(S) @ x
"""
    assert codes(padp.check(body, numerics=True)) == ["E405"]
    assert codes(padp.check(body, "cut", numerics=True)) == ["E405"]
    assert padp.check(body, "exact", numerics=True) == []


@pytest.mark.usefixtures("undecided")
def test_hidden_sites() -> None:
    program = """adapter H(r = 2) on hidden(h ∈ ℝ^d)
R ∈ ℝ^{r×d}: learned, init = kaiming
M ← tanh(Rᵀ @ R)    # rank r
h ← h + M @ h    # not the identity at init
"""
    (error,) = padp.check(program, numerics=True)
    assert error.code == "E405"
    assert re.search(r"the rank of M is \d+, not at most \d+ at d = \d+, r = \d+$", error.message)


@pytest.mark.usefixtures("undecided")
def test_attention_sites() -> None:
    site = "W_Q ∈ (ℝ^{e×d})^H, W_K ∈ (ℝ^{e×d})^G, W_V ∈ (ℝ^{e×d})^G, W_O ∈ (ℝ^{d×e})^H"
    program = f"adapter A on attention({site}) where H = G·p, e ≤ d" + """
Q ∈ (ℝ^{e×e})^H: learned, init = 0
T ← expm(Q)    # T ∈ O(e)
S ← expm(Q) @ expm(-Q)    # identity
y ← attn(q = S @ T @ [W_Q, b_Q] @ [x; 1])
"""
    (error,) = padp.check(program, numerics=True)
    assert error.message.startswith("`T ∈ O(e)` is false: the entries of T @ Tᵀ - I are up to ")


# ---------------------------------------------------------------- the start


def start(init: str, comment: str = "") -> str:
    return f"""adapter S on linear(W ∈ ℝ^{{m×n}})
a ∈ ℝ^m: learned, init = {init}
y ← (m · softmax(a)) ⊙ (W @ x){comment}
"""


def test_a_start_that_no_rule_decides() -> None:
    assert codes(padp.check(start("0"))) == ["N401"]
    assert padp.check(start("0"), numerics=True) == []
    assert padp.check(start("0", "    # identity"), numerics=True) == []


def test_a_start_that_is_not_the_identity_is_a_warning_and_an_error_where_it_is_claimed() -> None:
    (found,) = padp.check(start("normal(0.1)"), numerics=True)
    assert found.code == "W305"
    assert re.search(r"it changes the output by [\d.]+ at m = \d+, n = \d+$", found.message)
    (found,) = padp.check(start("normal(0.1)", "    # identity"), numerics=True)
    assert found.code == "E405"


# ---------------------------------------------------------------- mistakes of padp


ONCE = "adapter Once on linear(W ∈ ℝ^{n×n})\nA ∈ ℝ^{n×n}: learned, init = 0\ny ← (W + Aᵀ) @ x\n"


def test_a_rule_that_lies_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Simplifier, "t", lambda self, a: a)  # pyright: ignore
    (found,) = padp.check(ONCE, numerics=True)
    assert found.code == "E406"
    assert re.match(r"compiled and read literally, the output differs by [\d.]+ where .* at n = \d+\. ", found.message)
    assert any("merged" in note for note in found.notes)


def test_a_plan_that_fails_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: AdapterModule, x: Tensor, base: object) -> Tensor:
        raise RuntimeError("shapes")

    monkeypatch.setattr(AdapterModule, "forward", broken)
    (found,) = padp.check(ONCE, numerics=True)
    assert found.code == "E406"
    assert "what is compiled fails with RuntimeError" in found.message
    assert found.notes[0] == "shapes"


def test_a_property_that_is_proved_and_false_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Facts, "antisymmetric", lambda self, node: True)  # pyright: ignore
    found = padp.check(turned("S ← expm(K) - I    # antisymmetric"), numerics=True)
    assert "E406" in codes(found)
    assert any(d.message.startswith("a rule proves `antisymmetric`, and numbers refute it") for d in found)


def test_a_start_that_is_proved_and_false_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Starts, "identity", lambda self: Verdict(True, ""))  # pyright: ignore
    (found,) = padp.check(start("normal(0.1)"), numerics=True)
    assert found.code == "E406"
    assert found.message.startswith("a rule proves that a fresh adapter is the identity: it changes the output by")


@pytest.mark.parametrize("what", ["a penalty", "a gradient", "the merged weight", "delta"])
def test_every_path_is_compared(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    program = "adapter L(r = 2) on linear(W ∈ ℝ^{m×n})\nA ∈ ℝ^{r×n}: learned, init = kaiming\n" \
              "B ∈ ℝ^{m×r}: learned, init = 0\ny ← (W + B @ A) @ x\nminimise ‖A‖_F²\n"
    (trial, *_) = trials(padp.compile(program), None).found
    made = trial.made()
    made.move()
    assert differences(made) == []
    kind = AdapterModule
    match what:
        case "a penalty":
            right = kind.penalty
            monkeypatch.setattr(kind, "penalty", lambda self: right(self) + right(self))  # type: ignore[operator]
            wanted = {"the sum of `minimise` terms", "the gradient of `minimise` by A"}
        case "a gradient":
            forward = kind.forward
            monkeypatch.setattr(kind, "forward", lambda self, x, base: forward(self, x.detach(), base))  # pyright: ignore
            wanted = {"the gradient of the output by x"}
        case "the merged weight":
            monkeypatch.setattr(kind, "merged", lambda self, W, b: (W, b))  # pyright: ignore
            wanted = {"the output of the merged weight"}
        case _:
            delta = kind.delta
            monkeypatch.setattr(kind, "delta", lambda self, x, base=None: -delta(self, x, base))  # pyright: ignore
            wanted = {"base(x) + delta(x)"}
    assert {d.what for d in differences(made)} == wanted


def test_differences_in_shape_and_in_what_is_not_a_number() -> None:
    one, nan = torch.ones(3), torch.tensor([1.0, float("nan"), 1.0])
    assert difference("y", one, one + 1e-9, 1e-8) is None
    assert difference("y", nan, nan, 1e-8) is None
    assert difference("y", one, nan, 1e-8) == Difference("y", float("inf"), 0.0)
    assert difference("y", nan, one, 1e-8) == Difference("y", float("inf"), 0.0)
    assert difference("y", one, one[:2], 1e-8) is not None
    worse = difference("y", one, one + 0.5, 1e-8)
    assert worse is not None
    assert (worse.error, worse.size) == (0.5, 1.5)


# ---------------------------------------------------------------- sizes


def test_no_small_sizes() -> None:
    head = "adapter Wide(k = 4) on linear(W ∈ ℝ^{m×n}) where n = 1000·k\n"
    program = head + "s ∈ ℝ^m: learned, init = 1\ny ← s ⊙ (W @ x)\n"
    (found,) = padp.check(program, numerics=True)
    assert found.code == "N403"
    assert all(note.startswith("n = 1000k does not hold") for note in found.notes)
    assert found.notes


@pytest.mark.parametrize("name", ["oft", "boft", "hra", "pissa", "road", "svft", "clover", "reft", "fourierft"])
def test_trials_satisfy_the_program(name: str) -> None:
    adapter: Adapter = padp.compile(name)
    for variant in adapter.variants or (None,):
        found = trials(adapter, variant).found
        assert len(found) == 3
        for trial in found:
            holds(name, trial)
        if adapter.site == "linear":
            wide, tall, _ = (t.sizes for t in found)
            assert wide["m"] < wide["n"] and tall["m"] > tall["n"]
        assert [t.bias for t in found] == [True, False, True]


def holds(name: str, trial: Trial) -> None:
    """The relations of that program, worked out by hand."""
    s = {**trial.sizes, **trial.hyper}
    match name:
        case "oft" | "boft":
            assert s["n"] == s["b"] * s["k"]
        case "hra":
            assert s["r"] % 2 == 0
        case "pissa":
            assert s["r"] <= min(s["m"], s["n"])
        case "road" if trial.variant in ("peft", "peft_2", "peft_4"):
            assert s["m"] % s["g"] == 0 and s["g"] % 2 == 0
        case "road":
            assert s["n" if trial.variant == "seed" else "m"] % 2 == 0
        case "clover":
            assert s["H"] == s["G"] * s["p"] and s["e"] <= s["d"]
        case "reft":
            assert s["r"] <= s["d"] or trial.variant in ("NoReFT", "DiReFT")
        case "svft" if trial.variant in ("random", "topk"):
            assert s["count"] <= min(s["m"], s["n"]) ** 2
        case "fourierft":
            assert s["k"] <= s["m"] * s["n"]
        case _:
            pass


def test_the_same_program_gets_the_same_answer() -> None:
    program = FALSE["a series cut off"][0]
    assert padp.check(program, numerics=True) == padp.check(program, numerics=True)


# ---------------------------------------------------------------- the command


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wrong, right = tmp_path / "wrong.padp", tmp_path / "right.padp"
    wrong.write_text(FALSE["a series cut off"][0], encoding="utf-8")
    right.write_text(TRUE["the Cayley map in two parts"], encoding="utf-8")
    assert main(["check", "--numerics", str(right)]) == 0
    assert capsys.readouterr().out.strip() == "1 file checked, all is well"
    assert main(["check", str(wrong)]) == 0
    assert "note[N401]" in capsys.readouterr().out
    assert main(["check", "--numerics", str(wrong), str(right)]) == 1
    out = capsys.readouterr().out
    assert "wrong.padp:5:28: error[E405]: `orthogonal` is false: the entries of S @ Sᵀ - I are up to" in out
    assert "right.padp" not in out
