"""One adapter module for each place: built anew, or made again from stored tensors."""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, TypeAlias, cast

import torch
from torch import Tensor, nn

from padp.compiler.module.linear_layer import bias_of, weight_of
from padp.compiler.module.shared import SharedStore
from padp.compiler.module.weights import is_offloaded, why_unreadable
from padp.dsl.diagnostics import PadpError, refuse
from padp.models.places import Place
from padp.models.sizing import sizes_at

if TYPE_CHECKING:
    from padp.compiler.adapter import Adapter, Settings
    from padp.compiler.module.module import AdapterModule

Given: TypeAlias = "Tensor | dict[str, Tensor] | None"
_ATTRIBUTE = "_padp_shared"


def built(place: Place, adapter: Adapter, settings: Settings, *, dtype: torch.dtype | None, dropout: float, seed: int,
          shared: SharedStore) -> AdapterModule:
    """The adapter's module for a place, with fresh parameters. Each site draws from a seed of its own."""
    like = place.like
    weight, bias = given(place)
    with at(place):
        if refuse_unreadable(place, adapter, settings):
            weight, bias = None, None if bias is None else torch.zeros_like(bias, device=place.device)
        module = adapter.build(
            sizes_at(adapter.method(settings.variant), place), variant=settings.variant, hyper=settings.hyper,
            weight=weight, bias=bias, dtype=dtype or torch.promote_types(like.dtype, torch.float32),
            device=place.device, dropout=dropout, seed=site_seed(seed, place.path), shared=shared)
    return checked(place, module)


def remade(place: Place, adapter: Adapter, settings: Settings, tensors: Mapping[str, Tensor], *, dtype: torch.dtype,
           dropout: float, seed: int, shared: SharedStore) -> AdapterModule:
    """The adapter's module for a place with these tensors: built without values (on the meta device), so that nothing
    that depends on W is computed again. Shared tensors are taken from the store.

    Raises RuntimeError, from torch, for missing, unexpected or misshapen tensors.
    """
    meta = torch.device("meta")
    weight, bias = (_to(value, meta) for value in given(place))
    assert not isinstance(bias, dict)
    shapes = SharedStore({key: nn.Parameter(p.to(meta), requires_grad=False) for key, p in shared.tensors.items()})
    with at(place):
        refuse_unreadable(place, adapter, settings)
        module = adapter.build(
            sizes_at(adapter.method(settings.variant), place), variant=settings.variant, hyper=settings.hyper,
            weight=weight, bias=bias, dtype=dtype, device=meta, dropout=dropout, seed=site_seed(seed, place.path),
            shared=shapes)
    lacking = [key for key in module.shared.values() if key not in shared.tensors]
    if lacking:
        raise ValueError(f"there is no shared tensor {lacking[0]}")
    device = place.device
    state = {key: tensor.to(device) for key, tensor in tensors.items()}
    state.update({name: shared.tensors[key] for name, key in module.shared.items()})
    for key, own in module.state_dict().items():
        new = state.get(key, own).dtype  # pyright: ignore[reportOptionalMemberAccess]
        precision = new.is_floating_point == own.dtype.is_floating_point and new.is_complex == own.dtype.is_complex
        if new != own.dtype and not (precision and (new.is_floating_point or new.is_complex)):
            raise ValueError(f"{key} is {new}, and {own.dtype} in the program")
    module.load_state_dict(state, strict=True, assign=True)
    module.arrive(device)
    module.belongs_to(*given(place))
    return checked(place, module)


def refuse_unreadable(place: Place, adapter: Adapter, settings: Settings) -> bool:
    """Whether the weight of a linear layer cannot be read beside its own call; E502 when the program reads it."""
    reason = why_unreadable(place.base) if place.kind == "linear" else None
    if reason is None:
        return False
    compiled, _ = adapter.compiled(sizes_at(adapter.method(settings.variant), place), settings.variant, settings.hyper,
                                   bias_of(place.base) is not None)
    read = compiled.reads
    if "weight" in read or ("bias" in read and is_offloaded(place.base)):
        raise refuse("E502", f"{place.path}: {reason}, and {adapter.name} reads "
                     f"{'W' if 'weight' in read else 'the bias'}",
                     suggestion=f'leave it out: exclude=[r"{place.path}"]')
    return True


@contextmanager
def at(place: Place) -> Generator[None, None, None]:
    """Findings about a program's sizes say at which site they were made."""
    try:
        yield
    except PadpError as error:
        raise PadpError([replace(d, notes=(*d.notes, f"at {place.path}")) for d in error.diagnostics]) from None


def checked(place: Place, module: AdapterModule) -> AdapterModule:
    """The module, if it is exact at its place: what acts on Q and K jointly is not, with a rotation between them."""
    attention = place.attention
    if attention is not None and module.joint and attention.between is not None:
        others = [v for v in module.adapter.variants
                  if not module.adapter.compiled(module.sizes, v, module.hyper, True)[0].joint]
        remedy = f"a form for each head alone: variant={others[0]!r}" if others else "adapt Q, V or O alone"
        raise refuse("E502", f"{place.path}: {module.adapter.name} changes Q and K jointly, which is not exact here: "
                     f"{attention.between} stands between them", suggestion=remedy)
    return module


def given(place: Place) -> tuple[Given, Tensor | None]:
    """What a place gives to the compiler as weight and bias: W and the bias of a linear layer, W_Q … b_O of an
    attention by name, nothing of a block."""
    match place.kind:
        case "linear":
            return weight_of(place.base), bias_of(place.base)
        case "hidden":
            return None, None
        case "attention":
            assert place.attention is not None
            return place.attention.tensors(), None


def _to(value: Given, device: torch.device) -> Given:
    if isinstance(value, dict):
        return {key: each.detach().to(device) for key, each in value.items()}
    return None if value is None else value.detach().to(device)


def site_seed(seed: int, path: str) -> int:
    """A seed for a site: the same in every process, another one for another site."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{path}".encode()).digest()[:7], "big")


# ---------------------------------------------------------------- what sites share


def shared_of(model: nn.Module) -> SharedStore:
    """The shared tensors of a model."""
    return cast("SharedStore | None", model.__dict__.get(_ATTRIBUTE)) or SharedStore()


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
        with at(place):
            sizes = sizes_at(adapter.method(settings.variant), place)
            shapes = adapter.shared_shapes(sizes, settings.variant, settings.hyper)
        for key, shape in shapes.items():
            store.reserve(key, shape, place.path)
    return store
