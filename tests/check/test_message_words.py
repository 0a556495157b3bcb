"""No finding shows a name that only the compiler knows: programs of the library with one piece in the place of another.

A size that was reported, an operator of the IR, a place holder of an open shape: people have written none of these.
"""

from __future__ import annotations

import random
import re
from importlib.resources import files

import pytest
from torch import nn

import padp
from padp.compiler.library import library
from padp.compiler.phases import check
from padp.dsl.diagnostics import Diagnostic
from padp.dsl.source import Source

PIECES = ("r", "n", "m", "r+1", "0", "1", "x", "y", "W", "exp(r)", "svd(W)", "Σ_{i ∈ range(r)} i", "zeros(m, n)", "r/2",
          "-1", "foo", "topk(|x|, r)", "sample(m, r)", "I", "qr(W)", "exp(r)+1", "W_{up}", "ones(r)", "√n", "\"a\"")
TOKEN = re.compile(r"[^\W\d][\w']*|\d+|\s+|.", re.S)
INNER = re.compile(r"\?!|\?\d|□|\b(?:sumloop|sumsq|undeclared|opaque|misfit|iota)\b|\bNone\b|Traceback|_Dummy"
                   r"|\b(?:take|prod|scale|lying|mistake|Symbol|Node)\(")


def other(rng: random.Random, text: str) -> str:
    """A program with one to three of its words replaced."""
    words = TOKEN.findall("\n".join(line for line in text.split("\n") if not line.startswith("#")))
    places = [k for k, word in enumerate(words) if re.match(r"[^\W_]", word)]
    for k in rng.sample(places, rng.choice((1, 1, 2, 3))):
        words[k] = rng.choice(PIECES)
    return "".join(words)


def findings(text: str) -> list[Diagnostic]:
    try:
        return check(Source.of(text, "other.padp"))
    except padp.PadpError as error:
        return list(error.diagnostics)


@pytest.mark.parametrize("name", library())
def test_findings_are_in_the_words_of_the_program(name: str, request: pytest.FixtureRequest) -> None:
    rng = random.Random(name)
    whole = files("padp.stdlib").joinpath(f"{name}.padp").read_text(encoding="utf-8")
    for _ in range(400 if request.config.getoption("--thorough") else 15):
        text = other(rng, whole)
        for found in findings(text):
            parts = (found.message, *found.notes, found.suggestion or "", *(r.message for r in found.related))
            said = " | ".join(parts)
            leaked = [m.group() for m in INNER.finditer(said) if m.group() not in text]
            assert not leaked, f"{found.code} {said}\n{text}"


LORA = """adapter T(r = 4) on linear(W ∈ ℝ^{m×n})
B ∈ ℝ^{m×r}: learned, init = 0
A ∈ ℝ^{r×n}: learned, init = kaiming
v ∈ ℝ^n: learned, init = kaiming
"""

# One mistake: its one message, and the remedy in it.
ONE = {
    "ΔW_{up} ← B @ A\ny ← (W + ΔW_{up}) @ x": ("`up` is not declared", "`ΔW_up`"),
    "for i in range(m):\n    ΔW_{i,up} ← B_{i,:} @ A\ny ← (W + ΔW) @ x": ("`up` is not declared", "up = 8"),
    "y ← W @ x + B_{:,r+1} · (vᵀ @ x)": ("r + 1 < r does not hold", "count from 0"),
    "y ← W @ x + B_{:,r} · (vᵀ @ x)": ("r < r does not hold", "count from 0"),
    "y ← W @ x + B_{:,4} · (vᵀ @ x)": ("4 < r does not hold by default: r is 4", "another default"),
    "y ← W @ x + B_{:,2:6} @ (A_{2:6,:} @ x)": ("6 ≤ r does not hold by default: r is 4", "another default"),
    "Q, T ← qr(B)\ny ← (W + Q @ A) @ x": ("min(m, r) = r", "where r ≤ m"),
    "U, Σ, Vᵀ ← svd(B)\ny ← (W + U @ A) @ x": ("min(m, r) = r", "where r ≤ m"),
}


@pytest.mark.parametrize("text", ONE)
def test_one_mistake_is_one_message_with_its_remedy(text: str) -> None:
    said, remedy = ONE[text]
    found = [d for d in findings(LORA + text + "\n") if d.severity == "error"]
    assert len(found) == 1, [d.message for d in found]
    assert said in found[0].message, found[0].message
    assert remedy in (found[0].suggestion or ""), found[0].suggestion


@pytest.mark.parametrize(("weight", "cause"), [(1.0, "divides by 0"), (float("nan"), "the base's weight W is not")])
def test_what_is_not_finite_names_its_cause(weight: float, cause: str) -> None:
    program = "adapter T on linear(W ∈ ℝ^{m×n})\nA ∈ ℝ^{m×n}: learned, init = W / (sum(W) - m · n)\ny ← (W + A) @ x\n"
    layer = nn.Linear(3, 2, bias=False)
    nn.init.constant_(layer.weight, weight)
    model = nn.Sequential(layer)
    with pytest.raises(padp.PadpError, match=f"E511.*start of A.*{cause}"):
        padp.attach(model, padp.compile(program), ["0"])
