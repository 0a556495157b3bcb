"""Plain programs whose names, sizes and numbers of tokens meet Python's and torch's own: computed, or refused as data.

    names       that modules, torch.fx, generated code or Python have already
    tokens      none at all, through every operator that takes tokens
    sizes       that leave a piece without rows
"""

from __future__ import annotations

import builtins
import keyword
from typing import Any

import pytest
import torch
from torch import fx, nn

import padp
from padp.compiler.module.module import AdapterModule
from padp.compiler.numerics.agreement import differences
from padp.compiler.numerics.trials import trials
from padp.dsl.diagnostics import PadpError
from tests.support.agreement import agree, built, close, linear

HEAD = "adapter T on linear(W ∈ ℝ^{m×n})\n"


# ---------------------------------------------------------------- names


def taken() -> list[str]:
    """Every name that something around a tensor has, of those that the language reads as a name."""
    layer: Any = padp.compile("lora")(nn.Linear(4, 4), r=2)
    module: AdapterModule = layer.adapters["default"]
    words = {*dir(module), *dir(layer), *dir(nn.ModuleDict()), *vars(module), *dir(builtins), *keyword.kwlist,
             *dir(fx.GraphModule(nn.Module(), fx.Graph())), *(n.name for n in module.graph.graph.nodes)}
    words |= {"self", "torch", "tokens", "math", "inf", "nan", "device", "pytree", "operator", "x_1", "training",
              "like", "kept_0", "step_0", "prims", "padp_compiler_prims_matmul", "torch_1", "mul"}
    return sorted(w for w in words if not w.startswith("_") and readable(w))


def readable(word: str) -> bool:
    found = padp.check(program([word]))
    return not any(d.severity == "error" for d in found)


def program(words: list[str]) -> str:
    return f"{HEAD}{', '.join(words)} ∈ ℝ^n: learned, init = normal(1)\ny ← W @ (x ⊙ ({' + '.join(words)}))\n"


def test_names_of_modules_generated_code_and_python() -> None:
    words = taken()
    assert {"torch", "tokens", "forward", "training", "weight", "print", "parameters"} <= set(words)
    for k in range(0, len(words), 16):
        some = words[k:k + 16]
        layer: Any = padp.compile(program(some))(linear(3, 4), dtype=torch.double)
        x = torch.randn(2, 4, dtype=torch.double)
        close(layer(x), layer.reference(x), 1e-9, ", ".join(some))
        assert set(layer.tensors) == set(padp.compile(program(some)).parameters)
        layer(x).sum().backward()
        assert all(layer.tensors[w].grad is not None for w in some)
        assert layer.code
        with torch.no_grad():
            close(layer.eval()(x), layer.reference(x), 1e-9, ", ".join(some))


def test_names_of_adapters_on_a_model() -> None:
    adapter = padp.compile("ia3")
    words = {*dir(nn.ModuleDict()), *dir(nn.Linear(1, 1)), *dir(builtins), "self", "torch", "default"}
    for word in sorted(words):
        model = nn.Sequential(nn.Linear(4, 3))
        before = {k: p.requires_grad for k, p in model.named_parameters()}
        try:
            padp.attach(model, adapter, name=word)
        except PadpError as error:
            assert error.diagnostics[0].code == "E511"
            assert {k: p.requires_grad for k, p in model.named_parameters()} == before
            continue
        assert len(list(padp.trainable(model))) == 1
        model(torch.randn(2, 4)).sum().backward()
        padp.detach(model, word)


@pytest.mark.parametrize("spelling", ["θ_5", "θ₅", "theta_5"])
def test_tensors_by_any_spelling(spelling: str) -> None:
    text = f"{HEAD}{spelling}, λ ∈ ℝ^n: learned, init = 1\ny ← W @ (x ⊙ {spelling} ⊙ λ)\n"
    layer: Any = padp.compile(text)(linear(3, 4))
    for key in ("θ_5", "θ₅", "theta_5"):
        assert layer.tensors[key] is layer.tensors[spelling]
    assert layer.tensors["lambda"] is layer.tensors["lambda_"] is layer.tensors["λ"]
    for missing in ("θ_6", "W", "x", "", "a b", "1", "'"):
        assert missing not in layer.tensors
        with pytest.raises(KeyError, match="there are"):
            layer.tensors[missing]


# ---------------------------------------------------------------- no tokens


TOKENS = HEAD.replace("m×n", "n×n").replace("})\n", "}) where n = b·r\n").replace("adapter T", "adapter T(r = 2)") + \
    "v ∈ ℝ^n: learned, init = normal(0.3)\nM ∈ ℝ^{n×n}: learned, init = normal(0.3)\n"
OF_TOKENS = (
    "Re(fft(x))", "Im(ifft(x))", "Re(fft2(outer(x, v))) @ v", "Re(ifft2(outer(v, x))) @ v", "Re(ifft(fft(v) ⊙ fft(x)))",
    "circulant(x) @ v", "circulant(v) @ x", "circulant(x)ᵀ @ v", "topk(x, 2) ⊙ x", "softmax(x)", "maximum(x, v)",
    "clamp(x, -1, 1)", "(eye(n) + outer(x, v))⁻¹ @ v", "solve(eye(n) + 0.1 · outer(x, v), v)", "expm(outer(x, v)) @ v",
    "(eye(3) + skew(x_{:3}))⁻¹_{0,0} · x", "max(x) · v", "min_row(outer(x, v))", "max_col(outer(x, v))", "mean(x) · v",
    "trace(outer(x, v)) · v", "diagonal(outer(x, v))", "tril(outer(x, v)) @ v", "(v_{:r} ⊗ x_{:b})",
    "flatten(reshape(x, b, r))", "tile(x_{:r}, b)", "cos(x)", "‖x‖ · v", "x / ‖x‖", "x / ‖outer(x, v)‖_row",
    "(outer(x, v) / ‖outer(x, v)‖_F) @ v", "[x_{:1}; v_{1:}]", "(xᵀ @ M @ x) · v", "drop(x, 0.1)", "√(x²)", "x^3",
    "assemble(blocks(outer(x, v), b, b)) @ v", "vec(outer(x, v))_{:n}", "diag(x) @ v", "Σ_{i ∈ range(b)} x_i · M_i",
    "U @ (S ⊙ x)", "Vt @ x", "Q @ (R @ v)",
)


def of_tokens(expression: str) -> str:
    parts = "U, S, Vt ← svd(outer(x, v) + M)\n" * (expression[0] in "UV") + \
        "Q, R ← qr(outer(x, v) + M)\n" * (expression[0] == "Q")
    return f"{TOKENS}{parts}y ← W @ x + {expression}\n"


@pytest.mark.parametrize("expression", OF_TOKENS)
def test_no_tokens(expression: str) -> None:
    layer = built(of_tokens(expression), 4, 4).eval()
    x = torch.randn(3, 4, dtype=torch.double)
    close(layer(x), layer.reference(x), 1e-8, "some tokens")
    for lead in ((0,), (2, 0), (0, 3)):
        x = torch.zeros(*lead, 4, dtype=torch.double, requires_grad=True)
        y = layer(x)
        assert y.shape == layer.reference(x).shape == (*lead, 4)
        y.sum().backward()
        assert all(p.grad is None or not p.grad.any() for p in layer.parameters())
        for tokens in ("one", "many"):
            layer.adapters["default"].expect(tokens)
            with torch.no_grad():
                assert layer(x).shape == (*lead, 4)


# ---------------------------------------------------------------- sizes


PIECES = {
    "rows": "[M_{:n-k,:}; zeros(k, n)]", "columns": "[M_{:,:n-k}, zeros(n, k)]",
    "entries": "diag([v_{:n-k}; zeros(k)])",
    "in front": "[zeros(k, n); M_{k:,:}]", "two": "[M_{:n-k,:}; zeros(k, n)] @ [zeros(n, k), M_{:,k:}]",
    "a grid": "[M_{:n-k,:n-k}, zeros(n-k, k); zeros(k, n-k), eye(k)]",
}


@pytest.mark.parametrize("piece", PIECES)
@pytest.mark.parametrize("b", [1, 2, 4])
def test_a_piece_without_rows(piece: str, b: int) -> None:
    agree("adapter T(b = 2) on linear(W ∈ ℝ^{m×n}) where n = b·k\nM ∈ ℝ^{n×n}: learned, init = normal(0.4)\n"
          f"v ∈ ℝ^n: learned, init = normal(0.4)\ny ← W @ (x + {PIECES[piece]} @ x + v ⊙ x)\n", 3, 4, {"b": b})


# ---------------------------------------------------------------- the rest: each once said, or computed


REFUSED = {
    "a count beside a relation": (
        "adapter T(b = 2) on linear(W ∈ ℝ^{m×n}) where n = b·k\nλ ∈ ℝ: learned, init = 0\ny ← W @ x + λ · (W @ x)\n"
        "# params: n + 1\n", "E401"),
    "skew of a quotient": (
        "adapter T(r = 3, q = 2) on linear(W ∈ ℝ^{m×n})\nK ∈ ℝ^{r/q}: learned, init = 0\n"
        "y ← W @ x + sum(skew(K)) · (W @ x)\n", "E301"),
    "more names than twice the values": (f"{HEAD}A, B, C, D, E, F, G ← svd(W)\ny ← W @ x\n", "E209"),
    "a start that depends on sizes": (
        f"{HEAD}A ∈ ℝ^n: learned, init = (kaiming if m > n else kaiming)\ny ← W @ (x ⊙ A)\n", "E201"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    text, code = REFUSED[name]
    assert code in {d.code for d in padp.check(text)}
    with pytest.raises(PadpError, match=code):
        padp.compile(text)


@pytest.mark.parametrize("how", [nn.Module.double, lambda m: m.to(torch.float64), lambda m: m.half().float()])
def test_complex_values_that_are_kept_keep_both_parts(how: Any) -> None:
    layer: Any = padp.compile(f"{HEAD}v ∈ ℝ^n: frozen, init = 1\nu ∈ ℝ^n: learned, init = normal(1)\n"
                              "w ← fft([v_{1:}; zeros(1)])\ny ← W @ (x + Im(w) ⊙ u ⊙ x)\n")(nn.Linear(6, 4))
    layer = how(layer)
    x = torch.randn(3, 6, dtype=layer.base.weight.dtype)
    assert float((layer(x) - layer.base(x)).detach().abs().max()) > 0.1
    torch.testing.assert_close(layer(x), layer.reference(x), rtol=1e-2, atol=1e-2)


ATTENTION = "adapter C on attention(W_Q ∈ (ℝ^{e×d})^H, W_K ∈ (ℝ^{e×d})^G, W_V ∈ (ℝ^{e×d})^G, W_O ∈ (ℝ^{d×e})^H) " \
    "where H = G·p\nT ∈ ℝ^{e×e}: learned, init = kaiming\n"


@pytest.mark.parametrize("given", ["o = W_O @ T", "q = T @ (W_Q @ x + b_Q)", "k = T @ (W_K @ x + b_K)",
                                   "v = T @ (W_V @ x + b_V)"])
def test_one_map_for_all_heads(given: str) -> None:
    adapter = padp.compile(f"{ATTENTION}y ← attn({given})\n")
    found = trials(adapter, None, 2).found
    assert found
    for trial in found:
        made = trial.made()
        made.move()
        assert differences(made) == []
