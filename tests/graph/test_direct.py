"""A plan without its questions: the same values and gradients as with them, and only where the answers are known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import padp
from padp.compiler.graph.few_tokens import alone
from padp.compiler.kernels import products
from padp.compiler.module import module as module_

ADAPTERS: dict[str, dict[str, Any]] = {
    "lora": {"r": 2}, "dora": {"r": 2}, "vera": {"r": 4}, "oft": {"k": 4}, "road": {"variant": "peft", "g": 4},
    "goft": {}, "svft": {}, "fourierft": {"k": 6}, "randlora": {"r": 2}, "hra": {"r": 2},
}


def layer_of(name: str, **more: Any) -> tuple[Any, Any]:
    """An adapter off its start, declared to see one token, and its module."""
    torch.manual_seed(0)
    base = nn.Linear(16, 12).double().requires_grad_(False)
    layer: Any = padp.compile(name)(base, **{"dtype": torch.double, **ADAPTERS[name], **more})
    with torch.no_grad():
        for p in layer.parameters():
            if p.requires_grad:
                p.add_(0.1 * torch.randn_like(p))
    layer.only().expect("one")
    return layer, layer.only()


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether each call went without questions."""
    calls: list[bool] = []
    inner = module_.AdapterModule._directly  # pyright: ignore[reportPrivateUsage]

    def seen(self: Any, x: Tensor, base: nn.Module) -> Tensor | None:
        y = inner(self, x, base)
        calls.append(y is not None)
        return y

    monkeypatch.setattr(module_.AdapterModule, "_directly", seen)
    return calls


@pytest.mark.parametrize("shape", [(16,), (1, 16), (1, 1, 16), (3, 16), (2, 3, 16)])
@pytest.mark.parametrize("few", [False, True], ids=["small", "large enough for a choice of routine"])
@pytest.mark.parametrize("name", ADAPTERS)
def test_values_and_gradients(name: str, few: bool, shape: tuple[int, ...], asked: list[bool],
                              monkeypatch: pytest.MonkeyPatch) -> None:
    if few:
        for limit in ("WORTH_ONEDNN", "WORTH_ONEDNN_FEW", "WORTH_CHOOSING"):
            monkeypatch.setattr(products, limit, 1)
    layer, module = layer_of(name)
    x = torch.randn(shape, dtype=torch.double, requires_grad=True)
    learned = [x, *(p for p in layer.parameters() if p.requires_grad)]
    made, meant = layer(x), layer.reference(x)
    assert asked == [True] and made.shape == meant.shape == (*shape[:-1], 12)
    torch.testing.assert_close(made, meant, rtol=1e-9, atol=1e-9)
    gradient = torch.randn_like(made)
    for a, b in zip(*(torch.autograd.grad((y * gradient).sum(), learned, allow_unused=True, materialize_grads=True)
                      for y in (made, meant)), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-8)
    layer.eval()
    with torch.no_grad():
        torch.testing.assert_close(layer(x), meant, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(layer(x), meant, rtol=1e-9, atol=1e-9)
        next(p for p in module.parameters() if p.requires_grad).mul_(2)  # what was kept is made again
        torch.testing.assert_close(layer(x), layer.reference(x), rtol=1e-9, atol=1e-9)
    assert asked == [True] * 4


def hooked(layer: Any) -> None:
    layer.base.register_forward_hook(lambda module, given, y: y * 1)


OTHERWISE: dict[str, tuple[Callable[[Any], object], Callable[[Any, Tensor], Tensor]]] = {
    "a hook on the base": (hooked, lambda layer, x: layer(x)),
    "a dispatch mode": (lambda layer: None, lambda layer, x: counted(layer, x)),
    "vmap": (lambda layer: None, lambda layer, x: torch.func.vmap(layer)(x)),
    "many tokens": (lambda layer: None, lambda layer, x: layer(x.expand(40, 16))[:1]),
    "declared for many": (lambda layer: layer.only().expect("many"), lambda layer, x: layer(x)),
}


def counted(layer: Any, x: Tensor) -> Tensor:
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as mode:
        y: Tensor = layer(x)
    assert mode.get_total_flops() > 0
    return y


@pytest.mark.parametrize("why", OTHERWISE)
def test_elsewhere_the_questions_are_asked(why: str, asked: list[bool]) -> None:
    prepare, call = OTHERWISE[why]
    layer, _ = layer_of("lora")
    prepare(layer)
    x = torch.randn(1, 16, dtype=torch.double)
    torch.testing.assert_close(call(layer, x), layer.reference(x), rtol=1e-9, atol=1e-9)
    assert True not in asked


def test_mixed_precision_asks(asked: list[bool]) -> None:
    layer, _ = layer_of("lora", dtype=torch.float32)
    x = torch.randn(1, 16, dtype=torch.double)
    torch.testing.assert_close(layer(x), layer.reference(x), rtol=1e-5, atol=1e-5, check_dtype=False)
    assert asked == [False]


def test_dropout_in_training_asks_and_draws(asked: list[bool]) -> None:
    layer, _ = layer_of("lora", dropout=0.5)
    x = torch.randn(1, 16, dtype=torch.double)
    assert len({tuple(layer(x)[0].tolist()) for _ in range(8)}) > 1
    layer.eval()
    with torch.no_grad():
        torch.testing.assert_close(layer(x), layer.reference(x), rtol=1e-9, atol=1e-9)
    assert asked == [False] * 8 + [True]


def test_alone() -> None:
    x = torch.randn(2, 8)
    assert alone(x) and alone(x[0]) and alone(nn.Parameter(x)) and alone(x.double())
    assert not any(alone(t) for t in (x[:0], x.half(), x.to("meta"), x.to_sparse(), torch.randn(64, 8), x[0, 0]))
    with torch.autocast("cpu", torch.bfloat16):
        assert not alone(x)


FAMILIES = {
    "add_linear": """adapter P(k = 4) on linear(W ∈ ℝ^{m×n}) where n = b·k
F ∈ (ℝ^{k×n})^b: learned, init = kaiming
G ∈ ℝ^{k×k}: learned, init = kaiming
Q ∈ (ℝ^{m×k})^b: learned, init = kaiming
y ← W @ x + Σᵢ Q_i @ sigmoid(F_i @ x + G @ (F_i @ x))
""",
    "a matrix of each token and of a family": """adapter P(k = 4) on linear(W ∈ ℝ^{m×n}) where n = b·k
F ∈ ℝ^{k×n}: learned, init = kaiming
E ∈ (ℝ^{k×k})^b: learned, init = kaiming
V ∈ (ℝ^k)^b: learned, init = normal(1)
Q ∈ (ℝ^{m×k})^b: learned, init = kaiming
s ← F @ x
y ← W @ x + Σᵢ Q_i @ ((s V_iᵀ + E_i) @ s)
""",
    "entry by entry": """adapter P(k = 4) on linear(W ∈ ℝ^{m×n}) where n = b·k
F ∈ ℝ^{k×n}: learned, init = kaiming
E ∈ (ℝ^{k×k})^b: learned, init = kaiming
Q ∈ (ℝ^{m×k})^b: learned, init = kaiming
s ← F @ x
y ← W @ x + Σᵢ Q_i @ ((E_i ⊙ (s sᵀ)) @ s)
""",
}


@pytest.mark.parametrize("tokens", ["many", "one"])
@pytest.mark.parametrize("name", FAMILIES)
def test_families_of_vectors_and_of_matrices_of_each_token(name: str, tokens: Any) -> None:
    torch.manual_seed(0)
    layer: Any = padp.compile(FAMILIES[name])(nn.Linear(8, 6).double(), dtype=torch.double)
    layer.only().expect(tokens)
    for count in (1, 2, 3):  # two is the size of the family
        x = torch.randn(count, 8, dtype=torch.double, requires_grad=True)
        made, meant = layer(x), layer.reference(x)
        torch.testing.assert_close(made, meant, rtol=1e-10, atol=1e-10)
        learned = [x, *(p for p in layer.parameters() if p.requires_grad)]
        for a, b in zip(*(torch.autograd.grad(y.square().sum(), learned, allow_unused=True, materialize_grads=True)
                          for y in (made, meant)), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("declared", ["many", "one"])
def test_another_width_is_said_by_torch(declared: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "WORTH_ONEDNN_FEW", 1)
    layer: Any = padp.compile("lora")(nn.Linear(16, 12), r=2)
    layer.only().expect(declared)
    for context in (torch.enable_grad, torch.no_grad):
        with context(), pytest.raises(RuntimeError, match=r"shapes cannot be multiplied \(1x15 and"):
            layer.eval()(torch.randn(1, 15))
