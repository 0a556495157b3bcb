"""Attention as padp sees it: four projections, H query heads in G groups of key-value heads, each of size e.

    q_h = W_Q,h x + b_Q,h ∈ ℝ^e (h < H)      k_g, v_g likewise (g < G)      y = Σ_h W_O,h z_h + b_O,  W_O,h ∈ ℝ^{d×e}

Read from the names that transformers' models use. What stands between the projections and the product qᵀk is looked
for too: a rotation by position or a norm there makes maps on Q and K jointly inexact.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

from torch import Tensor, nn

from padp.compiler.module.linear_layer import bias_of, stored_transposed, weight_of, why_not_linear
from padp.compiler.module.site import Kept, StandIn
from padp.compiler.module.weights import why_no_product, why_unreadable
from padp.dsl.diagnostics import refuse

# Where the projections are, from the attention module; "^" is its parent. LLaMA and most decoders; OPT, BART, CLIP,
# Whisper; Phi; BERT, RoBERTa, ViT (the output sits beside); DistilBERT; T5.
LAYOUTS = (
    ("q_proj", "k_proj", "v_proj", "o_proj"),
    ("q_proj", "k_proj", "v_proj", "out_proj"),
    ("q_proj", "k_proj", "v_proj", "dense"),
    ("query", "key", "value", "^.output.dense"),
    ("q_lin", "k_lin", "v_lin", "out_lin"),
    ("q", "k", "v", "o"),
)
FUSED = ("c_attn", "qkv_proj", "query_key_value", "qkv", "Wqkv", "in_proj", "attn_qkv")
_HEADS = ("num_attention_heads", "num_heads", "n_heads", "n_head")
_HEAD_SIZE = ("head_dim", "attention_head_size", "key_value_proj_dim", "head_size", "dim_per_head")
_NORMS = ("q_norm", "k_norm", "q_layernorm", "k_layernorm", "query_layernorm", "key_layernorm", "qk_norm",
          "query_norm", "key_norm")
_RELATIVE = ("distance_embedding", "pos_proj", "pos_key_proj", "pos_query_proj", "linear_pos", "relative_key")


@dataclass(frozen=True)
class Attention:
    """One attention: its projections by role with the place of each, its heads, and what stands between Q and K."""

    path: str
    module: nn.Module
    owners: dict[str, tuple[nn.Module, str]]  # role → (parent, attribute)
    heads: int
    groups: int
    size: int
    width: int
    between: str | None
    around: nn.Module  # the module that all projections are in: the attention, or its parent

    def projection(self, role: str) -> nn.Module:
        """The linear layer of a role: q, k, v or o."""
        parent, name = self.owners[role]
        return own(cast(nn.Module, getattr(parent, name)))

    def _own(self, role: str) -> tuple[Tensor, Tensor | None]:
        """The weight and bias of a role's linear layer, without what is merged into it."""
        parent, name = self.owners[role]
        stand, base = getattr(parent, name), self.projection(role)
        kept = cast("Kept | None", getattr(stand, "_kept", None))
        if kept is None:
            return weight_of(base), bias_of(base)
        here = weight_of(base).device
        weight = (kept.weight.T if stored_transposed(base) else kept.weight).to(here)
        return weight, None if kept.bias is None else kept.bias.to(here)

    @property
    def sizes(self) -> dict[str, int]:
        """The dimensions that an attention site binds."""
        return {"H": self.heads, "G": self.groups, "e": self.size, "d": self.width}

    def tensors(self) -> dict[str, Tensor]:
        """W_Q (H,e,d), W_K and W_V (G,e,d), W_O (H,d,e), and b_Q … b_O where there are biases, by head.

        The model's own, also while something is merged into them.
        """
        e, given = self.size, cast("dict[str, Tensor]", {})
        for role in "qkv":
            W, bias = self._own(role)
            given[f"W_{role.upper()}"] = W.reshape(-1, e, W.shape[1])
            if bias is not None:
                given[f"b_{role.upper()}"] = bias.reshape(-1, e)
        W, bias = self._own("o")
        given["W_O"] = W.reshape(W.shape[0], -1, e).movedim(1, 0)
        if bias is not None:
            given["b_O"] = bias
        return given


def own(projection: nn.Module) -> nn.Module:
    """The model's own projection, also where one of an attention site stands in for it."""
    return projection.base if isinstance(projection, StandIn) and "role" in projection.__dict__ else projection


def _follow(module: nn.Module, parent: nn.Module | None, place: str) -> tuple[nn.Module, str] | None:
    """The parent and attribute of a projection, None when there is no module."""
    *steps, name = place.split(".")
    at: object = module
    for step in steps:
        at = parent if step == "^" else getattr(at, step, None)
    if isinstance(at, nn.Module) and isinstance(getattr(at, name, None), nn.Module):
        return at, name
    return None


def projections(module: nn.Module, parent: nn.Module | None) -> dict[str, tuple[nn.Module, str]] | None:
    """Where the projections of an attention are, by role; None when this module is no attention of a known layout."""
    for layout in LAYOUTS:
        found = [_follow(module, parent, place) for place in layout]
        owners = {role: owner for role, owner in zip("qkvo", found, strict=True) if owner is not None}
        if len(owners) == 4:
            return owners
    return None


def fused(module: nn.Module) -> str | None:
    """The name of a projection that makes Q, K and V in one, which an attention site cannot take."""
    return next((name for name in FUSED if isinstance(getattr(module, name, None), nn.Module)), None)


def _configs(module: nn.Module, ancestors: tuple[nn.Module, ...]) -> Iterator[Any]:
    """What may know the sizes: the attention itself, then its configuration, then those of its ancestors."""
    yield module
    for owner in (module, *reversed(ancestors)):
        config = getattr(owner, "config", None)
        if config is not None:
            yield config.get_text_config() if hasattr(config, "get_text_config") else config


def _number(names: tuple[str, ...], module: nn.Module, ancestors: tuple[nn.Module, ...]) -> int | None:
    for owner in _configs(module, ancestors):
        for name in names:
            value = getattr(owner, name, None)
            if isinstance(value, int) and not isinstance(value, bool) and value > 0:
                return value
    return None


def read_attention(path: str, module: nn.Module, ancestors: tuple[nn.Module, ...]) -> Attention:
    """The attention at a path; E502 when its projections are not plain linear layers or its heads cannot be told."""
    parent = ancestors[-1] if ancestors else None
    owners = projections(module, parent)
    if owners is None:
        name = fused(module)
        known = "; ".join(", ".join(names) for names in LAYOUTS)
        reason = f"Q, K and V come from one layer ({name})" if name else f"it has none by the known names ({known})"
        raise refuse("E502", f"{path}: an attention site needs separate projections, and {reason}")
    bases = {role: own(cast(nn.Module, getattr(*owner))) for role, owner in owners.items()}
    for role, base in bases.items():
        if isinstance(base, StandIn):
            raise refuse("E508", f"{path}: its {role.upper()} projection has an adapter of its own already",
                         suggestion="detach that adapter first, or leave this attention out")
        why_not = why_not_linear(base) or why_unreadable(base) or why_no_product(base)
        if why_not is not None:
            raise refuse("E502", f"{path}: its {role.upper()} projection cannot be taken: {why_not}")
    (q, width), (k, in_k), (v, in_v), (out, o) = (tuple(weight_of(bases[role]).shape) for role in "qkvo")
    if {width, in_k, in_v, out} != {width}:
        raise refuse("E502", f"{path}: an attention site needs one width, and Q reads {width}, K {in_k}, V {in_v}, "
                     f"O puts out {out}")
    heads, size = _number(_HEADS, module, ancestors), _number(_HEAD_SIZE, module, ancestors)
    if size is None and heads is not None and q % heads == 0:
        size = q // heads
    if size is None:
        raise refuse("E502", f"{path}: neither it nor the model's configuration says how many heads there are",
                     suggestion="give the module an attribute num_heads")
    if q % size or k % size or o != q or k != v or (q // size) % (k // size) or (heads or q // size) != q // size:
        raise refuse("E502", f"{path}: its projections ({q}, {k}, {v} outputs, {o} into O) are not whole heads of size "
                     f"{size}" + (f", {heads} of them" if heads is not None else ""))
    beside = parent is not None and any(owner not in set(module.modules()) for owner, _ in owners.values())
    around = parent if beside and parent is not None else module
    return Attention(path, module, owners, q // size, k // size, size, width, between(module, ancestors), around)


def between(module: nn.Module, ancestors: tuple[nn.Module, ...]) -> str | None:
    """What stands between the projections and qᵀk, by name: a rotary embedding, a norm, a relative position term."""
    for name in _NORMS:
        if isinstance(getattr(module, name, None), nn.Module):
            return f"a norm ({name})"
    for name in _RELATIVE:
        if isinstance(getattr(module, name, None), nn.Module):
            return f"a relative position term ({name})"
    for owner in (module, *ancestors):
        for name, child in owner.named_children():
            if "rotary" in name.lower() or "rope" in name.lower() or "rotary" in type(child).__name__.lower():
                return f"a rotary embedding ({name})"
    own = list(_configs(module, ancestors))[:2]  # the attention and the nearest configuration
    for config in own:
        for name in ("rope_parameters", "rope_scaling", "rope_theta", "rotary_dim", "rotary_emb_base"):
            if getattr(config, name, None):
                return f"a rotary embedding ({name} in the configuration)"
        if str(getattr(config, "position_embedding_type", "")).startswith(("relative", "rotary")):
            return f"a position term ({config.position_embedding_type})"
    return None
