"""Sites of whole attentions: maps for every head on what Q, K and V put out and on what goes into O.

    q_h ← A_h (W_Q,h x + b_h) + c_h         k, v likewise, by key-value head
    y   = Σ_h W_O,h (M_h z_h) + b_O         z_h: what head h hands to O

The attention's own code, its cache and its kernels stay as they are: each projection is stood in for by one that
applies the map after (Q, K, V) or before (O) the base's own forward.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast

import torch
from torch import Tensor, nn

from padp.compiler.kernels.torch_state import compiling
from padp.compiler.module.acting import acting
from padp.compiler.module.attention_maps import HeadMap
from padp.compiler.module.moments import in_one_state
from padp.compiler.module.reloading import follow, replace_on, unfollow
from padp.compiler.module.site import Kept, Site, StandIn, leave_in, merge_into, put_in, take_out
from padp.compiler.module.weights import find_offloaded
from padp.dsl.diagnostics import refuse
from padp.models.heads import Attention
from padp.models.walk import inside

if TYPE_CHECKING:
    from padp.compiler.module.module import AdapterModule

CHILD = "padp_attention"  # the attention's child that holds the adapters
Role: TypeAlias = Literal["q", "k", "v", "o"]
ROLES: tuple[Role, ...] = ("q", "k", "v", "o")


class AttentionSite(Site):
    """The adapters of one attention, a child of it; its four projections ask it for the maps."""

    kind = "attention"

    attention: Attention

    def __init__(self, attention: Attention, path: str = "") -> None:
        super().__init__(path)
        self.__dict__["attention"] = attention

    def refuse_together(self, modules: Mapping[str, AdapterModule]) -> None:
        if len(modules) > 1:
            raise refuse("E508", f"{self.label}: {' and '.join(modules)} cannot both map the heads of one attention",
                         suggestion=f'padp.activate(model, "{next(iter(modules))}")')

    def given(self) -> tuple[Tensor | dict[str, Tensor] | None, Tensor | None]:
        return self.attention.tensors(), None

    @property
    def merged(self) -> tuple[str, ...]:
        """The adapters that one of the projections holds now."""
        stands = (getattr(*self.attention.owners[role]) for role in ROLES)
        return tuple(dict.fromkeys(name for stand in stands if isinstance(stand, HeadProjection)
                                   for name in stand.merged))

    def maps(self, names: Sequence[str] | None = None) -> Mapping[str, HeadMap]:
        """The maps of the adapter that acts (or of the one that is named) by role; none for a role that it leaves to
        the base."""
        names = self.acting if names is None else names
        return self.module(names[0]).head_maps(self.attention.tensors()) if names else {}

    def hang_on(self) -> None:
        """Become a child of the attention and stand in for its projections."""
        attention = self.attention
        attention.module.add_module(CHILD, self)
        bases: dict[nn.Module, HeadProjection] = {}
        for role in ROLES:
            parent, name = attention.owners[role]
            path, base = f"{self.path}, {role.upper()}", attention.projection(role)
            bases[base] = HeadProjection(base, role, self, path)
            setattr(parent, name, bases[base])
        inner = next(name for name, module in attention.around.named_modules() if module is self)
        follow(attention.around, self, f"{inner}.", bases)

    def take_off(self, model: nn.Module) -> None:
        """Put the projections back and leave the attention as it was."""
        unfollow(self.attention.around, self)
        for parent in model.modules():
            children = inside(parent, "_modules")
            for name, child in list(children.items()):
                if isinstance(child, HeadProjection) and child.site is self:
                    children[name] = child.base
                    find_offloaded(child.base, child.path, child.inside)
                    unfollow(child.base, child)
                elif child is self:
                    del children[name]


class HeadProjection(StandIn):
    """A projection with a map for every head, in the projection's place. The map is its site's."""

    def __init__(self, base: nn.Module, role: Role, site: AttentionSite, path: str) -> None:
        super().__init__()
        self.base = base
        self.role: Role = role
        self.path = path
        self.__dict__["site"] = site  # not a child: the site is the attention's
        self.training = base.training
        self._kept: Kept | None = None

    site: AttentionSite

    @property
    def followers(self) -> Site:
        """Whose adapters follow the base's weights."""
        return self.site

    def put_on_base(self, name: str, value: Any) -> None:
        replace_on(self, self.base, name, value)

    @property
    def acting(self) -> tuple[str, ...]:
        """The adapter that acts now."""
        return self.site.acting

    @property
    def switched(self) -> bool:
        """Whether adapters were ever switched at the attention."""
        return self.site.switched

    def has(self, name: str) -> bool:
        """Whether an adapter of that name is at the attention."""
        return self.site.has(name)

    def draws(self, name: str) -> bool:
        """Whether an adapter draws numbers in training."""
        return self.site.draws(name)

    def knobbed(self, name: str) -> AdapterModule | None:
        """The adapter of that name, where it has knobs."""
        return self.site.knobbed(name)

    def forward(self, x: Tensor) -> Tensor:
        if compiling():
            return self._now(x)
        return in_one_state(self.site.moments, self._now, x)

    def _now(self, x: Tensor) -> Tensor:
        """The output in the state of now."""
        names = acting(self)
        if "_hf_hook" in self.base.__dict__:
            find_offloaded(self.base, self.path, "base")
        if self._kept is not None:
            if self.training and torch.is_grad_enabled():
                raise refuse("E511", f"{self.path} is merged, so a training step would not reach its adapter",
                             suggestion="padp.unmerge(model), or model.eval() or torch.no_grad() for inference")
            return cast(Tensor, self.base(x))
        found = self.site.maps(names).get(self.role)
        if found is None:
            return cast(Tensor, self.base(x))
        if self.role == "o":
            return cast(Tensor, self.base(by_head(found, x)))
        return by_head(found, cast(Tensor, self.base(x)))

    @property
    def merged(self) -> tuple[str, ...]:
        """The adapter whose map the base's weight holds now; () when not merged."""
        return () if self._kept is None else self._kept.names

    def keep_merged(self) -> None:
        """Make the merged weight the base's own: there is no way back."""
        if self._kept is not None:
            with self.site.moments.changing():
                leave_in(self.base, self._kept)
                self._kept, self.site.active = None, ()

    def merge(self, keep_on_cpu: bool = False) -> None:
        """Put the map into the base's weight; nothing to do where the adapter has no map."""
        found = self.site.maps().get(self.role)
        if found is not None:
            into = into_input if self.role == "o" else into_output
            kept, new = merge_into(self.base, self.path, self.site.active, lambda W, b: into(found, W, b),
                                   keep_on_cpu=keep_on_cpu)
            with self.site.moments.changing():
                put_in(self.base, kept, new)
                self._kept = kept

    def unmerge(self) -> None:
        """Put the base's weight back, bit for bit."""
        if self._kept is not None:
            with self.site.moments.changing():
                take_out(self.base, self._kept)
                self._kept = None


def by_head(map_: HeadMap, z: Tensor) -> Tensor:
    """z_h ↦ A_h z_h + c_h on (…, H·e), in the map's precision; the result has z's dtype."""
    A = map_.matrix
    heads, size = A.shape[0], A.shape[-1]
    wide = torch.promote_types(A.dtype, z.dtype)
    split = z.to(wide).unflatten(-1, (heads, size))
    new = torch.einsum("hij,...hj->...hi", A.to(wide), split)
    if map_.offset is not None:
        new = new + map_.offset.to(wide)
    return new.flatten(-2).to(z.dtype)


def into_output(map_: HeadMap, W: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """W_h ← A_h W_h, b_h ← A_h b_h + c_h."""
    A = map_.matrix.to(W.dtype)
    size = A.shape[-1]
    new = (A @ W.reshape(-1, size, W.shape[1])).reshape(W.shape)
    b = None if bias is None else (A @ bias.reshape(-1, size, 1)).reshape(bias.shape)
    if map_.offset is not None:
        offset = map_.offset.to(W.dtype).flatten()
        b = offset if b is None else b + offset
    return new, b


def into_input(map_: HeadMap, W: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """W_{:,h} ← W_{:,h} M_h, and the offset through W into the bias."""
    M = map_.matrix.to(W.dtype)
    size = M.shape[-1]
    heads = W.reshape(W.shape[0], -1, size).movedim(1, 0)  # (H, d, e)
    new = (heads @ M).movedim(0, 1).reshape(W.shape)
    if map_.offset is None:
        return new, bias
    offset = W @ map_.offset.to(W.dtype).flatten()
    return new, offset if bias is None else bias + offset
