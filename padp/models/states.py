"""State dicts of a whole model: a tensor that several sites hold is in them once.

    model.state_dict()            the first key of each tensor of ours that has several
    model.load_state_dict(state)  all its keys, from the one that is there

A frozen tensor that is shared by the sites of a model, and the adapters of a layer that stands under several names,
would be there once a site: files of safetensors hold no tensor twice and refuse such a state dict.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any

from torch import Tensor, nn

from padp.compiler.module.keys import refuse_half_merged, refuse_under_merged
from padp.compiler.module.module import AdapterModule
from padp.compiler.module.reloading import refuse_ahead
from padp.compiler.module.site import LinearSite, Site, StandIn
from padp.models.attention import ROLES, AttentionSite, HeadProjection
from padp.models.building import shared_of
from padp.models.walk import everywhere

_WRAPPERS = ("_checkpoint_wrapped_module.", "_fsdp_wrapped_module.")  # torch leaves these out of state dicts itself


def watch_states(model: nn.Module) -> None:
    """Let the model's state dicts hold each tensor once."""
    forget_states(model)
    model.register_state_dict_post_hook(_keep_first)
    model.register_load_state_dict_pre_hook(_spread)
    model.register_load_state_dict_post_hook(_share_again)


def forget_states(model: nn.Module) -> None:
    """Take the hooks off again."""
    for table in ("_state_dict_hooks", "_load_state_dict_pre_hooks", "_load_state_dict_post_hooks"):
        hooks: dict[int, Any] = vars(model)[table]
        for key, entry in list(hooks.items()):
            if getattr(entry, "hook", entry) in (_keep_first, _spread, _share_again):
                del hooks[key]


def _several(ours: Sequence[tuple[str, nn.Module]]) -> list[list[str]]:
    """The keys of every tensor of ours that has several, in the model's order."""
    found_at = [(path, module) for path, module in ours if isinstance(module, AdapterModule)]
    often = Counter(id(module) for _, module in found_at)
    names: dict[int, list[str]] = {}
    for path, module in found_at:
        for wrapper in _WRAPPERS:
            path = path.replace(wrapper, "")
        mine = _stored(module) if often[id(module)] > 1 else {n: module.get_parameter(n) for n in module.shared}
        for name, tensor in mine.items():
            names.setdefault(id(tensor), []).append(f"{path}.{name}")
    return [found for found in names.values() if len(found) > 1]


def _stored(module: nn.Module) -> Mapping[str, Tensor]:
    """What a state dict holds of a module: the very tensors."""
    return module.state_dict(keep_vars=True)


def _keep_first(model: nn.Module, state: MutableMapping[str, Any], prefix: str, _: object) -> None:
    ours = [(path, module) for path, module in everywhere(model) if isinstance(module, (AdapterModule, StandIn))]
    for _first, *others in _several(ours):
        for name in others:
            state.pop(prefix + name, None)
    stands = {id(stand): stand for _, stand in ours if isinstance(stand, StandIn)}.values()
    made = [stand.path for stand in stands if makes_bias(stand)]
    if made:
        warnings.warn(f"{made[0]}.bias came with merging ({len(made)} such layers): a plain model has none there, and "
                      "leaves it out when it loads this state dict", stacklevel=3)


def makes_bias(stand: StandIn) -> bool:
    """Whether merging gave the base a bias that it had not."""
    kept = getattr(stand, "_kept", None)
    return kept is not None and kept.bias is None and stand.bias is not None


def _spread(model: nn.Module, state: MutableMapping[str, Any], prefix: str, *_: object) -> None:
    """Before anything is loaded: refuse what sites will refuse, then put each tensor under all its keys."""
    marked = {key: value for key, value in state.items() if "merged." in key}
    for path, module in model.named_modules():
        here = f"{prefix}{path}." if path else prefix
        if isinstance(module, StandIn):
            refuse_half_merged(module, marked, here)
        if isinstance(module, Site):
            refuse_under_merged(module, state, here)
            refuse_ahead(module, state, here, _bases(module, here, prefix))
    for names in _several(list(everywhere(model))):
        keys = [prefix + name for name in names]
        found = [state[key] for key in keys if key in state]
        first = found[0] if found else None
        if isinstance(first, Tensor) and all(isinstance(one, Tensor) and _alias(one, first) for one in found):
            if not isinstance(first, nn.Parameter) and first.is_floating_point():
                first = nn.Parameter(first, requires_grad=False)  # one object also for ``assign=True``
            state.update(dict.fromkeys(keys, first))


def _bases(site: Site, here: str, prefix: str) -> list[tuple[Any, nn.Module, str]]:
    """The stand-ins of a site with the layers that they stand in for, and where each is in a state dict."""
    match site:
        case LinearSite():
            return [(site, site.base, here)]
        case AttentionSite():
            stands = [getattr(*site.attention.owners[role]) for role in ROLES]
            return [(s, s.base, f"{prefix}{s.path}.") for s in stands if isinstance(s, HeadProjection)]
        case _:
            return []


def _alias(one: Tensor, other: Tensor) -> bool:
    return one is other or (one.shape == other.shape and one.dtype == other.dtype and not one.is_meta
                            and not other.is_meta and one.data_ptr() == other.data_ptr())


def _share_again(model: nn.Module, _: object) -> None:
    """After a load with ``assign=True``: what sites share is what they hold now."""
    shared = shared_of(model)
    for module in model.modules():
        if isinstance(module, AdapterModule):
            for name, key in module.shared.items():
                if key in shared.tensors:
                    shared.tensors[key] = module.get_parameter(name)
