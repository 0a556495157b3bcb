"""What ten adapters are, said once more by hand in torch: for the forms that no layer of PEFT's can be held against."""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import padp
from padp.compiler.module.site import LinearSite
from tests.stdlib.common import Case, base_layer, close, fresh, inputs, learned, only, randomise, trained

SIZES = pytest.mark.parametrize(("n", "m"), [(12, 8), (9, 15)])


def merged(layer: LinearSite) -> Tensor:
    return only(layer).merged(layer.weight, layer.bias)[0].detach()


# ---------------------------------------------------------------- low rank


def delora(A: Tensor, B: Tensor, strength: Tensor | float, norms: Tensor) -> Tensor:
    """(λ‖W‖/r) Σ b_i a_iᵀ / (‖b_i‖‖a_i‖)."""
    parts = [torch.outer(b, a) / (b.norm() * a.norm()) for a, b in zip(A, B.T, strict=True)]
    return strength / len(A) * torch.stack(parts).sum(0) * norms


@SIZES
def test_delora_takes_its_first_product_away(n: int, m: int) -> None:
    case = Case("delora", n=n, m=m, hyper={"r": 3, "λ₀": 5})
    layer = fresh(case)
    first = {name: t.detach().clone() for name, t in layer.tensors.items()}
    assert first["λ"] == 5
    norms = layer.weight.norm(dim=0)
    randomise(layer, 0.3)
    now = layer.tensors
    wanted = layer.weight + delora(now["A"], now["B"], now["λ"], norms) - delora(first["A"], first["B"], 5, norms)
    close(merged(layer), wanted.detach())


def test_delora_is_bounded() -> None:
    """However large A and B grow, column j moves by at most |λ| ‖W_{:,j}‖."""
    layer = fresh(Case("delora", "peft", hyper={"r": 3, "λ₀": 5}))
    randomise(layer, 100.0)
    change = (merged(layer) - layer.weight).norm(dim=0)
    assert (change <= layer.tensors["λ"].abs() * layer.weight.norm(dim=0) + 1e-9).all()


@SIZES
def test_delora_of_the_source_document(n: int, m: int) -> None:
    """A strength for each component and no norms of W."""
    layer = trained(Case("delora", "seed", n=n, m=m, hyper={"r": 3}))
    A, B, strengths = (layer.tensors[k] for k in ("A", "B", "λ"))
    parts = [s / 3 * torch.outer(b, a) / (b.norm() * a.norm()) for s, a, b in zip(strengths, A, B.T, strict=True)]
    close(merged(layer), (layer.weight + torch.stack(parts).sum(0)).detach())


@SIZES
def test_pissa_learns_the_leading_triples(n: int, m: int) -> None:
    layer = fresh(Case("pissa", n=n, m=m, hyper={"r": 3}))
    U, S, Vh = torch.linalg.svd(layer.weight.detach(), full_matrices=False)
    top, rest = (U[:, :3] * S[:3]) @ Vh[:3], (U[:, 3:] * S[3:]) @ Vh[3:]
    close((layer.tensors["A"] @ layer.tensors["B"]).detach(), top)
    close(layer.tensors["A"].norm(dim=0).detach(), S[:3].sqrt())
    randomise(layer, 0.3)
    close(merged(layer), (rest + layer.tensors["A"] @ layer.tensors["B"]).detach())


def test_pissa_refuses_more_triples_than_there_are() -> None:
    with pytest.raises(padp.PadpError) as refused:
        fresh(Case("pissa", hyper={"r": 9}))
    assert [d.code for d in refused.value.diagnostics] == ["E501"]


@SIZES
def test_dora_has_rows_of_the_learned_length(n: int, m: int) -> None:
    """Each row of the merged weight has the length |g_i|, whatever A and B are."""
    layer = trained(Case("dora", n=n, m=m, hyper={"r": 3}))
    close(merged(layer).norm(dim=1), layer.tensors["g"].detach().abs())


def test_vera_has_its_matrices_once_a_model() -> None:
    """Sized by the largest layer, cut to size for the others; two trained vectors a layer."""
    model = torch.nn.Sequential(torch.nn.Linear(6, 9), torch.nn.Linear(9, 4))
    padp.attach(model, padp.compile("vera"), r=5)
    first, second = (cast(LinearSite, layer) for layer in model)
    for name in ("A", "B"):
        assert first.tensors[name] is second.tensors[name]
        assert not first.tensors[name].requires_grad
    assert first.tensors["A"].shape == (5, 9)
    assert first.tensors["B"].shape == (9, 5)
    randomise(first, 0.3)
    A, B, rows, columns = (first.tensors[k] for k in ("A", "B", "λ_b", "λ_d"))
    wanted = first.weight + torch.diag(rows) @ B[:9] @ torch.diag(columns) @ A[:, :6]
    close(merged(first), wanted.detach(), 1e-6)
    assert sum(p.numel() for p in learned(model).values()) == (9 + 5) + (4 + 5)


# ---------------------------------------------------------------- rotations


@pytest.mark.parametrize(
    "case",
    [Case("oft", hyper={"k": 4}), Case("oft", "peft_exact", hyper={"k": 3}), Case("boft", n=16, hyper={"k": 4, "F": 3}),
     Case("boft", hyper={"k": 2, "F": 2})],
    ids=str,
)
def test_rotations_keep_lengths_and_angles(case: Case) -> None:
    """W' W'ᵀ = W Wᵀ: the rows are turned together."""
    layer = trained(case)
    turned, W = merged(layer), layer.weight.detach()
    close(turned @ turned.T, W @ W.T)
    assert (turned - W).abs().max() > 0.1


def test_oft_of_peft_keeps_them_only_nearly() -> None:
    layer = trained(Case("oft", "peft", hyper={"k": 4}))
    turned, W = merged(layer), layer.weight.detach()
    assert (turned @ turned.T - W @ W.T).abs().max() > 1e-3


def test_oft_is_the_cayley_map_of_its_blocks() -> None:
    """R = (I + Q)(I − Q)⁻¹, and W' = W blkdiag(R)ᵀ: the sign and the side."""
    layer = trained(Case("oft", hyper={"k": 4}))
    eye, blocks = torch.eye(4, dtype=torch.float64), []
    for numbers in layer.tensors["Q"]:
        Q = torch.zeros(4, 4, dtype=torch.float64)
        Q[tuple(torch.triu_indices(4, 4, 1))] = numbers.detach()
        Q = Q - Q.T
        blocks.append((eye + Q) @ torch.linalg.inv(eye - Q))
    close(merged(layer), layer.weight.detach() @ torch.block_diag(*blocks).T)


def test_boft_mixes_every_input_with_every_other() -> None:
    """With log₂(n/k) + 1 factors no entry of R is zero; with one factor it is block-diagonal."""
    for factors, dense in ((1, False), (2, False), (3, True)):
        layer = trained(Case("boft", n=16, m=16, hyper={"k": 4, "F": factors}))
        R = torch.linalg.solve(layer.weight.detach(), merged(layer)).T
        assert bool((R.abs() > 1e-9).all()) is dense


@pytest.mark.parametrize("variant", [None, "seed"])
def test_road_turns_neighbours(variant: str | None) -> None:
    """Of the output with its bias; in the source document's reading, of the input."""
    case = Case("road", variant, 12, 14)
    layer, x = trained(case), inputs(case, 5)
    angle, size = layer.tensors["θ"], layer.tensors["α"]
    base = base_layer(case)

    def turned(v: Tensor) -> Tensor:
        even, odd = v[..., ::2], v[..., 1::2]
        pair = (size * (angle.cos() * even - angle.sin() * odd), size * (angle.sin() * even + angle.cos() * odd))
        return torch.stack(pair, -1).flatten(-2)

    close(layer(x), base(turned(x)) if variant else turned(base(x)))


def test_road_of_an_odd_layer_is_refused() -> None:
    with pytest.raises(padp.PadpError) as refused:
        fresh(Case("road", n=12, m=9))
    assert refused.value.diagnostics[0].code == "E501"


def test_ia3_scales_the_bias_of_an_output_only() -> None:
    for variant, wanted in (("feedforward", False), ("attention", True)):
        layer = trained(Case("ia3", variant))
        zero = layer(torch.zeros(12, dtype=torch.float64))
        assert torch.allclose(zero, cast(Tensor, layer.bias)) is not wanted


# ---------------------------------------------------------------- nothing of W's size is built


class Large(TorchDispatchMode):
    """Collects the operations that make a tensor as large as ``weight``; a view of it is none."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.size, self.own = weight.numel(), weight.untyped_storage().data_ptr()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for value in made if isinstance(made, (tuple, list)) else (made,):
            if isinstance(value, Tensor) and value.numel() >= self.size:
                if value.untyped_storage().data_ptr() != self.own:
                    self.found.append(str(func))
        return made


def test_a_matrix_of_that_size_would_be_seen() -> None:
    layer = trained(Case("lora", hyper={"r": 2}))
    with Large(layer.weight) as seen:
        dense = layer.tensors["B"] @ layer.tensors["A"] + layer.weight.T.T
    assert len(seen.found) == 2
    assert dense.shape == layer.weight.shape


PLANNED = [
    ("lora", {}), ("oft", {}), ("vera", {"r": 16}), ("dora", {}), ("delora", {}), ("pissa", {}), ("ia3", {}),
    ("road", {}), ("adalora", {"steps": 10}), ("boft", {"k": 4, "F": 3}),
]


@pytest.mark.parametrize(("name", "hyper"), PLANNED, ids=[name for name, _ in PLANNED])
def test_no_matrix_of_the_size_of_the_weight(name: str, hyper: dict[str, int]) -> None:
    """Neither a training step, nor evaluation, nor what is kept, holds one beside W."""
    n = m = 256
    for variant in padp.compile(name).variants or (None,):
        layer = fresh(Case(name, variant, n, m, hyper), dtype=torch.float32)
        x = torch.randn(8, n, requires_grad=True)
        with Large(layer.weight) as seen:
            layer(x).square().sum().backward()
            layer.eval()
            with torch.no_grad():
                layer(x)
        assert seen.found == [], variant
        assert sum(b.numel() for b in only(layer).buffers()) < m * n / 2, variant
