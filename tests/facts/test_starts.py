"""Programs that start at the base start there bit for bit: the base layer's own product is used, and 0 is added."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import padp

WRITES = {
    "rows": ("ℝ^{k×n}", "W'_{:k} += B"),
    "columns": ("ℝ^{m×k}", "W'_{:,:k} += B"),
    "last rows": ("ℝ^{k×n}", "W'_{m-k:} += B"),
    "two writes": ("ℝ^{k×n}", "W'_{:k} += B; W'_{k:2k} += 2 · B"),
    "after a change": ("ℝ^{k×n}", "W' ← W' + ones(m) @ ones(k)ᵀ @ B; W'_{:k} += B"),
}


@pytest.mark.parametrize("name", WRITES)
def test_what_is_written_into_the_weight(name: str) -> None:
    space, write = WRITES[name]
    adapter = padp.compile(f"adapter Write(k = 3) on linear(W ∈ ℝ^{{m×n}})\nB ∈ {space}: learned, init = 0\n"
                           f"W' ← W; {write}\ny ← W' @ x\n")
    torch.manual_seed(0)
    linear, x = nn.Linear(40, 24), torch.randn(50, 40)
    layer = adapter(linear)
    assert torch.equal(layer(x), linear(x))
    with torch.no_grad():
        layer.tensors["B"].normal_()
    torch.testing.assert_close(layer(x), layer.reference(x), rtol=1e-4, atol=1e-4)


MIXED = """adapter Mixed(r = 3) on linear(W ∈ ℝ^{m×n})
F ∈ (ℝ^{n×n})^r: learned, init = I
w ∈ ℝ^r: learned, init = normal(1)
y ← W @ (Σᵢ w_i · F_i) @ x
"""


def test_a_family_that_starts_as_one_item_is_a_family() -> None:
    assert [d.code for d in padp.check(MIXED)] == ["N401"]
