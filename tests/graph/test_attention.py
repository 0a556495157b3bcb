"""Attention programs: the maps of every head give what the literal reading gives."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pytest
import torch
from torch import Tensor

import padp
from padp.compiler.literal.reference import Reference
from padp.compiler.module.attention_maps import HeadMap
from padp.dsl.diagnostics import PadpError

SITE = "attention(W_Q ∈ (ℝ^{e×d})^H, W_K ∈ (ℝ^{e×d})^G, W_V ∈ (ℝ^{e×d})^G, W_O ∈ (ℝ^{d×e})^H) where H = G·p"
JOINT = f"""adapter Joint on {SITE}, e ≤ d""" + """
U, S, Vᵀ ← svd([W_Q, b_Q]ᵀ @ grouped([W_K, b_K]), rank = e)
E, Z, Fᵀ ← svd(W_O @ grouped([W_V, b_V]), rank = e)
T ∈ (ℝ^{e×e})^H: learned, init = diag(S); M ∈ (ℝ^{e×e})^H: learned, init = diag(Z)
y ← attn(q = Tᵀ @ Uᵀ @ [x; 1], k = Vᵀ @ [x; 1], v = Fᵀ @ [x; 1], o = E @ M)
"""
HEAD = f"""adapter Head on {SITE}, e ≤ d""" + """
N, L ← qr([W_Q, b_Q]ᵀ)
T ∈ (ℝ^{e×e})^H: learned, init = L
y ← attn(q = Tᵀ @ Nᵀ @ [x; 1])
"""
KEYS = f"""adapter Keys on {SITE}""" + """
T ∈ (ℝ^{e×e})^G: learned, init = I
M ∈ (ℝ^{e×e})^G: learned, init = I
y ← attn(k = T @ [W_K, b_K] @ [x; 1], v = M @ [W_V, b_V] @ [x; 1])
"""
# Affine in the projection: with the bias said, scaled, left alone, moved.
AFFINE = {
    "a scale of each head": "s ∈ (ℝ)^G: learned, init = 1\ny ← attn(v = s · (W_V @ x + b_V))",
    "low rank after the bias": "B ∈ (ℝ^{e×2})^G: learned, init = 0\nA ∈ (ℝ^{2×e})^G: learned, init = kaiming\n"
                               "y ← attn(v = (I + B @ A) @ (W_V @ x + b_V))",
    "low rank beside the bias": "B ∈ (ℝ^{e×2})^G: learned, init = 0\nA ∈ (ℝ^{2×e})^G: learned, init = kaiming\n"
                                "y ← attn(v = (I + B @ A) @ W_V @ x + b_V)",
    "the bias not said": "T ∈ (ℝ^{e×e})^H: learned, init = I\ny ← attn(q = T @ W_Q @ x)",
    "a constant": "c ∈ (ℝ^e)^G: learned, init = 0\ny ← attn(k = W_K @ x + b_K + c)",
    "both writings": "T ∈ (ℝ^{e×e})^G: learned, init = 0\ny ← attn(v = [W_V, b_V] @ [x; 1] + T @ W_V @ x)",
    "the output": "T ∈ (ℝ^{e×e})^H: learned, init = I\ny ← attn(o = W_O @ T)",
}
SIZES = {"H": 4, "G": 2, "e": 3, "d": 10}


def _weights() -> dict[str, Tensor]:
    torch.manual_seed(0)
    shapes = {"W_Q": (4, 3, 10), "W_K": (2, 3, 10), "W_V": (2, 3, 10), "W_O": (4, 10, 3), "b_Q": (4, 3),
              "b_K": (2, 3), "b_V": (2, 3)}
    return {k: torch.randn(s, dtype=torch.double) for k, s in shapes.items()}


def _by_maps(maps: Mapping[str, HeadMap], w: dict[str, Tensor], x: Tensor) -> Tensor:
    """Softmax attention with each map applied where the contract says."""
    streams = {}
    for role in "qkv":
        z = torch.einsum("hed,td->hte", w[f"W_{role.upper()}"], x) + w[f"b_{role.upper()}"][:, None]
        if role in maps:
            m = maps[role]
            z = torch.einsum("hij,htj->hti", m.matrix, z)
            z = z if m.offset is None else z + m.offset[:, None]
        streams[role] = z.repeat_interleave(4 // z.shape[0], 0)
    p = torch.softmax(streams["q"] @ streams["k"].mT / math.sqrt(3), -1)
    z = p @ streams["v"]
    if "o" in maps:
        z = torch.einsum("hij,htj->hti", maps["o"].matrix, z)
    return torch.einsum("hde,hte->td", w["W_O"], z)


@pytest.mark.parametrize("program", [JOINT, HEAD, KEYS, *(f"adapter Affine on {SITE}\n{body}\n" for body in
                                                          AFFINE.values())], ids=["joint", "head", "keys", *AFFINE])
def test_maps_are_the_literal_attention(program: str) -> None:
    w, x = _weights(), torch.randn(5, 10, dtype=torch.double)
    adapter = padp.compile(program)
    module = adapter.build(SIZES, variant=None, hyper={}, weight=w, bias=None, dtype=torch.double,
                           device=torch.device("cpu"))
    fresh = _by_maps(module.head_maps(w), w, x)
    assert torch.allclose(fresh, _by_maps({}, w, x), atol=1e-10)  # a fresh adapter is the identity
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    tensors = {**w, **{k: v.detach() for k, v in module.tensors.items()}}
    literal = Reference(module.compiled.method, module.sizes, {}, tensors).attention(x)
    assert torch.allclose(_by_maps(module.head_maps(w), w, x), literal, atol=1e-9)
    assert all(10 not in buffer.shape for buffer in module.buffers())  # nothing of size e×d is kept


def test_joint_is_named() -> None:
    w = _weights()
    for program, joint in ((JOINT, True), (HEAD, False)):
        module = padp.compile(program).build(SIZES, variant=None, hyper={}, weight=w, bias=None, dtype=torch.double,
                                             device=torch.device("cpu"))
        assert module.joint is joint


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("change", ["W_Q @ (x + A @ x)", "W_Q @ x + B @ x", "tanh(W_Q @ x)", "(wᵀ @ x) · (W_Q @ x)",
                                    "W_Q @ A @ x", "W_K @ x"])
def test_what_no_map_of_the_projection_can_do_is_refused(change: str, bias: bool) -> None:
    """Also where the model has no bias, and ``+ b_Q`` is nothing."""
    program = f"adapter No on {SITE}\nA ∈ ℝ^{{d×d}}: learned, init = 0\nB ∈ (ℝ^{{e×d}})^H: learned, init = 0\n" \
              f"w ∈ ℝ^d: learned, init = 0\ny ← attn(q = {change} + b_Q)\n"
    w = {k: v for k, v in _weights().items() if bias or not k.startswith("b_")}
    program = program.replace("W_K @", "grouped(W_K) @")
    assert any(d.code in ("E511", "E301") for d in padp.check(program))
    with pytest.raises(PadpError, match=r"E511|E301"):
        padp.compile(program).build(
            SIZES, variant=None, hyper={}, weight=w, bias=None, dtype=torch.double, device=torch.device("cpu"))


def test_what_is_no_map_is_refused() -> None:
    program = KEYS.replace("T @ [W_K, b_K] @ [x; 1]", "T @ [W_K, b_K] @ [x; 1] + [W_K, b_K] @ [x ⊙ x; 1]")
    with pytest.raises(PadpError, match="k is not a map"):
        padp.compile(program).build(SIZES, variant=None, hyper={}, weight=_weights(), bias=None, dtype=torch.double,
                                    device=torch.device("cpu"))
