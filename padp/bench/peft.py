"""The methods that PEFT has too, as PEFT builds them (0.21.2), with the settings of ours."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from torch import nn

from padp.bench.measure import Built


@dataclass(frozen=True)
class Config:
    """PEFT's configuration class of a method, and its settings."""

    name: str
    settings: Mapping[str, Any]


CONFIGS: Mapping[str, Config] = {
    "LoRA": Config("LoraConfig", {"r": 16, "lora_alpha": 16}),
    "PiSSA": Config("LoraConfig", {"r": 16, "lora_alpha": 16, "init_lora_weights": "pissa_niter_4"}),
    "AdaLoRA": Config("AdaLoraConfig", {"init_r": 16, "target_r": 8, "total_step": 1000}),
    "DoRA": Config("LoraConfig", {"r": 16, "lora_alpha": 16, "use_dora": True}),
    "DeLoRA": Config("DeloraConfig", {"r": 16}),
    "VeRA": Config("VeraConfig", {"r": 256}),
    "OFT": Config("OFTConfig", {"oft_block_size": 32, "use_cayley_neumann": False}),
    "BOFT": Config("BOFTConfig", {"boft_block_size": 4}),
    "HRA": Config("HRAConfig", {"r": 8}),
    "RoAd": Config("RoadConfig", {"group_size": 64}),
    "IA3": Config("IA3Config", {}),
    "RandLoRA": Config("RandLoraConfig", {"r": 32}),
    "FourierFT": Config("FourierFTConfig", {"n_frequency": 1000}),
    "PSOFT": Config("PsoftConfig", {"r": 32}),
}
"""By the method's name in ``padp.bench.methods``."""


class _Holder(nn.Module):
    """A model of one layer, for PEFT to find."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Any) -> Any:
        return self.layer(x)


def theirs(config: Config, base: nn.Module) -> Built:
    """The layer that PEFT puts in the place of ``base``."""
    model = _adapted(config, _Holder(base), ["layer"])
    layer: Any = model.base_model.model.layer
    return Built(cast(nn.Module, layer), layer.merge, layer.unmerge)


def model_of_theirs(config: Config, model: nn.Module, paths: Sequence[str]) -> Built:
    """A model with PEFT's layers at these paths."""
    adapted = _adapted(config, model, list(paths))
    return Built(cast(nn.Module, adapted), adapted.merge_adapter, adapted.unmerge_adapter)


def _adapted(config: Config, model: nn.Module, paths: list[str]) -> Any:
    import peft

    make = cast("Callable[..., Any]", getattr(peft, config.name))
    more = {"feedforward_modules": paths} if config.name == "IA3Config" else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return peft.get_peft_model(cast(Any, model), make(target_modules=paths, **more, **config.settings))
