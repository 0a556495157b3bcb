"""What adapters are, said once more by hand in torch, from the papers' formulas.

Nothing of the compiler is used on the right-hand side: W' is built dense, and output and gradients are compared.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import padp
from padp.compiler.module.site import LinearSite
from tests.support.common import Case, base_layer, close, fresh, inputs, learned, only, randomise, trained

SIDES = pytest.mark.parametrize(("n", "m"), [(12, 8), (9, 15)])


def merged(layer: LinearSite) -> Tensor:
    return only(layer).merged(layer.weight, layer.bias)[0].detach()


# ---------------------------------------------------------------- low rank


def delora(A: Tensor, B: Tensor, strength: Tensor | float, norms: Tensor) -> Tensor:
    """(λ‖W‖/r) Σ b_i a_iᵀ / (‖b_i‖‖a_i‖)."""
    parts = [torch.outer(b, a) / (b.norm() * a.norm()) for a, b in zip(A, B.T, strict=True)]
    return strength / len(A) * torch.stack(parts).sum(0) * norms


@SIDES
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


@SIDES
def test_delora_of_the_source_document(n: int, m: int) -> None:
    """A strength for each component and no norms of W."""
    layer = trained(Case("delora", "seed", n=n, m=m, hyper={"r": 3}))
    A, B, strengths = (layer.tensors[k] for k in ("A", "B", "λ"))
    parts = [s / 3 * torch.outer(b, a) / (b.norm() * a.norm()) for s, a, b in zip(strengths, A, B.T, strict=True)]
    close(merged(layer), (layer.weight + torch.stack(parts).sum(0)).detach())


@SIDES
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


@SIDES
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


SIZES = ((12, 8), (9, 15), (7, 7))
W_of = Callable[[Mapping[str, Tensor], Tensor], Tensor]


def is_the_map(layer: LinearSite, weight: W_of) -> None:
    """Output, gradients and merged weight are those of x ↦ W'x + bias, W' = weight(tensors by symbol, W)."""
    case_inputs = torch.randn(4, layer.in_features, dtype=torch.float64, generator=torch.Generator().manual_seed(9))
    W, bias = layer.weight.detach(), layer.bias
    tensors = dict(layer.tensors)
    names = [name for name, t in tensors.items() if t.requires_grad]
    leaves = [tensors[name] for name in names]
    assert len(leaves) == len(learned(layer))
    made = weight(tensors, W)
    wanted, got = nn.functional.linear(case_inputs, made, bias), layer(case_inputs)
    close(got, wanted)
    assert not torch.allclose(made, W)  # it does something
    g = torch.randn(wanted.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(10))
    ours, theirs = (torch.autograd.grad((y * g).sum(), leaves) for y in (got, wanted))
    for name, one, other in zip(names, ours, theirs, strict=True):
        assert (one - other).abs().max() <= 1e-9 * max(1.0, other.abs().max().item()), f"gradient of {name}"
    merged, offset = only(layer).merged(W, bias)
    close(merged, made.detach())
    assert offset is not None and bias is not None
    close(offset, bias.detach())


def signed_svd(A: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Thin, with the entry of largest magnitude positive in each column of U."""
    U, S, Vh = torch.linalg.svd(A, full_matrices=False)
    sign = torch.sign(U[U.abs().argmax(0), torch.arange(U.shape[1])])
    return U * sign, S, Vh * sign[:, None]


def skew(v: Tensor) -> Tensor:
    k = (1 + math.isqrt(1 + 8 * len(v))) // 2
    upper = torch.zeros(k, k, dtype=v.dtype).index_put(tuple(torch.triu_indices(k, k, 1)), v)
    return upper - upper.T


def cayley(K: Tensor) -> Tensor:
    eye = torch.eye(len(K), dtype=K.dtype)
    return cast(Tensor, (eye - K) @ torch.linalg.inv(eye + K))


def padded(G: Tensor, q: int) -> Tensor:
    """blkdiag(G, I), q×q."""
    return cast(Tensor, torch.block_diag(G, torch.eye(q - len(G), dtype=G.dtype)))


# ---------------------------------------------------------------- SVFT


def pattern(variant: str, U: Tensor, Vh: Tensor, d: int, count: int, seed: int) -> list[tuple[int, int]]:
    q = U.shape[1]
    match variant:
        case "plain":
            return [(i, i) for i in range(q)]
        case "banded":
            return [(i, j) for i in range(q) for j in range(q) if abs(i - j) <= d]
        case "random":
            flat = torch.randperm(q * q, generator=torch.Generator().manual_seed(seed))[:count]
            return [divmod(int(f), q) for f in flat]
        case _:  # the largest u_iᵀ v_j
            alignment = U[:q].T @ Vh[:, :q].T
            best = alignment.flatten().argsort(descending=True)[:count]
            return [divmod(int(f), q) for f in best]


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("variant", ["plain", "banded", "random", "topk"])
def test_svft(variant: str, size: tuple[int, int]) -> None:
    layer = trained(Case("svft", variant, *size, {"d": 2, "count": 11, "seed": 5}))

    def weight(t: Mapping[str, Tensor], W: Tensor) -> Tensor:
        U, S, Vh = signed_svd(W)
        cells = pattern(variant, U, Vh, 2, 11, 5)
        assert len(set(cells)) == len(cells) == len(t["c"])
        rows, cols = torch.tensor(cells).T
        M = torch.zeros(len(S), len(S), dtype=W.dtype).index_put((rows, cols), t["c"])
        return U @ (torch.diag(S) + M) @ Vh

    is_the_map(layer, weight)


# ---------------------------------------------------------------- SSVD, AntiPaSTO, PSOFT


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("variant", ["exact", "paper"])
def test_ssvd(variant: str, size: tuple[int, int]) -> None:
    layer = trained(Case("ssvd", variant, *size, {"k": 4}))

    def weight(t: Mapping[str, Tensor], W: Tensor) -> Tensor:
        U, S, Vh = signed_svd(W)
        K, shift = skew(t["θ"]), nn.functional.pad(t["ΔΣ"], (0, len(S) - 4))
        G = cayley(K) if variant == "exact" else torch.eye(4, dtype=W.dtype) - 2 * K
        return U @ torch.diag(S + shift) @ padded(G, len(S)) @ Vh

    is_the_map(layer, weight)


def test_ssvd_first_order_is_close_for_small_angles_only() -> None:
    for size, bound in ((0.001, 1e-2), (1.0, None)):
        exact, linear = (trained(Case("ssvd", v, hyper={"k": 6}, spread=size)) for v in ("exact", "paper"))
        x = inputs(Case("ssvd"), 5)
        base = exact.base(x)
        difference = (exact(x) - linear(x)).norm() / (exact(x) - base).norm()
        assert difference < bound if bound else difference > 0.1


@pytest.mark.parametrize("α", [1.0, -1.0, 0.0, 0.5])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_antipasto(size: tuple[int, int], α: float) -> None:
    """The published layer's own form: A = P − Pᵀ clamped by tanh, R = (I − X)⁻¹(I + X), V_rot = V R,
    y = W_res x + U (S' ⊙ V_rotᵀ x)."""
    k, largest_angle = 3, 0.7
    layer = trained(Case("antipasto", "steer", *size, {"k": k, "θ_max": largest_angle}, spread=2.0))
    layer.set_knob("α", α)

    def weight(t: Mapping[str, Tensor], W: Tensor) -> Tensor:
        U, S, Vh = signed_svd(W)
        P = torch.triu(skew(t["θ"]))
        a = 2 * math.tan(largest_angle / 2)
        X = α / 2 * (a * torch.tanh((P - P.T) / a))
        eye = torch.eye(k, dtype=W.dtype)
        R: Tensor = torch.linalg.inv(eye - X) @ (eye + X)
        residual = W - U[:, :k] @ torch.diag(S[:k]) @ Vh[:k]
        return residual + U[:, :k] @ torch.diag(S[:k] + α * t["ΔΣ"]) @ (Vh[:k].T @ R).T

    if α == 0:
        x = inputs(Case("antipasto", n=size[0]), 5)
        close(layer(x), layer.base(x), 1e-15)
    else:
        is_the_map(layer, weight)


def test_antipasto_turns_back_with_the_sign_of_its_knob() -> None:
    """R(−α) = R(α)⁻¹; the shift of the outputs is opposite to first order only. No angle passes θ_max."""
    case = Case("antipasto", "steer", 12, 8, {"k": 2, "θ_max": 0.3}, spread=50.0)
    layer = trained(case)
    with torch.no_grad():
        layer.tensors["ΔΣ"].zero_()
    U, S, Vh = signed_svd(layer.weight.detach())

    def rotation(α: float) -> Tensor:
        layer.set_knob("α", α)
        merged, _ = only(layer).merged(layer.weight.detach(), layer.bias)
        return torch.diag(1 / S[:2]) @ U[:, :2].T @ merged @ Vh[:2].T

    forward, back = rotation(1.0), rotation(-1.0)
    close(forward @ back, torch.eye(2, dtype=torch.float64))
    assert abs(math.acos(forward[0, 0].item()) - 0.3) < 1e-6  # the two angles of a plane are one


def test_antipasto_starts_where_its_paper_says() -> None:
    layer = fresh(Case("antipasto", "steer", 96, 96, {"k": 64}))
    θ, shift = layer.tensors["θ"], layer.tensors["ΔΣ"]
    assert 0.003 < θ.std().item() < 0.0042 and θ.abs().max() <= 2 * 0.0042
    assert abs(shift.mean().item() - 0.0004) < 0.0002 and shift.abs().max() < 0.0013


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_antipasto_of_the_source_document(size: tuple[int, int]) -> None:
    layer = trained(Case("antipasto", "seed", *size, {"k": 4}))

    def weight(t: Mapping[str, Tensor], W: Tensor) -> Tensor:
        U, S, Vh = signed_svd(W)
        R = padded(cayley(skew(t["θ"])), len(S))
        return U @ R @ torch.diag(S) @ R @ Vh

    is_the_map(layer, weight)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("variant", ["input", "seed", "peft"])
def test_psoft(variant: str, size: tuple[int, int]) -> None:
    layer = trained(Case("psoft", variant, *size, {"r": 4}))

    def weight(t: Mapping[str, Tensor], W: Tensor) -> Tensor:
        U, S, Vh = signed_svd(W)
        U, S, Vh = U[:, :4], torch.diag(S[:4]), Vh[:4]
        residual, C = W - U @ S @ Vh, cayley(skew(t["K"]))
        if variant == "seed":
            return residual + U @ C @ S @ Vh
        C = C if variant == "input" else torch.linalg.inv(C)
        return residual + U @ S @ torch.diag(t["β"]) @ C @ torch.diag(t["α"]) @ Vh

    is_the_map(layer, weight)


@pytest.mark.parametrize(("variant", "side"), [("input", 1), ("seed", 0)])
def test_psoft_keeps_lengths_on_the_side_that_it_turns(variant: str, side: int) -> None:
    """R on the input side leaves W Wᵀ as it is, R on the output side Wᵀ W (the two vectors at 1)."""
    layer = trained(Case("psoft", variant, 7, 7, {"r": 7}))
    if variant == "input":
        with torch.no_grad():
            for name in "αβ":
                layer.tensors[name].fill_(1)
    W = layer.weight.detach()
    new = only(layer).merged(W, layer.bias)[0].detach()
    kept, before = (new @ new.T, W @ W.T) if side else (new.T @ new, W.T @ W)
    close(kept, before)


# ---------------------------------------------------------------- GOFT, HRA


def tree(n: int) -> list[list[tuple[int, int]]]:
    """Levels l = 1, 2, …: coordinate 2^l k with 2^l k + 2^{l−1}."""
    strides = [2**level for level in range(math.ceil(math.log2(n)))]
    return [[(i, i + s) for i in range(0, n, 2 * s) if i + s < n] for s in strides]


def plane(n: int, i: int, j: int, block: Tensor) -> Tensor:
    """The identity with a 2×2 block in rows and columns i, j."""
    at = (torch.tensor([i, i, j, j]), torch.tensor([i, j, i, j]))
    return torch.eye(n, dtype=block.dtype).index_put(at, block.flatten())


@pytest.mark.parametrize("size", [*SIZES, (2, 3), (16, 5)], ids=str)
@pytest.mark.parametrize("variant", ["tree", "quasi"])
def test_goft(variant: str, size: tuple[int, int]) -> None:
    """W' = W (P_L … P_1)ᵀ, each P_l a product of disjoint plane rotations, ⌈log₂ n⌉ of them; n − 1 rotations."""
    n = size[0]
    layer = trained(Case("goft", variant, *size))
    assert sum(map(len, tree(n))) == n - 1

    def weight(t: Mapping[str, Tensor], W: Tensor) -> Tensor:
        R, at = torch.eye(n, dtype=W.dtype), 0
        for level in tree(n):
            P = torch.eye(n, dtype=W.dtype)
            for i, j in level:
                if variant == "tree":
                    c, s = t["θ"][at].cos(), t["θ"][at].sin()
                    block = torch.stack([c, -s, s, c])
                else:
                    block = torch.stack([t["α₁"][at], t["β₁"][at], t["α₂"][at], t["β₂"][at]])
                P = plane(n, i, j, block) @ P
                at += 1
            R = P @ R
        return W @ R.T

    is_the_map(layer, weight)


def test_goft_moves_one_vector_to_any_other() -> None:
    """n − 1 angles for which R x is on the first axis, so that Rᵀ takes the axis back to x: the paper's theorem."""
    n = 6
    layer = fresh(Case("goft", "tree", n, n))
    with torch.no_grad():
        layer.weight.copy_(torch.eye(n))
        cast(Tensor, layer.bias).zero_()
        x = inputs(Case("goft", n=n))
        rest = x.tolist()
        at = 0
        for level in tree(n):
            for i, j in level:  # (c, −s; s, c) (a, b) = (‖(a, b)‖, 0)
                layer.tensors["θ"][at] = -math.atan2(rest[j], rest[i])
                rest[i], rest[j] = math.hypot(rest[i], rest[j]), 0.0
                at += 1
        close(layer(torch.tensor([x.norm().item(), *[0.0] * (n - 1)], dtype=torch.float64)), x)


def test_goft_quasi_penalty() -> None:
    """λ Σ ⟨α_t, β_t⟩²: zero for rotations, positive away from them."""
    start = only(fresh(Case("goft", "quasi", 9, 5, {"λ": 0.5}))).penalty()
    assert start is not None and start.item() == 0
    layer = trained(Case("goft", "quasi", 9, 5, {"λ": 0.5}))
    t, penalty = layer.tensors, only(layer).penalty()
    assert penalty is not None
    columns = torch.stack([t["α₁"] * t["β₁"], t["α₂"] * t["β₂"]]).sum(0)
    close(penalty, 0.5 * (columns**2).sum())
    assert only(fresh(Case("goft", "tree", 9, 5))).penalty() is None


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_hra(size: tuple[int, int]) -> None:
    layer = trained(Case("hra", None, *size, {"r": 4}))

    def weight(t: Mapping[str, Tensor], W: Tensor) -> Tensor:
        for v in t["v"]:  # W H₁ H₂ … H_r
            W = W @ (torch.eye(len(v), dtype=v.dtype) - 2 * torch.outer(v, v) / (v @ v))
        return W

    is_the_map(layer, weight)


def test_hra_penalty() -> None:
    """λ ‖I − V̂ V̂ᵀ‖_F² of the unit vectors."""
    layer = trained(Case("hra", None, 9, 5, {"r": 4, "λ": 0.1}))
    unit = nn.functional.normalize(layer.tensors["v"], dim=1)
    penalty = only(layer).penalty()
    assert penalty is not None
    close(penalty, 0.1 * (torch.eye(4, dtype=torch.float64) - unit @ unit.T).square().sum())


# ---------------------------------------------------------------- RandLoRA, FourierFT


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_randlora(size: tuple[int, int]) -> None:
    """(α/r) Σ_j B_j Λ_j A Γ_j, turned over where W is wide."""
    r, α = 4, 10
    layer = trained(Case("randlora", "bases", *size, {"r": r, "α": α}))

    def weight(t: Mapping[str, Tensor], W: Tensor) -> Tensor:
        D = torch.zeros(max(W.shape), min(W.shape), dtype=W.dtype)
        for B, inner, outer in zip(t["B"], t["Λ"], t["Γ"], strict=True):
            D = D + B @ torch.diag(inner) @ t["A"] @ torch.diag(outer)
        return W + α / r * (D if W.shape[0] >= W.shape[1] else D.T)

    is_the_map(layer, weight)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_randlora_of_peft(size: tuple[int, int]) -> None:
    """PEFT flattens B base by base and the scaled A rank by rank: column c = jr + i meets row c = i'N + j'."""
    r, α = 4, 10
    layer = trained(Case("randlora", "peft", *size, {"r": r, "α": α}))

    def weight(t: Mapping[str, Tensor], W: Tensor) -> Tensor:
        N = t["Γ"].shape[0]
        D = torch.zeros(max(W.shape), min(W.shape), dtype=W.dtype)
        for c in range(N * r):
            (j, i), (i_, j_) = divmod(c, r), divmod(c, N)
            D = D + torch.outer(t["B"][:, j, i], t["Λ"][i_, j_] * t["A"][i_] * t["Γ"][j_])
        return W + α / r * (D if W.shape[0] >= W.shape[1] else D.T)

    is_the_map(layer, weight)


def test_randlora_can_reach_full_rank() -> None:
    for variant in ("bases", "peft"):
        layer = trained(Case("randlora", variant, 9, 15, {"r": 4}))
        merged, _ = only(layer).merged(layer.weight.detach(), layer.bias)
        assert torch.linalg.matrix_rank(merged - layer.weight) == 9


def test_randlora_bases_have_unit_spread() -> None:
    tensors = fresh(Case("randlora", "bases", 40, 50, {"r": 8})).tensors
    assert abs(tensors["A"].std().item() - 1) < 1e-6
    assert abs(tensors["B"].std().item() - 1) < 1e-6
    assert torch.equal(tensors["Γ"], torch.full((5, 40), 1 / 50, dtype=torch.float64))


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("variant", ["zero", "paper"])
def test_fourierft(variant: str, size: tuple[int, int]) -> None:
    """α Re iFFT2(F), by the definition of the inverse transform."""
    k, α, seed = 10, 7, 3
    n, m = size
    layer = trained(Case("fourierft", variant, n, m, {"k": k, "α": α, "seed": seed}))
    flat = torch.randperm(m * n, generator=torch.Generator().manual_seed(seed))[:k]

    def weight(t: Mapping[str, Tensor], W: Tensor) -> Tensor:
        p, q = torch.arange(m, dtype=W.dtype)[:, None], torch.arange(n, dtype=W.dtype)
        waves = [torch.cos(2 * math.pi * (p * (f // n) / m + q * (f % n) / n)) for f in flat]
        return W + α / (m * n) * torch.einsum("k,kmn->mn", t["c"], torch.stack(waves))

    is_the_map(layer, weight)


def test_fourierft_at_the_size_where_torch_is_wrong() -> None:
    """ifft2 of 2048×2048 in float32 normalises twice on some CPU builds; what is compiled does not."""
    linear = nn.Linear(2048, 2048)
    layer = cast(Any, Case("fourierft").adapter(linear, k=5, α=300.0))
    with torch.no_grad():
        layer.tensors["c"].normal_()
    merged, _ = only(layer).merged(linear.weight, linear.bias)
    assert torch.allclose((merged - linear.weight)[0, 0], 300 / 2048**2 * layer.tensors["c"].sum(), atol=1e-6)
    # E |ΔW|² = (α/(mn))² ‖c‖² / 2: each wave has mean square 1/2
    spread = (merged - linear.weight).square().mean().sqrt()
    wanted = 300 / 2048**2 * layer.tensors["c"].norm() / math.sqrt(2)
    assert abs(spread / wanted - 1) < 0.05
