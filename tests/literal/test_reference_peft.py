"""The literal reading of programs in PEFT's own conventions, against PEFT's layers with the same numbers."""

from __future__ import annotations

import warnings
from typing import Any

import peft
import pytest
import torch
from torch import Tensor, nn

from padp.compiler.literal.reference import Reference
from padp.compiler.names.resolve import resolve
from padp.dsl.parse import parse
from padp.dsl.source import Source

M, N = 24, 16


def layer(config: Any, seed: int = 0) -> tuple[nn.Linear, nn.Module, dict[str, Tensor]]:
    """A linear layer, PEFT's model around it in eval mode, and PEFT's tensors, all random, by their short names."""
    torch.manual_seed(seed)
    linear = nn.Linear(N, M).double()
    base = nn.Linear(N, M).double()
    base.load_state_dict(linear.state_dict())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = peft.get_peft_model(nn.Sequential(base), config).double().eval()
    found: dict[str, Tensor] = {}
    for name, p in model.named_parameters():
        if p.requires_grad and "ranknum" not in name:  # a divisor, not a parameter
            with torch.no_grad():
                p.copy_(0.3 * torch.randn(p.shape, dtype=torch.float64))
            found[name.replace(".default", "").removesuffix(".weight").rsplit(".", 1)[-1]] = p.detach()
    return linear, model, found


def same(text: str, linear: nn.Linear, model: nn.Module, tensors: dict[str, Tensor],
         variant: str | None = None) -> None:
    source = Source.of(text)
    given = {"W": linear.weight.detach(), "bias": linear.bias.detach(), **tensors}
    reference = Reference(resolve(parse(source), source, variant), {}, {}, given)
    x = torch.randn(5, N, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(reference.forward(x), model(x), rtol=1e-6, atol=1e-6)


def test_lora() -> None:
    linear, model, t = layer(peft.LoraConfig(r=4, lora_alpha=6, target_modules=["0"]))
    text = """adapter LoRA(r = 4, α = 6) on linear(W ∈ ℝ^{m×n})
A ∈ ℝ^{r×n}: learned, init = kaiming
B ∈ ℝ^{m×r}: learned, init = 0
y ← (W + (α/r) · B @ A) @ x
"""
    same(text, linear, model, {"A": t["lora_A"], "B": t["lora_B"]})


def test_dora() -> None:
    linear, model, t = layer(peft.LoraConfig(r=4, lora_alpha=8, use_dora=True, target_modules=["0"]))
    text = """adapter DoRA(r = 4, α = 8) on linear(W ∈ ℝ^{m×n})
A ∈ ℝ^{r×n}: learned, init = kaiming
B ∈ ℝ^{m×r}: learned, init = 0
mag ∈ ℝ^m: learned, init = ‖W‖_row
V ← W + (α/r) · B @ A
y ← (mag ⊙ (V / detach(‖V‖_row))) @ x
"""
    tensors = {"A": t["lora_A"], "B": t["lora_B"], "mag": t["lora_magnitude_vector"]}
    same(text, linear, model, tensors)


@pytest.mark.parametrize("exact", [True, False])
def test_oft(exact: bool) -> None:
    config = peft.OFTConfig(r=0, oft_block_size=4, use_cayley_neumann=not exact, target_modules=["0"])
    linear, model, t = layer(config)
    rotation = "(I - K)(I + K)⁻¹" if exact else "I + 2·K + 2·K² + 2·K³ + K^4"
    text = f"""adapter OFT(k = 4) on linear(W ∈ ℝ^{{m×n}}) where n = b·k
Q ∈ (ℝ^{{k(k-1)/2}})^b: learned, init = 0
K ← skew(Q)
y ← (W @ blkdiag({rotation})ᵀ) @ x
"""
    same(text, linear, model, {"Q": t["oft_R"]})


def test_hra() -> None:
    linear, model, t = layer(peft.HRAConfig(r=4, target_modules=["0"]))
    text = """adapter HRA(r = 4) on linear(W ∈ ℝ^{m×n})
v ∈ ℝ^{r×n}: learned, init = pairs(kaiming)
R ← I
for i in range(r):
    R ← (I - 2 · v_i v_iᵀ / ‖v_i‖²) @ R
y ← (W @ Rᵀ) @ x
"""
    same(text, linear, model, {"v": t["hra_u"].T})


@pytest.mark.parametrize("forward", [True, False])
def test_ia3(forward: bool) -> None:
    config = peft.IA3Config(target_modules=["0"], feedforward_modules=["0"] if forward else [])
    linear, model, t = layer(config)
    text = """adapter IA3 on linear(W ∈ ℝ^{m×n})
variant feedforward:
    λ ∈ ℝ^n: learned, init = 1
    y ← W @ (x ⊙ λ)
variant attention:
    λ ∈ ℝ^m: learned, init = 1
    y ← (W @ x + bias) ⊙ λ
"""
    same(text, linear, model, {"λ": t["ia3_l"].reshape(-1)}, "feedforward" if forward else "attention")


def test_vera() -> None:
    linear, model, t = layer(peft.VeraConfig(r=4, target_modules=["0"], projection_prng_key=3))
    vera = model.get_submodule("base_model.model.0")
    text = """adapter VeRA(r = 4) on linear(W ∈ ℝ^{m×n})
A ∈ ℝ^{r×n}: frozen, shared, init = kaiming(0), seed = 3
B ∈ ℝ^{m×r}: frozen, shared, init = kaiming(0), seed = 3
λ_d ∈ ℝ^r: learned, init = 0.1
λ_b ∈ ℝ^m: learned, init = 0
ΔW ← (λ_b ⊙ B) @ (λ_d ⊙ A)
y ← (W + ΔW) @ x
"""
    A, B = (getattr(vera, f"vera_{c}")["default"].detach() for c in "AB")
    tensors = {"A": A, "B": B, "λ_d": t["vera_lambda_d"], "λ_b": t["vera_lambda_b"]}
    same(text, linear, model, tensors)
    source = Source.of(text)
    fresh = Reference(resolve(parse(source), source), {}, {}, {"W": linear.weight.detach()})
    generator = torch.Generator().manual_seed(3)  # PEFT draws A, then B, from one generator
    torch.testing.assert_close(fresh.init("A", generator), A.double())
    torch.testing.assert_close(fresh.init("B", generator), B.double())


def test_boft_with_one_factor() -> None:
    linear, model, t = layer(peft.BOFTConfig(boft_block_size=4, boft_n_butterfly_factor=1, target_modules=["0"]))
    text = """adapter BOFT(k = 4) on linear(W ∈ ℝ^{m×n}) where n = b·k
D ∈ (ℝ^{k×k})^b: learned, init = 0
s ∈ ℝ^m: learned, init = 1
K ← (D - Dᵀ) / 2
y ← (s ⊙ (W @ blkdiag(cayley(K))ᵀ)) @ x
"""
    same(text, linear, model, {"D": t["boft_R"][0], "s": t["boft_s"].reshape(-1)})


def test_adalora() -> None:
    config = peft.AdaLoraConfig(init_r=4, target_r=2, lora_alpha=6, total_step=10, target_modules=["0"])
    linear, model, t = layer(config)
    text = """adapter AdaLoRA(r = 4, α = 6) on linear(W ∈ ℝ^{m×n})
P ∈ ℝ^{m×r}: learned, init = normal(0.02)
Λ ∈ ℝ^r: learned, init = 0
Q ∈ ℝ^{r×n}: learned, init = normal(0.02)
y ← (W + α / (r + 0.00001) · P · diag(Λ) · Q) @ x
"""
    same(text, linear, model, {"P": t["lora_B"], "Λ": t["lora_E"].reshape(-1), "Q": t["lora_A"]})


def test_road() -> None:
    linear, model, t = layer(peft.RoadConfig(variant="road_1", group_size=8, target_modules=["0"]))
    # pairs of a group are (p, p + g/2): the two columns of an index set
    text = """adapter RoAd(g = 8) on linear(W ∈ ℝ^{m×n}) where m = 2·d
θ ∈ ℝ^d: learned, init = 0
α ∈ ℝ^d: learned, init = 1
z ← W @ x + bias
Ω ← halves(m, g)
c ← α ⊙ cos(θ)
s ← α ⊙ sin(θ)
p ← Ω_{:,0}
q ← Ω_{:,1}
y ← zeros(m)
y_{p} ← c ⊙ z_{p} - s ⊙ z_{q}
y_{q} ← c ⊙ z_{q} + s ⊙ z_{p}
"""
    same(text, linear, model, {"θ": t["road_theta"], "α": t["road_alpha"]})
