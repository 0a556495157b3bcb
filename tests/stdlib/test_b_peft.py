"""HRA, RandLoRA, FourierFT and PSOFT against PEFT's own layers, with PEFT's numbers copied over.

PEFT's tensors and ours: where a shape or a sign differs, the mapping is in the test.
"""

from __future__ import annotations

from typing import cast

import peft
import pytest
import torch
from torch import Tensor

import padp
from tests.stdlib.common import Case, agrees, base_layer, close, copy_into, equals_peft, fresh, inputs, peft_layer

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
