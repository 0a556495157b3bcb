"""Adapters against PEFT's own layers: the same numbers give the same output and the same merged weight.

Each test says which of PEFT's tensors is which of ours. Where PEFT's convention is another than the paper's, it is our
``variant peft`` that is compared; where a shape or a sign differs, the mapping is in the test.
"""

from __future__ import annotations

import copy
import math
import types
import warnings
from collections.abc import Mapping
from typing import Any, cast

import peft
import peft.tuners.boft.layer as boft_layer
import pytest
import torch
from torch import Tensor, nn

import padp
from tests.support.common import (
    Case,
    agrees,
    base_layer,
    close,
    copy_into,
    equals_peft,
    fresh,
    inputs,
    learned,
    only,
    peft_layer,
)

SIDES = pytest.mark.parametrize(("n", "m"), [(12, 8), (9, 15)])


# ---------------------------------------------------------------- low rank


def low_rank(t: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {"A": t["lora_A"], "B": t["lora_B"]}


@SIDES
def test_lora(n: int, m: int) -> None:
    config = peft.LoraConfig(r=4, lora_alpha=6, target_modules=["0"])
    equals_peft(Case("lora", n=n, m=m, hyper={"r": 4, "α": 6}), config, low_rank)


def test_rslora_is_lora_with_another_alpha() -> None:
    config = peft.LoraConfig(r=4, lora_alpha=6, use_rslora=True, target_modules=["0"])
    equals_peft(Case("lora", hyper={"r": 4, "α": 6 * math.sqrt(4)}), config, low_rank)


@SIDES
def test_dora(n: int, m: int) -> None:
    """g is the magnitude vector."""
    config = peft.LoraConfig(r=4, lora_alpha=6, use_dora=True, target_modules=["0"])
    case = Case("dora", n=n, m=m, hyper={"r": 4, "α": 6})
    equals_peft(case, config, lambda t: {**low_rank(t), "g": t["lora_magnitude_vector"]})


def test_dora_has_the_gradients_of_peft() -> None:
    """Only the norm is held constant: finite differences cannot tell, PEFT can."""
    theirs = peft_layer(Case("dora"), peft.LoraConfig(r=4, lora_alpha=6, use_dora=True, target_modules=["0"]))
    ours = fresh(Case("dora", hyper={"r": 4, "α": 6}), dtype=torch.float32)
    copy_into(ours, {**low_rank(theirs.tensors), "g": theirs.tensors["lora_magnitude_vector"]})
    x = inputs(Case("dora"), 5, dtype=torch.float32)
    names = {"lora_A": "A", "lora_B": "B", "lora_magnitude_vector": "g"}
    wanted = {next(v for k, v in names.items() if k in name): p for name, p in theirs.model.named_parameters()
              if p.requires_grad}
    theirs.model(x).square().sum().backward()
    ours(x).square().sum().backward()
    for name, p in learned(only(ours)).items():
        close(cast(Tensor, p.grad), cast(Tensor, wanted[name].grad), 1e-5)


@SIDES
def test_pissa(n: int, m: int) -> None:
    """PEFT overwrites the base weight by the residual; the start and what is learned from it must agree."""
    case = Case("pissa", "peft", n, m, {"r": 4, "α": 6})
    config = peft.LoraConfig(r=4, lora_alpha=6, init_lora_weights="pissa", target_modules=["0"])
    equals_peft(case, config, low_rank)
    theirs, ours = peft_layer(case, config, spread=0.0), fresh(case, dtype=torch.float32)
    close(ours.tensors["B"] @ ours.tensors["A"], theirs.tensors["lora_B"] @ theirs.tensors["lora_A"], 1e-5)
    close(ours.tensors["A"].norm(dim=1), theirs.tensors["lora_A"].norm(dim=1), 1e-5)


@SIDES
def test_pissa_of_the_paper_starts_alike(n: int, m: int) -> None:
    """The paper's A is PEFT's B times √(α/r), and the other way round."""
    case = Case("pissa", n=n, m=m, hyper={"r": 4})
    config = peft.LoraConfig(r=4, lora_alpha=6, init_lora_weights="pissa", target_modules=["0"])
    theirs, ours, s = peft_layer(case, config, spread=0.0), fresh(case, dtype=torch.float32), 6 / 4
    close(ours.tensors["A"].norm(dim=0), theirs.tensors["lora_B"].norm(dim=0) * math.sqrt(s), 1e-5)
    close(ours.tensors["B"].norm(dim=1), theirs.tensors["lora_A"].norm(dim=1) * math.sqrt(s), 1e-5)


@SIDES
def test_vera(n: int, m: int) -> None:
    """The shared matrices are PEFT's, which a checkpoint holds by default."""
    case = Case("vera", n=n, m=m, hyper={"r": 5})
    config = peft.VeraConfig(r=5, projection_prng_key=3, target_modules=["0"])
    names = {"A": "vera_A", "B": "vera_B", "λ_b": "vera_lambda_b", "λ_d": "vera_lambda_d"}
    equals_peft(case, config, lambda t: {ours: t[theirs] for ours, theirs in names.items()})


def test_vera_starts_with_the_distribution_of_peft() -> None:
    """U(±√(6/fan_in)): fan_in is n for A and r for B; the draws differ, the bounds do not."""
    case = Case("vera", n=40, m=60, hyper={"r": 50})
    theirs = peft_layer(case, peft.VeraConfig(r=50, target_modules=["0"]), spread=0.0)
    ours = fresh(case, dtype=torch.float32).tensors
    for name, other, fan_in in (("A", "vera_A", 40), ("B", "vera_B", 50)):
        bound = math.sqrt(6 / fan_in)
        for tensor in (ours[name], theirs.tensors[other]):
            assert 0.99 * bound < tensor.abs().max() <= bound
        close(ours[name].std(), theirs.tensors[other].std(), 0.05)
    assert torch.equal(ours["λ_d"], theirs.tensors["vera_lambda_d"])
    assert torch.equal(ours["λ_b"], theirs.tensors["vera_lambda_b"])


@SIDES
def test_delora(n: int, m: int) -> None:
    case = Case("delora", "peft", n, m, {"r": 4, "λ₀": 3})
    config = peft.DeloraConfig(r=4, delora_lambda=3, target_modules=["0"])
    equals_peft(case, config, lambda t: {"A": t["delora_A"], "B": t["delora_B"], "λ": t["delora_lambda"].reshape(())})


def test_delora_at_its_start() -> None:
    """With B = 0 the norms are cut off at 10⁻⁴ in both: the same output, and the same very large gradient of B."""
    case = Case("delora", "peft", hyper={"r": 4})
    config = peft.DeloraConfig(r=4, target_modules=["0"])
    theirs, ours = peft_layer(case, config, spread=0.0), fresh(case, dtype=torch.float32)
    copy_into(ours, {"A": theirs.tensors["delora_A"], "B": theirs.tensors["delora_B"],
                     "λ": theirs.tensors["delora_lambda"].reshape(())})
    x = inputs(case, 5, dtype=torch.float32)
    theirs.model(x).square().sum().backward()
    ours(x).square().sum().backward()
    wanted = next(p.grad for name, p in theirs.model.named_parameters() if "delora_B" in name)
    close(cast(Tensor, ours.tensors["B"].grad), wanted, 1e-5)
    assert wanted.abs().max() > 1e3


@SIDES
def test_adalora(n: int, m: int) -> None:
    """P, Λ, Q are PEFT's B, E, A."""
    case = Case("adalora", "peft", n, m, {"r": 4, "α": 6, "steps": 10})
    config = peft.AdaLoraConfig(init_r=4, target_r=2, lora_alpha=6, total_step=10, target_modules=["0"])
    equals_peft(case, config, triplet)


def triplet(t: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {"P": t["lora_B"], "Λ": t["lora_E"].reshape(-1), "Q": t["lora_A"]}


# ---------------------------------------------------------------- rotations and scalings


@SIDES
@pytest.mark.parametrize("exact", [False, True])
def test_oft(n: int, m: int, exact: bool) -> None:
    """Q is PEFT's vector of each block, in the same order."""
    case = Case("oft", "peft_exact" if exact else "peft", n, m, {"k": 3})
    config = peft.OFTConfig(r=0, oft_block_size=3, use_cayley_neumann=not exact, target_modules=["0"])
    equals_peft(case, config, lambda t: {"Q": t["oft_R"]})


@SIDES
def test_oft_of_the_paper_is_the_inverse_of_exact_peft(n: int, m: int) -> None:
    config = peft.OFTConfig(r=0, oft_block_size=3, use_cayley_neumann=False, target_modules=["0"])
    equals_peft(Case("oft", n=n, m=m, hyper={"k": 3}), config, lambda t: {"Q": -t["oft_R"]})


def test_oft_of_the_paper_is_near_the_default_of_peft_for_small_angles() -> None:
    config = peft.OFTConfig(r=0, oft_block_size=3, target_modules=["0"])
    case = Case("oft", hyper={"k": 3})
    equals_peft(case, config, lambda t: {"Q": t["oft_R"]}, spread=0.01, tolerance=1e-4)
    with pytest.raises(AssertionError):
        equals_peft(case, config, lambda t: {"Q": t["oft_R"]}, spread=0.3, tolerance=1e-4)


@pytest.fixture
def dense_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """PEFT's CUDA extension makes block-diagonal matrices; without it PEFT leaves all factors but one out, silently."""

    def forward(blocks: Tensor) -> list[Tensor]:
        return [torch.stack([torch.block_diag(*factor) for factor in blocks])]

    def backward(gradient: Tensor, blocks: Tensor) -> list[Tensor]:
        count, size = blocks.shape[1:3]
        grid = gradient.reshape(-1, count, size, count, size)
        return [torch.diagonal(grid, dim1=1, dim2=3).movedim(-1, 1)]

    extension = types.SimpleNamespace(forward=forward, backward=backward)
    monkeypatch.setattr(boft_layer, "get_fbd_cuda", lambda: extension)


@pytest.mark.parametrize(
    ("n", "m", "k", "factors"),
    [(12, 8, 4, 1), (9, 15, 3, 1), (12, 8, 2, 2), (16, 9, 4, 2), (16, 9, 4, 3), (24, 5, 6, 3)],
)
@pytest.mark.usefixtures("dense_blocks")
def test_boft(n: int, m: int, k: int, factors: int) -> None:
    """D is PEFT's full block; only its antisymmetric half matters. s scales the outputs, not the bias."""
    case = Case("boft", "peft", n, m, {"k": k, "F": factors})
    config = peft.BOFTConfig(boft_block_size=k, boft_n_butterfly_factor=factors, target_modules=["0"])
    equals_peft(case, config, lambda t: {"D": t["boft_R"], "s": t["boft_s"].reshape(-1)})


@pytest.mark.usefixtures("dense_blocks")
def test_boft_of_the_paper_has_the_same_factors() -> None:
    """The paper's default is PEFT's rotation, without the scale and with each block's k(k − 1)/2 numbers."""
    case = Case("boft", n=16, m=9, hyper={"k": 4, "F": 3})
    config = peft.BOFTConfig(boft_block_size=4, boft_n_butterfly_factor=3, target_modules=["0"])
    theirs = peft_layer(case, config)
    ours = fresh(case, dtype=torch.float32)
    D = theirs.tensors["boft_R"]
    above = torch.triu_indices(4, 4, 1)
    copy_into(ours, {"Q": ((D - D.mT) / 2)[..., above[0], above[1]]})
    with torch.no_grad():
        theirs.layer.boft_s["default"].fill_(1)
        close(ours(inputs(case, 5, dtype=torch.float32)), theirs(inputs(case, 5, dtype=torch.float32)), 1e-5)


@SIDES
@pytest.mark.parametrize("variant", ["feedforward", "attention"])
def test_ia3(n: int, m: int, variant: str) -> None:
    config = peft.IA3Config(target_modules=["0"], feedforward_modules=["0"] if variant == "feedforward" else [])
    equals_peft(Case("ia3", variant, n, m), config, lambda t: {"λ": t["ia3_l"].reshape(-1)})


@pytest.mark.parametrize(("n", "m", "g"), [(12, 8, 4), (9, 12, 6), (9, 14, 2)])
@pytest.mark.parametrize("variant", ["road_1", "road_2", "road_4"])
def test_road(n: int, m: int, g: int, variant: str) -> None:
    """PEFT's road_4 lists, for each group, g numbers of the cosines and then g of the sines; ours all of each."""
    case = Case("road", variant.replace("road_", "peft_").removesuffix("_1"), n, m, {"g": g})
    config = peft.RoadConfig(variant=cast(Any, variant), group_size=g, target_modules=["0"])

    def ordered(t: Tensor) -> Tensor:
        return t.reshape(-1, 2, g).transpose(0, 1).reshape(2, m) if variant == "road_4" else t

    equals_peft(case, config, lambda t: {"θ": ordered(t["road_theta"]), "α": ordered(t["road_alpha"])})


@pytest.mark.parametrize("variant", ["road_1", "road_2", "road_4"])
def test_road_of_the_paper_is_that_of_peft_in_groups_of_two(variant: str) -> None:
    """Halves of groups of two are neighbours. Ours keeps a pair's numbers together: the entries of its 2×2 block."""
    case = Case("road", variant, 9, 14)
    config = peft.RoadConfig(variant=cast(Any, variant), group_size=2, target_modules=["0"])

    def ordered(t: Tensor) -> Tensor:
        if variant == "road_1":
            return t
        if variant == "road_2":
            return t.reshape(-1, 2)
        cosine, sine = t.reshape(-1, 2, 2).unbind(1)  # for the outputs p and q of a pair
        return torch.stack([cosine[:, 0], sine[:, 0], sine[:, 1], cosine[:, 1]], -1).reshape(-1, 2, 2)

    equals_peft(case, config, lambda t: {"θ": ordered(t["road_theta"]), "α": ordered(t["road_alpha"])})


# ---------------------------------------------------------------- AdaLoRA in training


@pytest.mark.parametrize(("warmup", "final"), [(0, 0), (2, 4)])
def test_adalora_prunes_what_peft_prunes(warmup: int, final: int) -> None:
    """Two layers, twelve steps: after each, the same singular values are left, and they are the same numbers.

    PEFT masks after the optimiser's step, with the gradients of before; so do we here. In the last ``final`` steps the
    choice stays as it is.
    """
    steps, r, target = 12, 4, 2
    torch.manual_seed(0)
    base = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 7))
    adalora = padp.compile("adalora")
    ours = padp.attach(copy.deepcopy(base), adalora, variant="peft", r=r, target=target, α=8, steps=steps,
                       warmup=warmup, final=final)
    config = peft.AdaLoraConfig(init_r=r, target_r=target, lora_alpha=8, total_step=steps, tinit=warmup, tfinal=final,
                                deltaT=1, target_modules=["0", "2"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs: Any = peft.get_peft_model(cast(Any, base), config)
    layers = theirs.base_model.model
    with torch.no_grad():
        for k in (0, 2):
            layers[k].lora_E["default"].normal_(0, 0.3)
            names = ("lora_A", "lora_B", "lora_E")
            copy_into(cast(Any, ours[k]), triplet({name: getattr(layers[k], name)["default"] for name in names}))
    x, wanted = torch.randn(20, 6), torch.randn(20, 7)
    optimisers = [torch.optim.SGD(learned(model).values(), lr=0.3) for model in (ours, theirs)]
    left: list[int] = []
    for step in range(steps):
        for model, optimiser in zip((ours, theirs), optimisers, strict=True):
            optimiser.zero_grad()
            (model(x) - wanted).square().mean().backward()
            optimiser.step()
        padp.update(ours)
        theirs.base_model.update_and_allocate(step)
        pairs = [(cast(Any, ours[k]).tensors["Λ"], layers[k].lora_E["default"].reshape(-1)) for k in (0, 2)]
        for mine, other in pairs:
            close(mine.detach(), other.detach(), 1e-4)
            assert torch.equal(mine != 0, other != 0)
        left.append(sum(int((mine != 0).sum()) for mine, _ in pairs))
    assert left[0] == 2 * r
    assert left[-1] == 2 * target
    assert left == sorted(left, reverse=True)


def test_the_penalty_of_adalora_is_that_of_peft() -> None:
    """PEFT adds 0.5 times the mean over all P and Q of ‖PᵀP − I‖_F; a site of ours adds the mean over its two."""
    case = Case("adalora", "peft", hyper={"r": 4, "steps": 10})
    theirs = peft_layer(case, peft.AdaLoraConfig(init_r=4, target_r=2, total_step=10, target_modules=["0"]))
    ours = fresh(case, dtype=torch.float32)
    copy_into(ours, triplet(theirs.tensors))

    class Outputs:
        loss = torch.zeros(())

    theirs.model.base_model.model.forward = lambda: Outputs()
    outputs = theirs.model.base_model.forward()
    close(cast(Tensor, ours.penalty()), outputs.loss, 1e-5)


def test_the_penalty_of_the_paper() -> None:
    """γ (‖PᵀP − I‖² + ‖QQᵀ − I‖²)."""
    layer = fresh(Case("adalora", hyper={"r": 4, "steps": 10, "γ": 0.3}))
    P, Q, eye = layer.tensors["P"], layer.tensors["Q"], torch.eye(4, dtype=torch.float64)
    wanted = 0.3 * ((P.T @ P - eye).square().sum() + (Q @ Q.T - eye).square().sum())
    close(cast(Tensor, layer.penalty()), wanted)


# ---------------------------------------------------------------- PEFT's tensors must be complete


def test_the_base_of_both_is_one() -> None:
    """What makes these comparisons mean something: the same base weights, and a PEFT adapter that does something."""
    case = Case("lora", hyper={"r": 4})
    theirs = peft_layer(case, peft.LoraConfig(r=4, target_modules=["0"]))
    base, x = base_layer(case, dtype=torch.float32), inputs(case, 5, dtype=torch.float32)
    assert torch.equal(theirs.layer.get_base_layer().weight, base.weight)
    assert (theirs(x) - base(x)).abs().max() > 0.01


SIZES = ((12, 8), (9, 15), (8, 8))


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_hra(size: tuple[int, int]) -> None:
    """v = hra_uᵀ."""
    config = peft.HRAConfig(r=4, target_modules=["0"])
    equals_peft(Case("hra", None, *size, {"r": 4}), config, lambda t: {"v": t["hra_u"].T})


def test_hra_with_an_odd_number_of_reflections() -> None:
    """PEFT takes an odd r and is not the identity then; the program says r even."""
    with pytest.raises(padp.PadpError, match="E501"):
        fresh(Case("hra", hyper={"r": 3}))


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_randlora(size: tuple[int, int]) -> None:
    """A = randlora_A without its middle axis; B, Λ, Γ = randlora_B, _lambda, _gamma as they are."""
    config = peft.RandLoraConfig(r=3, randlora_alpha=6, target_modules=["0"], projection_prng_key=5)
    case = Case("randlora", "peft", *size, {"r": 3, "α": 6})
    theirs = peft_layer(case, config)
    A, B = (getattr(theirs.layer, f"randlora_{c}")["default"].float() for c in "AB")
    agrees(case, theirs, lambda t: {"A": A[:, 0], "B": B, "Λ": t["randlora_lambda"], "Γ": t["randlora_gamma"]})


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_randlora_with_the_columns_put_in_order(size: tuple[int, int]) -> None:
    """The paper's reading of PEFT's tensors: B_j = columns j, j + N, j + 2N … of the flat B."""
    config = peft.RandLoraConfig(r=3, randlora_alpha=6, target_modules=["0"], projection_prng_key=5)
    case = Case("randlora", "bases", *size, {"r": 3, "α": 6})
    theirs = peft_layer(case, config)
    A, B = (getattr(theirs.layer, f"randlora_{c}")["default"].float() for c in "AB")
    N = B.shape[1]
    bases = torch.stack([B.flatten(1)[:, j::N] for j in range(N)])
    agrees(case, theirs, lambda t: {"A": A[:, 0], "B": bases, "Λ": t["randlora_lambda"].T, "Γ": t["randlora_gamma"]})


@pytest.mark.parametrize("variant", ["bases", "peft"])
def test_randlora_of_the_paper_differs_from_pefts_for_the_same_tensors(variant: str) -> None:
    config = peft.RandLoraConfig(r=3, randlora_alpha=6, target_modules=["0"])
    case = Case("randlora", variant, 12, 8, {"r": 3, "α": 6})
    theirs = peft_layer(case, config)
    A, B = (getattr(theirs.layer, f"randlora_{c}")["default"].float() for c in "AB")
    t, ours = theirs.tensors, fresh(case, dtype=torch.float32)
    if variant == "peft":
        copy_into(ours, {"A": A[:, 0], "B": B, "Λ": t["randlora_lambda"], "Γ": t["randlora_gamma"]})
    else:
        copy_into(ours, {"A": A[:, 0], "B": B.transpose(0, 1), "Λ": t["randlora_lambda"].T, "Γ": t["randlora_gamma"]})
    x = inputs(case, 5, dtype=torch.float32)
    with torch.no_grad():
        difference = (ours(x) - theirs(x)).norm() / (theirs(x) - ours.base(x)).norm()
    assert difference < 1e-5 if variant == "peft" else difference > 0.5


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_fourierft(size: tuple[int, int]) -> None:
    """c = fourierft_spectrum; the places follow from the seed, for PEFT and for us the same."""
    config = peft.FourierFTConfig(n_frequency=10, scaling=20.0, random_loc_seed=4, target_modules=["0"])
    case = Case("fourierft", "paper", *size, {"k": 10, "α": 20, "seed": 4})
    equals_peft(case, config, lambda t: {"c": t["fourierft_spectrum"]})


def leading(case: Case) -> tuple[Tensor, Tensor, Tensor]:
    """U, Σ, Vᵀ of the r leading triples, in float64, the largest entry of each column of U positive."""
    r = case.hyper["r"]
    U, S, Vh = torch.linalg.svd(base_layer(case).weight.detach().float().double(), full_matrices=False)
    sign = torch.sign(U[U.abs().argmax(0), torch.arange(U.shape[1])])
    return (U * sign)[:, :r], S[:r], (Vh * sign[:, None])[:r]


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_psoft(size: tuple[int, int]) -> None:
    """K = psoft_R, β = vector_b, α = vector_a, with one decomposition for both: A is Vᵀ, B is U Σ r/psoft_alpha."""
    case = Case("psoft", "peft", *size, {"r": 4})
    theirs = peft_layer(case, peft.PsoftConfig(r=4, psoft_alpha=9, target_modules=["0"]))
    U, S, Vh = leading(case)
    theirs.layer._psoft_A_cache["default"].copy_(Vh)
    theirs.layer._psoft_B_cache["default"].copy_(U * S * 4 / 9)
    agrees(case, theirs, lambda t: {"K": t["psoft_R"], "β": t["vector_b"], "α": t["vector_a"]})


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_psoft_with_pefts_own_decomposition(size: tuple[int, int]) -> None:
    """No SVD fixes the signs for PEFT, and in float32 its vectors are a little off.

    With D = diag(±1), U D and D Vᵀ for U and Vᵀ: U D Σ R' D Vᵀ = U Σ R Vᵀ for R' = D R D, that is Q' = D Q D.
    """
    case = Case("psoft", "peft", *size, {"r": 4})
    theirs = peft_layer(case, peft.PsoftConfig(r=4, psoft_alpha=9, target_modules=["0"]))
    _, _, Vh = leading(case)
    rows = cast(Tensor, theirs.layer._psoft_A_cache["default"]).double()
    sign = torch.sign((rows * Vh).sum(1))
    close(sign[:, None] * rows, Vh, 1e-4)
    i, j = torch.triu_indices(4, 4, 1)
    turned = (sign[i] * sign[j]).float()
    agrees(case, theirs, lambda t: {"K": t["psoft_R"] * turned, "β": t["vector_b"], "α": t["vector_a"]}, tolerance=1e-4)
