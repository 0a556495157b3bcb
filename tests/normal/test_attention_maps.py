"""Affine maps of the own projection in all their spellings: each head's map, tested against the literal reading."""

from __future__ import annotations

import re

import pytest

import padp
from padp.compiler.numerics.agreement import differences
from padp.compiler.numerics.trials import trials
from padp.dsl.diagnostics import PadpError

SITE = "attention(W_Q ∈ (ℝ^{e×d})^H, W_K ∈ (ℝ^{e×d})^G, W_V ∈ (ℝ^{e×d})^G, W_O ∈ (ℝ^{d×e})^H)"
TENSORS = """s ∈ ℝ^e: learned, init = 1
u ∈ (ℝ^e)^H: learned, init = 1
w ∈ (ℝ^e)^G: learned, init = 1
c ∈ ℝ: learned, init = 1
t ∈ (ℝ)^H: learned, init = 1
M ∈ (ℝ^{e×e})^H: learned, init = 0
N ∈ ℝ^{e×e}: learned, init = I
F ∈ (ℝ^{e×e})^G: learned, init = I
g ∈ (ℝ^e)^G: learned, init = 0
"""
MAPS = [
    "q = diag(s) @ (W_Q @ x + b_Q)", "q = s ⊙ (W_Q @ x + b_Q)", "q = (W_Q @ x + b_Q) ⊙ s", "q = s · (W_Q @ x + b_Q)",
    "q = u ⊙ (W_Q @ x + b_Q)", "q = diag(u) @ (W_Q @ x + b_Q)", "q = s ⊙ (W_Q @ x)", "q = s ⊙ (W_Q @ x) + b_Q",
    "q = c · (W_Q @ x + b_Q)", "q = t · (W_Q @ x + b_Q)", "q = (W_Q @ x + b_Q) / (2 · ones(e) + s)",
    "q = W_Q @ x + b_Q + M @ (W_Q @ x + b_Q)", "k = s ⊙ (W_K @ x + b_K)", "k = w ⊙ (W_K @ x + b_K)",
    "v = w ⊙ (W_V @ x + b_V)", "v = c · (W_V @ x + b_V)", "q = s ⊙ (u ⊙ (W_Q @ x + b_Q))",
    "o = c · W_O", "o = t · W_O", "o = W_O · s", "o = W_O @ diag(u)", "o = W_O + W_O @ M", "o = c · (W_O @ (I + M))",
    "o = W_O / 2", "o = W_O @ N",
    "q = W_Q @ x + b_Q + s", "v = W_V @ x + b_V + s", "q = N @ (W_Q @ x + b_Q) + s", "q = s ⊙ (W_Q @ x), o = c · W_O",
]

TOGETHER = [
    "o = W_O @ N, v = N @ W_V @ x",
    "o = W_O @ N, v = N @ (W_V @ x + b_V)",
    "o = W_O @ N, v = N⁻¹ @ (W_V @ x + b_V) + s",
    "o = W_O @ N, v = W_V @ x + N @ W_V @ x",
    "o = W_O @ N, v = F @ (W_V @ x + b_V) + g",
    "o = W_O @ M, v = N @ W_V @ x",
    "o = W_O @ M, v = F @ (W_V @ x + b_V) + g",
    "o = c · W_O, v = w ⊙ (W_V @ x + b_V)",
    "o = t · W_O, v = s ⊙ (W_V @ x)",
    "q = N @ [W_Q, b_Q] @ [x; 1], k = N @ [W_K, b_K] @ [x; 1]",
    "q = M @ [W_Q, b_Q] @ [x; 1], k = F @ [W_K, b_K] @ [x; 1]",
    "q = N @ [W_Q, b_Q] @ [x; 1], k = F⁻¹ @ [W_K, b_K] @ [x; 1]",
]
"""Two that meet in one map: of all heads, of each head or of each group of heads."""

GROUPED = [
    "v = M @ grouped(W_V) @ x", "v = grouped(W_V @ x)", "v = M @ grouped(W_V @ x + b_V)",
    "v = M @ (grouped(W_V) @ x + grouped(b_V)) + u", "v = grouped(F) @ grouped(W_V @ x)",
    "o = W_O @ M, v = M @ grouped(W_V) @ x", "o = W_O @ N, v = u ⊙ grouped(W_V @ x + b_V)",
    "k = M @ grouped([W_K, b_K]) @ [x; 1]", "q = N @ [W_Q, b_Q] @ [x; 1], k = M @ grouped([W_K, b_K]) @ [x; 1]",
]
"""Keys and values of each query head."""
EVERY = [(given, relation) for given in MAPS + TOGETHER for relation in ("", " where H = G·p")] + \
    [(given, " where H = G·p") for given in GROUPED]


def text(given: str, relation: str = "") -> str:
    used = [line for line in TENSORS.splitlines() if re.search(rf"\b{line.split()[0]}\b", given)]
    return "\n".join([f"adapter Heads on {SITE}{relation}", *used, f"y ← attn({given})", ""])


@pytest.mark.parametrize(("given", "relation"), EVERY)
def test_a_map_of_its_own_projection(given: str, relation: str) -> None:
    program = text(given, relation)
    assert not [d for d in padp.check(program) if d.severity == "error"]
    found = trials(padp.compile(program), None)
    assert found.found, found.refused
    for trial in found.found:
        made = trial.made()
        made.move()
        assert differences(made) == []


@pytest.mark.parametrize(("given", "cause"), [
    ("q = tanh(W_Q @ x + b_Q)", "not linear"), ("q = (W_Q @ x) ⊙ (W_Q @ x)", "not linear|more than once"),
    ("q = W_K @ x", "does not go through W_Q|heads"), ("o = tanh(W_O)", "does not go through W_O"),
])
def test_what_is_no_map_says_why(given: str, cause: str) -> None:
    with pytest.raises(PadpError, match=cause):
        for trial in trials(padp.compile(text(given)), None).found:
            trial.made()
