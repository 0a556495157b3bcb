"""A matrix without an inverse is refused by name, wherever it is met: no error of torch's own comes out."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import padp
from padp.compiler.kernels import dense as kernels
from padp.compiler.kernels import itemwise
from padp.compiler.kernels import table as prims
from padp.dsl.diagnostics import PadpError

N = 4
HEAD = "adapter Sing on linear(W ∈ ℝ^{n×n})\nM ∈ ℝ^{n×n}: learned, init = I\n"
OF_W = ["M @ W⁻¹ @ x", "M @ solve(W, x)", "solve(W, M @ x)", "solve(W, M) @ x", "M @ (W ⊙ W)⁻¹ @ x",
        "M @ (W @ Wᵀ)⁻¹ @ x", "W⁻¹ @ M @ x", "M @ blkdiag(W, W)⁻¹_{:n,:n} @ x"]
OF_LEARNED = ["M⁻¹ @ x", "solve(M, x)", "(M - M @ W)⁻¹ @ x", "W @ M⁻¹ @ x", "solve(M, W) @ x", "M⁻¹ @ W @ M @ x",
              "(M²)⁻¹ @ x", "solve(M, W @ x)"]
STARTS = ["W⁻¹", "solve(W, eye(n))", "W + (W²)⁻¹"]


def layer(program: str, W: Tensor | None = None) -> Any:
    linear = nn.Linear(N, N, dtype=torch.double)
    if W is not None:
        with torch.no_grad():
            linear.weight.copy_(W)
    return padp.compile(program)(linear, dtype=torch.double)


def refused(what: Callable[[], object]) -> str:
    """The message of the refusal, which says whose matrix it is and what happened to it."""
    with pytest.raises(PadpError, match=r"E511.*Sing: a matrix that is inverted is singular") as raised:
        what()
    return str(raised.value)


def everywhere(made: Any) -> dict[str, Callable[[], object]]:
    """Every way in which a layer computes."""
    x, module = torch.randn(3, N, dtype=torch.double), made.adapters["default"]
    added = {"delta": lambda: module.delta(x, made.base)} if module.additive else {}
    return {**added, "train": lambda: made.train()(x), "one token": lambda: made.train()(x[0]),
            "no gradients": lambda: torch.no_grad()(made.eval())(x), "merge": made.merge,
            "reference": lambda: made.reference(x)}


@pytest.mark.parametrize("body", OF_W)
def test_of_the_weight(body: str) -> None:
    """Where it is computed when it is attached, attaching is refused; else every call is."""
    program = f"{HEAD}y ← W @ x + {body}\n"
    assert torch.isfinite(layer(program).eval()(torch.randn(2, N, dtype=torch.double))).all()
    try:
        made = layer(program, torch.zeros(N, N))
    except PadpError as error:
        assert "Sing: a matrix that is inverted is singular" in str(error)
        return
    for call in everywhere(made).values():
        refused(call)


@pytest.mark.parametrize("body", OF_LEARNED)
def test_of_what_is_learned(body: str) -> None:
    made = layer(f"{HEAD}y ← W @ x + {body}\n")
    with torch.no_grad():
        made.tensors["M"].zero_()
    for way, call in everywhere(made).items():
        said = refused(call)
        assert way == "reference" or "line 3: y ← W @ x" in said


@pytest.mark.parametrize("start", STARTS)
def test_of_a_start(start: str) -> None:
    program = f"adapter Sing on linear(W ∈ ℝ^{{n×n}})\nM ∈ ℝ^{{n×n}}: learned, init = {start}\ny ← W @ x + M @ x\n"
    assert "line 2: M ∈" in refused(lambda: layer(program, torch.zeros(N, N)))


def test_of_one_item_of_a_family() -> None:
    made = layer("adapter Sing on linear(W ∈ ℝ^{m×n}) where n = 2·k, m = n\nF ∈ (ℝ^{k×k})^2: learned, init = I\n"
                 "y ← W @ blkdiag(F)⁻¹ @ x\n")
    with torch.no_grad():
        made.tensors["F"][1].zero_()
    for call in everywhere(made).values():
        refused(call)


def test_after_a_step_of_training() -> None:
    """The base's weight becomes singular after the adapter was attached."""
    made = layer(f"{HEAD}y ← W @ x + M @ (W ⊙ W)⁻¹ @ x\n")
    with torch.no_grad():
        made.base.weight.zero_()
    refused(lambda: made(torch.randn(2, N, dtype=torch.double)))


S = torch.zeros(N, N)
KERNELS: dict[str, Callable[[], object]] = {
    "inverse": lambda: kernels.inverse(S), "solve": lambda: prims.solve(S, S), "right": lambda: prims.solve_right(S, S),
    "vectors": lambda: prims.solve_vectors(S, S, 0), "one inverse": lambda: itemwise.inverse(S),
    "one solve": lambda: itemwise.solve(S, S), "one solve of a vector": lambda: itemwise.solve(S, S[0]),
    "svd": lambda: kernels.svd(S + torch.nan), "svd of a product": lambda: kernels.svd_of_product(S + torch.nan, S, 1),
}


@pytest.mark.parametrize("name", KERNELS)
def test_operations_by_themselves(name: str) -> None:
    with pytest.raises(PadpError, match=r"E511.*singular|E511.*decomposition"):
        KERNELS[name]()


def test_every_call_into_torch_linalg_that_may_fail_goes_one_way() -> None:
    direct = re.compile(r"(?<!solved\()torch\.linalg\.(solve|inv|svd|qr|cholesky|lstsq|eigh?)\b(?!_)")
    for file in (kernels, prims, itemwise):
        code = re.sub(r'""".*?"""', "", Path(str(file.__file__)).read_text(encoding="utf-8"), flags=re.S)
        assert not direct.findall(code), file.__name__
