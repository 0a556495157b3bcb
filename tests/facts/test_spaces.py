"""Tensors in O(k), SO(k) and St(r, d) are in their space: fresh, trained, shared, read by the user, and literally."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import padp
from padp.dsl.diagnostics import PadpError
from tests.support.agreement import agree

F64 = torch.double
SPACES = {"O(n)": "R", "SO(n)": "R", "St(n, n)": "R", "St(r, n)": "Rᵀ @ R", "(O(k))^b": "blkdiag(R)",
          "(SO(k))^b": "blkdiag(R)", "St(1, n)": "Rᵀ @ R"}
STARTS = ["", ", init = orthogonal", ", init = kaiming", ", init = normal(2)"]


def program(space: str, declared: str = "learned") -> str:
    return f"adapter T(r = 2, b = 2) on linear(W ∈ ℝ^{{m×n}}) where n = b·k\nR ∈ {space}: {declared}\n" \
           f"y ← W @ (x + {SPACES[space]} @ x)\n"


def off(R: Tensor) -> float:
    """How far rows are from being orthonormal."""
    return float((R.detach() @ R.detach().mT - torch.eye(R.shape[-2], dtype=R.dtype)).abs().max())


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("space", SPACES)
def test_trained_in_its_space(space: str, start: str) -> None:
    agree(program(space, f"learned{start}"), 4, 6, by=0.0)
    layer: Any = padp.compile(program(space, f"learned{start}"))(nn.Linear(6, 4).to(F64), dtype=F64)
    x = torch.randn(5, 6, dtype=F64)
    optimiser = torch.optim.SGD(layer.adapters.parameters(), lr=0.1)
    before = layer.tensors["R"].detach().clone()
    for _ in range(4):
        optimiser.zero_grad()
        layer(x).square().sum().backward()
        optimiser.step()
    R = layer.tensors["R"]
    assert R.isfinite().all() and off(R) < 1e-12
    assert float((R - before).detach().abs().max()) > 1e-6 or space == "St(n, n)"
    if space.startswith(("SO", "(SO")):
        assert torch.allclose(torch.linalg.det(R.detach()), torch.ones((), dtype=F64))
    assert torch.allclose(layer(x), layer.reference(x))


@pytest.mark.parametrize("space", SPACES)
def test_without_a_start_it_is_the_identity(space: str) -> None:
    layer: Any = padp.compile(program(space))(nn.Linear(6, 4).to(F64), dtype=F64)
    R = layer.tensors["R"]
    assert torch.equal(R.detach(), torch.eye(R.shape[-2], R.shape[-1], dtype=F64).expand(R.shape))
    reference = layer.only().literal(layer.base)
    assert torch.equal(reference.init("R", torch.Generator()), R.detach())


def test_the_identity_is_proved_and_counted() -> None:
    text = "adapter T on linear(W ∈ ℝ^{m×n})\nR ∈ O(n): learned    # orthogonal\ny ← W @ R @ x    # identity\n"
    assert padp.check(text) == []


@pytest.mark.parametrize("start", ["0", "1", "0.5", "2 · 0", "1/3"])
@pytest.mark.parametrize("declared", ["learned", "frozen"])
@pytest.mark.parametrize("space", [s for s in SPACES if s != "St(1, n)"])
def test_one_number_is_in_no_such_space(space: str, declared: str, start: str) -> None:
    seed = ", seed = 1" if declared == "frozen" else ""
    found = padp.check(program(space, f"{declared}, init = {start}{seed}"))
    assert "E311" in {d.code for d in found}


def test_a_start_without_full_rank_is_refused() -> None:
    text = "adapter T on linear(W ∈ ℝ^{m×n})\nR ∈ O(n): learned, init = Wᵀ @ W\ny ← W @ R @ x\n"
    with pytest.raises(PadpError, match="without full rank"):
        padp.compile(text)(nn.Linear(6, 4))


@pytest.mark.parametrize("space", ["O(n)", "SO(n)", "St(r, n)"])
def test_shared_and_smaller_is_in_its_space_too(space: str) -> None:
    text = program(space, "frozen, shared, init = kaiming, seed = 3")
    text = text.replace("y ←", "c ∈ ℝ: learned, init = 1\ny ← c ·")
    model = nn.Sequential(nn.Linear(8, 6), nn.Linear(6, 4)).to(F64)
    padp.attach(model, padp.compile(text))
    for path in "01":
        layer: Any = model.get_submodule(path)
        assert off(layer.tensors["R"]) < 1e-6
        x = torch.randn(3, layer.base.in_features, dtype=F64)
        assert torch.allclose(layer(x), layer.reference(x), atol=1e-6)


WRITES: dict[str, Callable[[Any], Any]] = {
    "copy_": lambda R: R.copy_(R + 1), "fill_": lambda R: R.fill_(0), "an index": lambda R: R.__setitem__(0, 1.0),
    "+=": lambda R: R.__iadd__(1), "*=": lambda R: R.__imul__(2), "data": lambda R: R.data.zero_(),
    "init": lambda R: nn.init.zeros_(R), "out": lambda R: torch.add(torch.ones(6, 6), 1, out=R),
}


@pytest.mark.parametrize("write", WRITES)
def test_what_is_computed_cannot_be_written_into(write: str) -> None:
    layer: Any = padp.compile(program("O(n)"))(nn.Linear(6, 4))
    with torch.no_grad(), pytest.raises(PadpError, match="get_parameter"):
        WRITES[write](layer.tensors["R"])


def test_what_is_stored_can_be_written_into() -> None:
    layer: Any = padp.compile(program("O(n)"))(nn.Linear(6, 4))
    stored = layer.get_parameter("adapters.default.R")
    free = torch.randn(6, 6)
    with torch.no_grad():
        stored.copy_(free)
    assert torch.equal(stored, free) and torch.equal(layer.state_dict()["adapters.default.R"], free)
    assert off(layer.tensors["R"]) < 1e-5
    layer.tensors["R"].sum().backward()
    assert stored.grad is not None and stored.grad.isfinite().all()
    assert type(layer.tensors["R"] + 1) is Tensor
