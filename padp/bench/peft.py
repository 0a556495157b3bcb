"""The methods that PEFT has too, as PEFT builds them (0.21.2), and the same settings for ours."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

from torch import nn

import padp
from padp.bench.measure import Built, Contest
from padp.compiler.adapter import Adapter
from padp.compiler.site import LinearSite


@dataclass(frozen=True)
class Pair:
    """One method: our adapter with its settings, PEFT's configuration class with its settings."""

    method: str
    adapter: str
    variant: str | None
    hyper: Mapping[str, Any]
    config: str
    settings: Mapping[str, Any]


PAIRS: tuple[Pair, ...] = (
    Pair("LoRA", "lora", None, {"r": 16, "α": 16}, "LoraConfig", {"r": 16, "lora_alpha": 16}),
    Pair("PiSSA", "pissa", "peft", {"r": 16, "α": 16}, "LoraConfig",
         {"r": 16, "lora_alpha": 16, "init_lora_weights": "pissa_niter_4"}),
    Pair("AdaLoRA", "adalora", "peft", {"r": 16, "steps": 1000}, "AdaLoraConfig",
         {"init_r": 16, "target_r": 8, "total_step": 1000}),
    Pair("DoRA", "dora", None, {"r": 16, "α": 16}, "LoraConfig", {"r": 16, "lora_alpha": 16, "use_dora": True}),
    Pair("DeLoRA", "delora", "peft", {"r": 16}, "DeloraConfig", {"r": 16}),
    Pair("VeRA", "vera", None, {"r": 256}, "VeraConfig", {"r": 256}),
    Pair("OFT", "oft", "peft_exact", {"k": 32}, "OFTConfig", {"oft_block_size": 32, "use_cayley_neumann": False}),
    Pair("BOFT", "boft", "peft", {"k": 4, "F": 1}, "BOFTConfig", {"boft_block_size": 4}),
    Pair("HRA", "hra", None, {"r": 8}, "HRAConfig", {"r": 8}),
    Pair("RoAd", "road", "peft", {"g": 64}, "RoadConfig", {"group_size": 64}),
    Pair("IA3", "ia3", "feedforward", {}, "IA3Config", {"feedforward_modules": ["layer"]}),
    Pair("RandLoRA", "randlora", "bases", {"r": 32}, "RandLoraConfig", {"r": 32}),
    Pair("FourierFT", "fourierft", None, {}, "FourierFTConfig", {"n_frequency": 1000}),
    Pair("PSOFT", "psoft", "peft", {"r": 32}, "PsoftConfig", {"r": 32}),
)
OURS, PEFT = "padp", "peft"


def shared_methods(names: list[str]) -> list[Contest]:
    """The contests of these adapters of the library; of all that PEFT has when none is named."""
    return [Contest(pair.method, {OURS: partial(ours, padp.compile(pair.adapter), pair.variant, pair.hyper),
                                  PEFT: partial(theirs, pair)})
            for pair in PAIRS if not names or pair.adapter in names]


def ours(adapter: Adapter, variant: str | None, hyper: Mapping[str, Any], base: nn.Module) -> Built:
    """Our adapter around one linear layer."""
    site = cast(LinearSite, adapter(base, variant=variant, **hyper))
    return Built(site, site.merge, site.unmerge)


class _Holder(nn.Module):
    """A model of one layer, for PEFT to find."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Any) -> Any:
        return self.layer(x)


def theirs(pair: Pair, base: nn.Module) -> Built:
    """The layer that PEFT puts in the place of ``base``."""
    import peft

    make = cast("Callable[..., Any]", getattr(peft, pair.config))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = peft.get_peft_model(cast(Any, _Holder(base)), make(target_modules=["layer"], **pair.settings))
    layer: Any = model.base_model.model.layer
    return Built(cast(nn.Module, layer), layer.merge, layer.unmerge)
