"""What people write who know the README only: adapters that nobody asked for, and mistakes that get a useful answer."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest
import torch
from torch import nn

import padp
from padp.cli import main
from padp.compiler.adapter import Adapter
from padp.compiler.module.site import LinearSite

HEAD = "adapter New(r = 2) on linear(W ∈ ℝ^{m×n})\n"
LEARNED = "A ∈ ℝ^{r×n}: learned, init = kaiming\nB ∈ ℝ^{m×r}: learned, init = 0\n"
OUT = "y ← (W + B @ A) @ x\n"

# Program (the header above is put before it, where it has none), the code of its finding, a piece of what is suggested.
MISTAKES = {
    "a function of numpy": ("y ← np.dot(W, x)\n", "E510", "uᵀ @ v"),
    "a method": ("y ← W @ x.sum()\n", "E510", "sum(e)"),
    "a sigmoid": ("y ← σ(W @ x)\n", "E203", "sigmoid"),
    "dropout": ("y ← W @ dropout(x, 0.1)\n", "E203", "drop(e, p)"),
    "a keyword of torch": ("y ← W @ softmax(x, dim=-1)\n", "E209", "softmax(v)"),
    "zeros as a start": ("c ∈ ℝ^m: learned, init = zeros\ny ← W @ x + c\n", "E204", "init = 0"),
    "an initialiser of torch": ("c ∈ ℝ^m: learned, init = xavier_uniform\ny ← W @ x + c\n", "E204", "xavier"),
    "an initialiser without its number": ("c ∈ ℝ^m: learned, init = normal\ny ← W @ x + c\n", "E209", "normal(std)"),
    "a declaration below its use": ("y ← W @ x + c\nc ∈ ℝ^m: learned, init = 0\n", "E201", "above"),
    "V of an svd for Vᵀ": ("U, S, V ← svd(W)\ny ← U @ diag(S) @ Vᵀ @ x\n", "E209", "U, Σ, Vᵀ ← svd(M)"),
    "a complex parameter": ("C ∈ ℂ^{m×n}: learned, init = 0\ny ← W @ x + Re(C @ x)\n", "E204", "two real tensors"),
    "a learned tensor for all sites": (
        LEARNED.replace("learned", "learned, shared", 1) + OUT, "E106", "frozen, shared"),
    "a shared start from W": (
        "U, Σ, Vᵀ ← svd(W)\nA ∈ ℝ^{r×n}: frozen, shared, init = Vᵀ_{:r,:}\nB ∈ ℝ^{m×r}: learned, init = 0\n" + OUT,
        "E106", "leave out `shared`"),
    "a size of the layer in the header": (
        "adapter New(m = 3) on linear(W ∈ ℝ^{m×n})\nc ∈ ℝ^m: learned, init = 0\ny ← W @ x + c\n", "E202", "layer"),
    "an output inside a loop": ("for i in range(m):\n    y ← W @ x\n", "E207", "before the loop"),
    "a function that calls itself": ("f(a) ← f(a)\ny ← W @ f(x)\n", "E106", "loop"),
    "functions that call each other": ("f(a) ← g(a)\ng(a) ← f(a)\ny ← W @ f(x)\n", "E106", "loop"),
    "a loss on the output": (LEARNED + OUT + "minimise ‖(B @ A) @ x‖²\n", "E210", "learned tensors"),
    "the input after backward": (
        LEARNED + OUT + "after backward:\n    B ← B + 0 · (W @ x) (A @ x)ᵀ\n", "E210", "leave it out"),
    "an expert chosen by its token": (
        "A ∈ (ℝ^{m×n})^4: learned, init = 0\ns ← softmax(A_0 @ x)\nΩ ← argtop(s, r)\n"
        "y ← W @ x + Σ_{i ∈ Ω} A_i @ x\n", "E310", "topk, which is a mask"),
    "W · x": ("y ← W · x\n", "E301", "@"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_named_with_a_remedy(name: str) -> None:
    program, code, remedy = MISTAKES[name]
    found = padp.check(program if program.startswith("adapter") else HEAD + program)
    first = next(d for d in found if d.severity == "error")
    assert first.code == code
    assert first.suggestion is not None and remedy in first.suggestion
    assert len({(d.code, d.message) for d in found}) == len(found), "nothing is said twice"


def test_a_name_can_be_the_name_of_something_in_a_module() -> None:
    """``δ`` is ``delta`` in Python, which adapters have as a method; ``train`` and ``half`` are of every module."""
    program = "adapter Names on linear(W ∈ ℝ^{m×n})\nδ, train, half, kept_0 ∈ ℝ^n: learned, init = 0\n" \
              "y ← W @ (x + δ ⊙ x + half ⊙ x + kept_0 ⊙ x + train)\n"
    layer = padp.compile(program)(nn.Linear(3, 4))
    assert list(layer.tensors) == ["δ", "train", "half", "kept₀"]
    assert layer.tensors["δ"] is layer.tensors["delta"] is layer.adapters["default"].delta_
    with torch.no_grad():
        layer.tensors["half"].fill_(0.5)
    x = torch.randn(2, 3)
    torch.testing.assert_close(layer(x), layer.reference(x))
    assert layer.train().training


def test_each_entry_of_the_output_can_be_written_in_a_loop() -> None:
    program = HEAD + "λ ∈ ℝ^m: learned, init = 1\nfor i in range(m):\n    y_i ← λ_i · (W_{i,:}ᵀ @ x)\n"
    layer = padp.compile(program)(nn.Linear(3, 4, bias=False))
    x = torch.randn(2, 3)
    torch.testing.assert_close(layer(x), layer.base(x))


LORA = padp.compile("lora")
# What is done with the API, the code, a piece of what is suggested.
MISUSES: dict[str, tuple[Callable[[nn.Module], object], str, str]] = {
    "a number for an adapter": (lambda model: padp.attach(model, cast(Adapter, 7)), "E511", "padp.attach(model, "),
    "model and adapter changed over": (lambda model: padp.attach(LORA, cast(Adapter, model)), "E511", "model, adapter"),
    "a dtype as text": (lambda model: padp.attach(model, LORA, dtype=cast(torch.dtype, "half")), "E511", "dtype="),
    "a whole-number dtype": (lambda model: padp.attach(model, LORA, dtype=torch.int32), "E511", "dtype="),
    "a number among the targets": (lambda model: padp.attach(model, LORA, targets=cast(list[str], [0])), "E503", "'0'"),
    "PEFT's name of a hyperparameter": (lambda model: padp.attach(model, LORA, lora_alpha=8), "E507", "alpha="),
    "a knob as text": (
        lambda model: padp.set(padp.attach(model, padp.compile("antipasto"), k=2), α=cast(float, "up")), "E507", ""),
}


@pytest.mark.parametrize("name", MISUSES)
def test_a_misuse_is_named_with_a_remedy(name: str) -> None:
    act, code, remedy = MISUSES[name]
    with pytest.raises(padp.PadpError) as caught:
        act(nn.Sequential(nn.Linear(4, 4)))
    (found,) = caught.value.diagnostics
    assert found.code == code
    assert remedy in (found.suggestion or "")


def test_what_a_count_does_not_depend_on_need_not_be_given(capsys: pytest.CaptureFixture[str]) -> None:
    """AdaLoRA must be told its steps; neither its formula nor its text needs them."""
    assert main(["count", "adalora", "--size", "m=10,n=10"]) == 0
    assert "252" in capsys.readouterr().out
    assert main(["show", "adalora"]) == 0
    assert main(["show", "adalora", "--size", "m=10,n=10"]) == 1  # a plan does
    assert "AdaLoRA needs steps" in capsys.readouterr().err


def test_saving_where_a_file_is(tmp_path: Path) -> None:
    (tmp_path / "here").write_text("")
    model = padp.attach(nn.Sequential(nn.Linear(4, 4)), LORA, r=2)
    with pytest.raises(padp.PadpError, match="E505"):
        padp.save(model, tmp_path / "here")


# Adapters of papers, written from the README.
PROGRAMS = {
    "LoRA-FA": """
adapter LoRAFA(r = 4, alpha = 8, seed = 1) on linear(W in R^{m x n})
A in R^{r x n}: frozen, init = kaiming, seed = seed
B in R^{m x r}: learned, init = 0
y <- (W + (alpha/r) * B @ A) @ x
# params: m*r
""",
    "MoSLoRA": """
adapter MoSLoRA(r = 4, α = 8) on linear(W ∈ ℝ^{m×n})
A ∈ ℝ^{r×n}: learned, init = kaiming
M ∈ ℝ^{r×r}: learned, init = orthogonal
B ∈ ℝ^{m×r}: learned, init = 0
y ← (W + (α/r) · B @ M @ A) @ x
# params: r(m + n) + r²
""",
    "BitFit": """
adapter BitFit on linear(W ∈ ℝ^{m×n})
Δb ∈ ℝ^m: learned, init = 0
y ← W @ x + bias + Δb
""",
    "experts": """
adapter Experts(r = 2, N = 4, k = 2) on linear(W ∈ ℝ^{m×n})
A ∈ (ℝ^{r×n})^N: learned, init = kaiming
B ∈ (ℝ^{m×r})^N: learned, init = 0
G ∈ ℝ^{N×n}: learned, init = kaiming
s ← G @ x
p ← softmax(s) ⊙ topk(s, k)
y ← W @ x + Σᵢ p_i · B_i @ (A_i @ x)
""",
    "NOLA": """
adapter NOLA(r = 4, K = 6, seed = 0) on linear(W ∈ ℝ^{m×n})
F ∈ (ℝ^{r×n})^K: frozen, shared, init = kaiming, seed = seed
H ∈ (ℝ^{m×r})^K: frozen, shared, init = kaiming, seed = seed
a ∈ ℝ^K: learned, init = normal(1)
b ∈ ℝ^K: learned, init = 0
A ← Σᵢ a_i · F_i
B ← Σᵢ b_i · H_i
y ← (W + B @ A) @ x
# params: 2K
""",
    "PHM": """
adapter PHM(k = 4, r = 2) on linear(W ∈ ℝ^{m×n}) where m = k·p, n = k·q
A ∈ (ℝ^{k×k})^k: learned, init = kaiming
S ∈ (ℝ^{p×r})^k: learned, init = 0
T ∈ (ℝ^{r×q})^k: learned, init = kaiming
y ← (W + Σᵢ A_i ⊗ (S_i @ T_i)) @ x
""",
    "SoRA": """
adapter SoRA(r = 6, λ = 0.01) on linear(W ∈ ℝ^{m×n})
A ∈ ℝ^{r×n}: learned, init = kaiming
B ∈ ℝ^{m×r}: learned, init = 0
g ∈ ℝ^r: learned, init = 1
y ← (W + B @ diag(g) @ A) @ x
after backward:
    g ← sign(g) ⊙ relu(|g| - λ · ones(r))
""",
    "ETHER+": """
adapter ETHER(b = 4) on linear(W ∈ ℝ^{m×n}) where n = b·k
u ∈ (ℝ^k)^b: learned, init = normal(1)
v ∈ (ℝ^k)^b: learned, init = u
for i in range(b):
    H_i ← I - u_i u_iᵀ / ‖u_i‖² + v_i v_iᵀ / ‖v_i‖²
y ← W @ blkdiag(H) @ x
""",
    "SVDiff": """
adapter SVDiff on linear(W ∈ ℝ^{m×n}) where q = min(m, n)
δ ∈ ℝ^q: learned, init = 0
U, Σ, Vᵀ ← svd(W)
y ← U @ diag(relu(Σ + δ)) @ Vᵀ @ x
# params: q
""",
    "cosines": """
adapter Cosines(k = 20, seed = 0) on linear(W ∈ ℝ^{m×n})
c ∈ ℝ^k: learned, init = 0
C ← cos(π/m · outer(arange(m), arange(m)))
D ← cos(π/n · outer(arange(n), arange(n)))
y ← (W + C @ scatter(c, sample(m, n, k, seed), shape=(m, n)) @ Dᵀ) @ x
""",
    "OLoRA": """
adapter OLoRA(r = 4) on linear(W ∈ ℝ^{m×n}) where r ≤ n, r ≤ m
Q, R ← qr(W)
B ∈ ℝ^{m×r}: learned, init = Q_{:,:r}
A ∈ ℝ^{r×n}: learned, init = R_{:r,:}
y ← (W + B @ A - Q_{:,:r} @ R_{:r,:}) @ x
""",
    "triangles": """
adapter Triangles on linear(W ∈ ℝ^{m×n})
L ∈ ℝ^{m×m}: learned, init = 0
d ∈ ℝ^m: learned, init = 0
y ← (I + stril(L)) @ diag(exp(d)) @ W @ x
""",
}


def literal(model: nn.Sequential, x: torch.Tensor) -> torch.Tensor:
    """What the two adapted layers mean, read literally."""
    first, last = (cast(LinearSite, model[k]) for k in (0, 2))
    return last.reference(torch.tanh(first.reference(x)))


@pytest.mark.parametrize("name", PROGRAMS)
def test_an_adapter_from_the_readme_goes_the_whole_way(name: str, tmp_path: Path) -> None:
    """Checked, attached as the identity, trained, compared with its literal reading, saved, loaded, merged."""
    program = PROGRAMS[name].lstrip()
    assert not [d for d in padp.check(program) if d.severity != "note"]
    adapter = padp.compile(program)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 24), nn.Tanh(), nn.Linear(24, 16))
    twin, x, wanted = copy.deepcopy(model), torch.randn(30, 16), torch.randn(30, 16)
    padp.attach(model, adapter)
    torch.testing.assert_close(model(x), twin(x))
    optimiser = torch.optim.Adam(padp.trainable(model), lr=0.01)
    losses: list[float] = []
    for _ in range(15):
        loss = (model(x) - wanted).square().mean() + padp.penalty(model)
        losses.append(loss.item())
        loss.backward()
        optimiser.step()
        padp.update(model)
        optimiser.zero_grad()
    assert losses[-1] < 0.99 * losses[0]
    model.eval()
    y = model(x)
    torch.testing.assert_close(y, literal(model, x))
    padp.save(model, tmp_path)
    assert torch.equal(padp.load(twin, tmp_path).eval()(x), y)
    if adapter.capabilities["mergeable"]:
        torch.testing.assert_close(padp.merge(model)(x), y)
    else:
        with pytest.raises(padp.PadpError, match="E504"):
            padp.merge(model)
