"""One adapter module for each place: built anew, or made again from stored tensors."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from padp.compiler.shared import SharedStore
from padp.compiler.site import bias_of, weight_of
from padp.dsl.diagnostics import refuse
from padp.models.places import Place

if TYPE_CHECKING:
    from padp.compiler.adapter import Adapter, Settings
    from padp.compiler.module import AdapterModule

_ATTRIBUTE = "_padp_shared"


def built(place: Place, adapter: Adapter, settings: Settings, *, dtype: torch.dtype | None, dropout: float, seed: int,
          shared: SharedStore) -> AdapterModule:
    """The adapter's module for a place, with fresh parameters. Each site draws from a seed of its own."""
    like = place.like
    weight, bias = given(place)
    module = adapter.build(
        place.sizes, variant=settings.variant, hyper=settings.hyper, weight=weight, bias=bias,
        dtype=dtype or torch.promote_types(like.dtype, torch.float32), device=like.device, dropout=dropout,
        seed=site_seed(seed, place.path), shared=shared)
    return checked(place, module)


def remade(place: Place, adapter: Adapter, settings: Settings, tensors: Mapping[str, Tensor], *, dtype: torch.dtype,
           dropout: float, seed: int, shared: SharedStore) -> AdapterModule:
    """The adapter's module for a place with these tensors: built without values (on the meta device), so that nothing
    that depends on W is computed again. Shared tensors are taken from the store.

    Raises RuntimeError, from torch, for missing, unexpected or misshapen tensors.
    """
    weight, bias = given(place)
    meta = torch.device("meta")
    on_meta = _to(weight, meta), _to(bias, meta)
    module = adapter.build(place.sizes, variant=settings.variant, hyper=settings.hyper, weight=on_meta[0], bias=on_meta[1],
                           dtype=dtype, device=meta, dropout=dropout, seed=site_seed(seed, place.path), shared=shared)
    device = place.like.device
    state = {key: tensor.to(device) for key, tensor in tensors.items()}
    state.update({name: shared.tensors[key] for name, key in module.shared.items()})
    module.load_state_dict(state, strict=True, assign=True)
    return checked(place, module)


def checked(place: Place, module: AdapterModule) -> AdapterModule:
    """The module, if it is exact at its place: what acts on Q and K jointly is not, with a rotation between them."""
    attention = place.attention
    if attention is not None and module.joint and attention.between is not None:
        raise refuse("E502", f"{place.path}: {module.adapter.name} changes Q and K jointly, which is not exact here: "
                     f"{attention.between} stands between them",
                     suggestion=_per_head(module))
    return module


def _per_head(module: AdapterModule) -> str:
    others = [v for v in module.adapter.variants if v != module.variant]
    return f"choose a form for each head alone: variant={others[0]!r}" if others else "adapt Q, V or O alone"


def given(place: Place) -> tuple[Any, Tensor | None]:
    """What a place gives to the compiler as weight and bias: W and the bias of a linear layer, W_Q … b_O of an attention
    by name, nothing of a block."""
    match place.kind:
        case "linear":
            return weight_of(place.base), bias_of(place.base)
        case "hidden":
            return None, None
        case "attention":
            assert place.attention is not None
            return place.attention.tensors(), None


def _to(value: Any, device: torch.device) -> Any:
    if isinstance(value, Mapping):
        return {key: _to(each, device) for key, each in cast("Mapping[str, Tensor]", value).items()}
    return value.detach().to(device) if isinstance(value, Tensor) else value


def site_seed(seed: int, path: str) -> int:
    """A seed for a site: the same in every process, another one for another site."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{path}".encode()).digest()[:7], "big")


# ---------------------------------------------------------------- what sites share


def shared_of(model: nn.Module) -> SharedStore:
    """The shared tensors of a model."""
    return cast(SharedStore, model.__dict__.get(_ATTRIBUTE)) or SharedStore()


def keep_shared(model: nn.Module, shared: SharedStore) -> None:
    """Let the model know its shared tensors; nothing is left when there are none."""
    if shared.tensors:
        model.__dict__[_ATTRIBUTE] = shared
    else:
        model.__dict__.pop(_ATTRIBUTE, None)


def shared_for(model: nn.Module, adapter: Adapter, wanted: Sequence[tuple[Place, Settings]]) -> SharedStore:
    """A store with room for all these sites, the model's own tensors in it; E506 when one of these is too small."""
    store = shared_of(model).fork()
    for place, settings in wanted:
        for key, shape in adapter.shared_shapes(place.sizes, settings.variant, settings.hyper).items():
            store.reserve(key, shape, place.path)
    return store
