"""The best hand-written PyTorch form of each method of the library: the yardstick of ``padp bench --against hand``.

    form.py       what a form is: values of a step, work on tokens
    low_rank.py   LoRA, PiSSA, AdaLoRA, DoRA, DeLoRA, VeRA, and inside a subspace SSVD, AntiPaSTO, PSOFT
    rotations.py  OFT, BOFT, GOFT, HRA
    scaled.py     IA3, RoAd
    spectral.py   SVFT, FourierFT, RandLoRA

Each has autograd functions of its own where they win in time or in what is kept for backward, and is compared with the
program's literal reading in float64 by the tests.
"""

from __future__ import annotations

from padp.bench.hand.form import Form, Hand
from padp.bench.hand.low_rank import PSOFT, SSVD, AdaLoRA, AntiPaSTO, DeLoRA, DoRA, LoRA, PiSSA, VeRA
from padp.bench.hand.rotations import BOFT, GOFT, HRA, OFT
from padp.bench.hand.scaled import IA3, RoAd
from padp.bench.hand.spectral import SVFT, FourierFT, RandLoRA

FORMS: tuple[Form, ...] = (
    Form("LoRA", "lora", None, {"r": 16, "α": 16}, LoRA),
    Form("PiSSA", "pissa", "peft", {"r": 16, "α": 16}, PiSSA),
    Form("AdaLoRA", "adalora", "peft", {"r": 16, "steps": 1000}, AdaLoRA),
    Form("DoRA", "dora", None, {"r": 16, "α": 16}, DoRA),
    Form("DeLoRA", "delora", "peft", {"r": 16}, DeLoRA),
    Form("VeRA", "vera", None, {"r": 256}, VeRA),
    Form("OFT", "oft", "peft_exact", {"k": 32}, OFT),
    Form("BOFT", "boft", "peft", {"k": 4, "F": 1}, BOFT),
    Form("GOFT", "goft", None, {}, GOFT),
    Form("HRA", "hra", None, {"r": 8}, HRA),
    Form("RoAd", "road", "peft", {"g": 64}, RoAd),
    Form("IA3", "ia3", "feedforward", {}, IA3),
    Form("SVFT", "svft", "plain", {}, SVFT),
    Form("SSVD", "ssvd", None, {"k": 32}, SSVD),
    Form("AntiPaSTO", "antipasto", None, {"k": 32}, AntiPaSTO),
    Form("RandLoRA", "randlora", "bases", {"r": 32}, RandLoRA),
    Form("FourierFT", "fourierft", None, {}, FourierFT),
    Form("PSOFT", "psoft", "peft", {"r": 32}, PSOFT),
)

__all__ = ["FORMS", "Form", "Hand"]
