"""Where adapters sit: the place in a model, the adapters there by name, and which of them are active.

    site   = adapters {name: AdapterModule}, active names in order, enabled or not
    linear = base (nn.Linear or transformers' Conv1D) → y = adapter(x, base), or base(x) + Σ delta_i(x)

``LinearSite`` takes the place of its base in the model. The sites of hidden states and of attentions stand beside what
they change: see ``padp/models``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, cast

import torch
from torch import Tensor, nn

from padp.compiler.kernels.products import plain
from padp.compiler.kernels.singular import finite
from padp.compiler.kernels.table import call_base
from padp.compiler.kernels.torch_state import compiling
from padp.compiler.module.acting import acting
from padp.compiler.module.first_runs import checkpointed
from padp.compiler.module.keys import guard_adapters, keep_plain_keys
from padp.compiler.module.linear_layer import bias_of, stored_transposed, weight_of, why_not_linear
from padp.compiler.module.moments import Moments, in_one_state
from padp.compiler.module.reads import reading
from padp.compiler.module.reloading import follow, replace_on
from padp.compiler.module.weights import find_offloaded, why_no_product, why_unreadable
from padp.dsl.diagnostics import refuse

if TYPE_CHECKING:
    from padp.compiler.module.module import AdapterModule


class Watch(Protocol):
    """Who looks whether the model calls a layer."""

    def turned(self, training: bool) -> None:
        """The layer is in this mode from now on."""
        ...

# ---------------------------------------------------------------- in the place of a module


class StandIn(nn.Module):
    """A module of ours in the place of ``base``, one of the model's: what looks at the model finds what was there.

    So do state dicts: the keys of the module ``inside`` are those that it had (see ``keys``).
    """

    base: nn.Module
    path: str = ""
    own: ClassVar[tuple[str, ...]] = ("base", "adapters")
    """The first parts of keys that are ours."""

    def __init__(self) -> None:
        super().__init__()
        keep_plain_keys(self)
        self.loading = ""  # where it stands in the state dict that is being loaded

    @property
    def inside(self) -> str:
        """Where, under this one, the module lies that has plain keys in a state dict."""
        return self.inside_of(self.merged)

    def inside_of(self, merged: tuple[str, ...]) -> str:
        """``inside`` of a state dict that was taken while these were merged."""
        return "base"

    @property
    def merged(self) -> tuple[str, ...]:
        """The adapters whose effect what has plain keys holds now; () when not merged."""
        return ()

    @property
    def weight(self) -> nn.Parameter:
        """The base's own weight, as it is stored."""
        reading(self)
        return cast(nn.Parameter, self.base.weight)

    @property
    def bias(self) -> nn.Parameter | None:
        """The base's own bias."""
        return cast("nn.Parameter | None", self.base.bias)

    def __setattr__(self, name: str, value: Any) -> None:
        """``layer.weight = parameter`` (as weight tying does it) goes to the base."""
        if name in ("weight", "bias"):
            self.put_on_base(name, value)
        else:
            super().__setattr__(name, value)

    def put_on_base(self, name: str, value: Any) -> None:
        """Another weight or bias for the base."""
        setattr(self.base, name, value)

    def __getattr__(self, name: str) -> Any:
        """What the base has and we have not: ``in_features`` of a Linear, ``nf`` of a Conv1D, and so on."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            base = self.__dict__.get("_modules", {}).get("base")
            if base is None or name.startswith("_"):
                raise
            return getattr(base, name)


# ---------------------------------------------------------------- sites


class Site(nn.Module):
    """The adapters of one place. ``path`` is the place's name in the model, for messages."""

    kind: ClassVar[str]
    adapters: nn.ModuleDict

    def __init__(self, path: str = "") -> None:
        super().__init__()
        guard_adapters(self)
        self.path = path
        self.adapters = nn.ModuleDict()
        self.active: tuple[str, ...] = ()
        self.enabled = True
        self.moments = Moments()
        self.switched = False
        self.owner: object = None  # what says which model's adapters these are
        self._learned: dict[str, tuple[str, ...]] = {}
        self.brought: frozenset[str] = frozenset()
        self.waiting: tuple[str, ...] = ()

    def given(self) -> tuple[Tensor | dict[str, Tensor] | None, Tensor | None]:
        """The weights of the base and its bias, as the compiler takes them."""
        return None, None

    @property
    def merged(self) -> tuple[str, ...]:
        """The adapters whose effect the base's weights hold now; () when not merged."""
        return ()

    def module(self, name: str) -> AdapterModule:
        """The adapter of that name at this site."""
        return cast("AdapterModule", self.adapters[name])

    @property
    def acting(self) -> tuple[str, ...]:
        """The names of the adapters that act now."""
        return self.active if self.enabled else ()

    def has(self, name: str) -> bool:
        """Whether an adapter of that name is here."""
        return name in self.adapters

    def draws(self, name: str) -> bool:
        """Whether an adapter draws numbers in training."""
        return self.module(name).draws

    def knobbed(self, name: str) -> AdapterModule | None:
        """The adapter of that name, where it has knobs."""
        module = self.module(name)
        return module if module.knobs else None

    def in_use(self) -> tuple[AdapterModule, ...]:
        """The active adapters in order; none while the site is disabled."""
        return tuple(self.module(name) for name in self.acting)

    def only(self) -> AdapterModule:
        """The single active adapter; E511 when there is none or more than one."""
        if len(self.active) != 1:
            raise refuse("E511", f"{self.label} has {len(self.active)} active adapters, and this asks for exactly one",
                         suggestion=f"activate one of {', '.join(self.adapters) or 'none'}")
        return self.module(self.active[0])

    @property
    def label(self) -> str:
        """The site in a message."""
        return self.path or f"this {self.kind} site"

    def add(self, name: str, module: AdapterModule) -> None:
        """A new adapter, not active yet. It takes the site's training mode."""
        if name in self.adapters:
            raise refuse("E511", f"{self.label} already has an adapter called {name}", suggestion="choose another name")
        self._learned[name] = tuple(key for key, p in module.named_parameters() if p.requires_grad)
        module.moments = self.moments
        self.adapters[name] = module.train(self.training)

    def remove(self, name: str) -> None:
        """Forget an adapter."""
        with self.moments.changing():
            self.activate([other for other in self.active if other != name])
            del self.adapters[name], self._learned[name]

    def learned(self, name: str) -> list[nn.Parameter]:
        """The parameters of an adapter that are trained while it is active."""
        return [self.module(name).get_parameter(key) for key in self._learned[name]]

    def refuse_together(self, modules: Mapping[str, AdapterModule]) -> None:
        """E508 unless these can act at this site together: several only when each adds to the base's output."""
        bound = [name for name, module in modules.items() if not module.additive]
        if len(modules) > 1 and bound:
            raise refuse("E508", f"{self.label}: {_listed(list(modules))} cannot be active together, because "
                         f"{_listed(bound)} does not only add to the base's output",
                         suggestion=f'padp.activate(model, "{bound[0]}") for one of them at a time')

    def activate(self, names: Sequence[str]) -> None:
        """Make these adapters the active ones, in this order. What requires a gradient stays as it is: a tensor that
        does not act gets none.

        E510 for a name that is not here, E508 when they do not combine.
        """
        for name in names:
            if name not in self.adapters:
                raise refuse("E510", f"{self.label} has no adapter called {name}",
                             suggestion=f"there are {', '.join(self.adapters)}" if self.adapters else None)
        self.refuse_together({name: self.module(name) for name in names})
        self.active = tuple(names)

    def drop_cache(self) -> None:
        """Forget what was computed from the parameters."""
        for name in self.adapters:
            self.module(name).drop_cache()

    def extra_repr(self) -> str:
        state = [f"active={', '.join(self.active) or 'none'}"]
        return ", ".join(state if self.enabled else [*state, "disabled"])


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


# ---------------------------------------------------------------- merging into a weight


@dataclass(frozen=True, eq=False)
class Kept:
    """What a linear layer held before a merge: the numbers, so that unmerging is exact, and the parameters themselves,
    which come back."""

    weight: Tensor
    bias: Tensor | None
    names: tuple[str, ...]
    own: tuple[nn.Parameter, nn.Parameter | None]


Pair = tuple[nn.Parameter, "nn.Parameter | None"]
Change = Callable[[Tensor, "Tensor | None"], "tuple[Tensor, Tensor | None]"]


@torch.no_grad()
def merge_into(base: nn.Module, label: str, names: Sequence[str], change: Change, *, keep_on_cpu: bool = False
               ) -> tuple[Kept, Pair]:
    """Put ``change(W, bias)``, computed in at least float32, in the place of a layer's weight; E504 when not finite.

    The layer gets other parameters, so that a call in another thread that reads the old ones can finish. To be called
    with ``put_in``, in one change with whatever says that the layer is merged.
    """
    reason = why_unreadable(base)
    if reason is not None:
        raise refuse("E504", f"{label}: {reason}, so there is nothing to merge into")
    own = dict(base.named_parameters(recurse=False))
    held = own.get("weight")
    if held is None or own.get("bias") is not base.bias:
        raise refuse("E504", f"{label}: the weight or bias is computed from something else (a parametrization), "
                     "so there is nothing to merge into", suggestion="remove the parametrization first")
    if held.is_meta:
        raise refuse("E504", f"{label}: the weight is on the meta device and has no values to merge into",
                     suggestion="load the model's weights first")
    _refuse_no_product(base, label)
    bias = bias_of(base)
    wide = torch.promote_types(held.dtype, torch.float32)
    W, b = change(weight_of(base).to(wide), None if bias is None else bias.to(wide))
    weight = (W.T if stored_transposed(base) else W).to(held.dtype).contiguous()
    offset = None if b is None else b.to(held.dtype if bias is None else bias.dtype)
    if offset is None and bias is not None:
        offset = torch.zeros_like(bias)
    if weight.shape != held.shape:
        raise refuse("E504", f"{label}: the merged weight is {tuple(weight.shape)}, the layer's is {tuple(held.shape)}")
    if not (finite(weight) and (offset is None or finite(offset))):
        raise refuse("E504", f"{label}: the merged weight is not finite in {held.dtype}; the layer is left as it was",
                     suggestion="look for nan or inf in the adapter's parameters, for a division by 0 in its program")
    new = _like(held, weight), None if offset is None else _like(bias, offset)
    kept = Kept(held.data, None if bias is None else bias.data, tuple(names), (held, cast("nn.Parameter | None", bias)))
    if keep_on_cpu:
        kept = replace(kept, weight=kept.weight.cpu(), bias=None if kept.bias is None else kept.bias.cpu())
    _refuse_no_product(base, label, new)
    return kept, new


def _like(old: Tensor | None, value: Tensor) -> nn.Parameter:
    """A parameter of this value, with the flag and the attributes of an old one."""
    made = nn.Parameter(value, requires_grad=old is not None and old.requires_grad)
    if old is not None:
        made.__dict__.update(old.__dict__)  # pyright: ignore[reportAttributeAccessIssue]
    return made


def _refuse_no_product(base: nn.Module, label: str, new: Pair | None = None) -> None:
    """E504 when calling the layer, its hooks included, is not W x + b, as it is or with this weight and bias: another W
    would not do what the adapter does."""
    reason = None if plain(base) else why_no_product(base, called=True, new=new)
    if reason is not None:
        raise refuse("E504", f"{label}: {reason}; a merged weight would not do what the adapter does")


@torch.no_grad()
def put_in(base: nn.Module, kept: Kept, new: Pair) -> None:
    """Give a layer its merged parameters; the old ones' numbers lie where ``kept`` has them."""
    base._parameters.update(weight=new[0], bias=new[1])  # pyright: ignore[reportPrivateUsage]
    for parameter, value in zip(kept.own, (kept.weight, kept.bias), strict=True):
        if parameter is not None and value is not None and parameter.device != value.device:
            parameter.data = value


@torch.no_grad()
def take_out(base: nn.Module, kept: Kept) -> None:
    """Give a layer back its own parameters, bit for bit what they were, where and in the precision that it has now."""
    like = cast(Tensor, base.weight)
    for parameter, value in zip(kept.own, (kept.weight, kept.bias), strict=True):
        if parameter is not None and value is not None:
            moved = value.to(like.device, like.dtype)
            if moved is not value or parameter.device != moved.device:
                parameter.data = moved
    base._parameters.update(weight=kept.own[0], bias=kept.own[1])  # pyright: ignore[reportPrivateUsage]


def without(base: nn.Module, kept: Kept) -> nn.Module:
    """A merged layer as it is without what was merged: the same module, with the numbers that are kept."""
    twin = copy(base)
    like = cast(Tensor, base.weight)
    held = [None if t is None else nn.Parameter(t.to(like.device, like.dtype), requires_grad=False)
            for t in (kept.weight, kept.bias)]
    twin.__dict__["_parameters"] = {**base._parameters, "weight": held[0], "bias": held[1]}  # pyright: ignore[reportPrivateUsage]
    return twin


@torch.no_grad()
def leave_in(base: nn.Module, kept: Kept) -> None:
    """Make the merged numbers those of the layer's own parameters."""
    weight, bias = cast(nn.Parameter, base.weight), cast("nn.Parameter | None", base.bias)
    kept.own[0].data = weight.data
    if kept.own[1] is not None and bias is not None:
        kept.own[1].data = bias.data
    base._parameters.update(weight=kept.own[0], bias=bias if kept.own[1] is None else kept.own[1])  # pyright: ignore[reportPrivateUsage]


# ---------------------------------------------------------------- the linear site


class LinearSite(Site, StandIn):
    """A linear layer with adapters, in the layer's place.

    No adapter active: base(x). One: adapter(x, base). Several additive ones: base(x) + Σ delta_i(x), in order.
    Merged: base(x), the base holding the new weight until ``unmerge``.
    """

    kind = "linear"

    def __init__(self, base: nn.Module, path: str = "") -> None:
        reason = why_not_linear(base)
        if reason is not None:
            raise refuse("E502", f"{path or type(base).__name__}: {reason}")
        super().__init__(path)
        self.base = base
        self.training = base.training
        self.watch: Watch | None = None
        self._kept: Kept | None = None
        follow(self, self, "", {base: self})

    @property
    def followers(self) -> Site:
        """Whose adapters follow the base's weights."""
        return self

    def given(self) -> tuple[Tensor | dict[str, Tensor] | None, Tensor | None]:
        return weight_of(self.base), bias_of(self.base)

    def put_on_base(self, name: str, value: Any) -> None:
        replace_on(self, self.base, name, value)

    def forward(self, x: Tensor) -> Tensor:
        if compiling():
            return self._now(x)
        moments: Moments = self.__dict__["moments"]
        now = moments.now
        if now is None:
            return in_one_state(moments, self._now, x)
        try:
            y = self._now(x)
        except Exception:
            if moments.now is now:
                raise
            return in_one_state(moments, self._now, x)
        return y if moments.now is now else in_one_state(moments, self._now, x)

    def _now(self, x: Tensor) -> Tensor:
        """The output in the state of now."""
        names = acting(self) if checkpointed() else self.active if self.enabled else ()
        here: dict[str, Any] = self._modules  # past __getattr__, which would ask the base
        if "_hf_hook" in here["base"].__dict__:
            find_offloaded(self.base, self.path, "base")
        if self._kept is not None:
            if self.training and torch.is_grad_enabled():
                raise refuse("E511", f"{self.label} is merged: a training step would not reach {_listed(self.merged)}",
                             suggestion="padp.unmerge(model), or model.eval() or torch.no_grad() for inference")
            return cast(Tensor, self.base(x))
        if not names:
            return cast(Tensor, self.base(x))
        if len(names) == 1:
            module = here["adapters"]._modules[names[0]]
            if "_hf_hook" in module.__dict__:
                self.module(names[0]).refuse_empty()
            y: Tensor = module(x, here["base"])
            return y
        for name in names:
            self.module(name).refuse_empty(x.is_meta)
        y = call_base(self.base, x, x)
        for name in names:
            y = y + self.module(name).added(x, self.base).to(y.dtype)
        return y

    # ------------------------------------------------------------ merging

    @property
    def merged(self) -> tuple[str, ...]:
        """The adapters whose effect the base's weight holds now; () when not merged."""
        return () if self._kept is None else self._kept.names

    def merge(self, keep_on_cpu: bool = False) -> None:
        """Put the active adapters into the base's weight: W ← W + Σ (W_i − W), W_i the i-th adapter's merged weight.

        What the weight was is kept, on the CPU if asked. E504 when merged already, when nothing is active, when an
        adapter cannot merge or the result is not finite.
        """
        if self._kept is not None:
            raise refuse("E504", f"{self.label} is merged already ({_listed(self.merged)})", suggestion="unmerge first")
        modules = self.in_use()
        if not modules:
            raise refuse("E504", f"{self.label} has no active adapter to merge")

        for module in modules:
            module.keep_in_line(*self.given(), thoroughly=True)

        def change(W: Tensor, b: Tensor | None) -> tuple[Tensor, Tensor | None]:
            first, *rest = (module.merged(W, b) for module in modules)
            for weight, bias in rest:
                first = first[0] + (weight - W), _sum_biases(first[1], bias, b)
            return first

        kept, new = merge_into(self.base, self.label, self.active, change, keep_on_cpu=keep_on_cpu)
        with self.moments.changing():
            put_in(self.base, kept, new)
            self._kept = kept
            self.drop_cache()

    def train(self, mode: bool = True) -> LinearSite:
        if self.watch is not None:
            self.watch.turned(mode)
        return super().train(mode)

    def unmerge(self) -> None:
        """Put the base's weight back, bit for bit. Does nothing when not merged."""
        if self._kept is not None:
            with self.moments.changing():
                take_out(self.base, self._kept)
                self._kept = None
                self.drop_cache()

    def keep_merged(self) -> None:
        """Make the merged weight the base's own: there is no way back, and no adapter acts any more."""
        if self._kept is not None:
            with self.moments.changing():
                leave_in(self.base, self._kept)
                self._kept, self.active = None, ()

    def refuse_merged(self, what: str) -> None:
        """E511 while merged: ``what`` would have no effect or a wrong one."""
        if self._kept is not None:
            raise refuse("E511", f"{self.label} is merged: {what} would not reach the merged weight",
                         suggestion="padp.unmerge(model) first")

    def activate(self, names: Sequence[str]) -> None:
        if tuple(names) != self.active:
            self.refuse_merged("changing the active adapters")
        super().activate(names)

    @property
    def in_features(self) -> int:
        return weight_of(self.base).shape[1]

    @property
    def out_features(self) -> int:
        return weight_of(self.base).shape[0]

    # ------------------------------------------------------------ what looks at the adapter

    @property
    def tensors(self) -> Mapping[str, Tensor]:
        """The active adapter's tensors, by symbol or ASCII name."""
        return self.only().tensors

    @property
    def graph(self) -> Any:
        return self.only().graph

    @property
    def code(self) -> str:
        return self.only().code

    @property
    def plan(self) -> Any:
        return self.only().plan

    def reference(self, x: Tensor) -> Tensor:
        """The active program read literally, dense, on the base's own weight: also while merged."""
        return self.only().reference(x, self.unmerged)

    def penalty(self) -> Tensor | None:
        """What the active program minimises beside the loss, None when nothing."""
        return self.only().penalty(self.unmerged)

    @property
    def unmerged(self) -> nn.Module:
        """The base with its own weight: where it is merged, a copy that has the numbers from before."""
        return self.base if self._kept is None else without(self.base, self._kept)

    def set_knob(self, name: str, value: float) -> None:
        """Change a knob of the active adapter; E511 while merged."""
        self.refuse_merged(f"a new value of {name}")
        self.switched = True
        self.only().set_knobs({name: value})


def _sum_biases(total: Tensor | None, new: Tensor | None, base: Tensor | None) -> Tensor | None:
    """total + (new − base), None being zero."""
    if new is None:
        return total if base is None else (-base if total is None else total - base)
    change = new if base is None else new - base
    return change if total is None else total + change
