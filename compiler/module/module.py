"""One adapter at one site: its tensors, and the graphs that all sites of the same shape share.

    AdapterModule(x, base) → y        train: step and token stages in one graph
                                      eval without gradients: the step stage is computed once and kept
    .delta(x)  .merged(W, b)  .reference(x, base)  .penalty()  .tensors  .graph  .code  .plan

What is learned is an ``nn.Parameter`` under its ASCII name; what was computed from W when the adapter was attached is a
buffer; a random tensor shared by all sites is one ``nn.Parameter`` without gradient, the same object everywhere.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Literal, Protocol, cast

import torch
from torch import Tensor, fx, nn

from padp.compiler.elaborate.state import Learned
from padp.compiler.explain.plan import Plan, plan_of
from padp.compiler.graph.compile import Compiled, Lean
from padp.compiler.graph.few_tokens import alone
from padp.compiler.graph.remade import Recall, possible
from padp.compiler.graph.stages import Leaf, Stage, printed, run
from padp.compiler.ir.nodes import Node, depends
from padp.compiler.kernels.orthonormal import SPACES, Computed, in_space, refuse_deficient
from padp.compiler.kernels.products import plain, plain_or_none
from padp.compiler.kernels.singular import finite, inverting_lines
from padp.compiler.kernels.table import call_base, dropout
from padp.compiler.kernels.torch_state import compiling, lent, looked_into, passing, transforming
from padp.compiler.literal.reference import Reference
from padp.compiler.literal.updates import prepare
from padp.compiler.module.acting import knob as knob_of_call
from padp.compiler.module.attention_maps import HeadMap
from padp.compiler.module.complexes import parts_of
from padp.compiler.module.freshness import stamp
from padp.compiler.module.held import Held, Place, places, rooted_at, standing
from padp.compiler.module.linear_layer import bias_of, weight_of
from padp.compiler.module.moments import Moment, Moments
from padp.compiler.module.origins import NOWHERE, Origin, leaves_of, origin
from padp.compiler.module.shared import SharedStore
from padp.compiler.module.starting import initial, mixed, seed_of, shaped, shared_key
from padp.compiler.module.weights import is_offloaded
from padp.compiler.plan.steps import Low, order
from padp.dsl.diagnostics import refuse
from padp.dsl.spellings import same_name


class Program(Protocol):
    """What a module is told of the program that it is made of: a compiled ``Adapter``."""

    @property
    def name(self) -> str: ...
    @property
    def hash(self) -> str: ...
    @property
    def variants(self) -> Sequence[str]: ...
    def compiled(self, sizes: Mapping[str, int], variant: str | None, hyper: Mapping[str, Any],
                 has_bias: bool | frozenset[str]) -> tuple[Compiled, Any]: ...


Weights = Tensor | Mapping[str, Tensor] | None
Tokens = Literal["many", "one"]
"""How many tokens a call has: many (a prompt, a batch) or one (decoding). Plans differ."""


_KEPT = ("_held", "_numbers")
"""What a module remembers from call to call: no part of its copies."""


class Tensors(Mapping[str, Tensor]):
    """The declared tensors of an adapter, by the symbol as written or by its ASCII name.

    One in O, SO or St is the orthonormal matrix that the program means; what is stored is ``get_parameter``.
    """

    def __init__(self, owner: AdapterModule) -> None:
        self._owner = owner

    def __getitem__(self, key: str) -> Tensor:
        names = self._owner.names
        declared = {n: names[n] for n in self._owner.compiled.parameters}
        attribute = declared.get(key) or next((a for n, a in declared.items() if key == a or same_name(key, n)), None)
        if attribute is None:
            raise KeyError(f"{key}; there are {', '.join(self)}")
        symbol = next(n for n in self._owner.compiled.parameters if names[n] == attribute)
        stored = cast(Tensor, getattr(self._owner, attribute))
        space = self._owner.compiled.parameters[symbol].declaration.space
        if space.kind not in SPACES:
            return stored
        return Computed.of(in_space(space.kind, self._owner.stored(symbol)), symbol, attribute)

    def __iter__(self) -> Iterator[str]:
        return iter(self._owner.compiled.parameters)

    def __len__(self) -> int:
        return len(self._owner.compiled.parameters)


class AdapterModule(nn.Module):
    """An adapter's tensors at one site and its compiled forward."""

    def __init__(self, adapter: Program, compiled: Compiled, variant: str | None, hyper: Mapping[str, Any],
                 sizes: Mapping[str, int], *, weight: Weights, bias: Tensor | None, dtype: torch.dtype,
                 device: torch.device, dropout: float, seed: int, shared: SharedStore | None) -> None:
        super().__init__()
        self.adapter, self.variant, self.hyper, self.sizes = adapter, variant, dict(hyper), dict(sizes)
        self.compiled, self.names, self.dropout = compiled, _attributes(compiled.names), dropout
        self.shared: dict[str, str] = {}
        self.knobs: dict[str, float] = {
            h.name: float(hyper.get(h.name, getattr(h.default, "value", 1.0))) for h in compiled.method.hyper if h.knob}
        if dropout and not compiled.additive:
            raise refuse("E511", f"{adapter.name} does not only add to the base's output, so there is no path beside "
                         "the base to drop from", suggestion="dropout=0, or drop(x, p) in the program, where meant")
        if dropout and not 0 <= dropout < 1:
            raise refuse("E507", f"dropout = {dropout}", suggestion="a probability in [0, 1)")
        self._held: Held | None = None
        self.moments = Moments()
        self._numbers: tuple[object, list[Tensor]] | None = None
        self._origin = NOWHERE
        leaves = (*compiled.roots.base, *(("param", name) for name in compiled.roots.frozen))
        self._rooted_at = rooted_at(leaves, self.names, compiled.has_bias)
        self.tokens: Tokens = "many"
        self.unstarted = device.type == "meta"  # whether its tensors have no values of their own yet
        compiled.ready()
        self._fill(weight, bias, dtype, device, seed, shared)
        if self.has_updates:
            prepare(self)

    # ------------------------------------------------------------ making the tensors

    def _fill(self, weight: Weights, bias: Tensor | None, dtype: torch.dtype, device: torch.device, seed: int,
              shared: SharedStore | None) -> None:
        wide = torch.promote_types(dtype, torch.float32)
        like = torch.zeros((), dtype=wide, device=device)
        leaves = self._given_leaves(weight, bias, like)
        waiting: list[tuple[str, Learned]] = []
        with torch.no_grad():
            for name, p in self.compiled.parameters.items():
                if p.start.node is None:
                    leaves["param", name] = self._start(name, p, wide, device, seed, shared)
                else:
                    waiting.append((name, p))
            kept = self._attach(waiting, leaves, like, self.compiled.kept)
        for name, p in self.compiled.parameters.items():
            self._register(name, p, leaves["param", name], dtype)
        for name, p in self.compiled.parameters.items():
            if p.declaration.space.kind in SPACES:
                refuse_deficient(name, p.declaration.space, self.stored(name))
        for name, _ in waiting:
            self._refuse_infinite(cast(Tensor, getattr(self, self.names[name])), f"the start of {name}", leaves)
        self._write_knobs(leaves)
        for k, tensor in enumerate(kept):
            stored = tensor.to(dtype) if tensor.is_floating_point() else tensor
            self._refuse_infinite(stored, "what is computed from W when it is attached", leaves)
            self.register_buffer(f"kept_{k}", stored.detach().contiguous().clone())
        if not any(t.is_floating_point() for t in (*self.parameters(), *self.buffers())):  # its precision all the same
            self.register_buffer("precision", torch.zeros((), dtype=dtype, device=device), persistent=False)
        self.belongs_to(weight, bias)

    def _refuse_infinite(self, tensor: Tensor, what: str, given: Mapping[Leaf, Tensor]) -> None:
        """E511, with the cause: what of ``given`` is the base's and not finite, else the program's maths."""
        if _finite(tensor):
            return
        blamed = [kind if kind == name else f"{kind} {name}" for (kind, name), leaf in given.items()
                  if kind in ("weight", "bias") and not _finite(leaf)]
        cause = f"the base's {' and '.join(blamed)} is not finite" if blamed else \
            "the base's weights are finite, so the program divides by 0 here, or inverts a matrix that is singular"
        raise refuse("E511", f"{self.adapter.name}: {what} is not finite; {cause}")

    def _start(self, name: str, p: Learned, dtype: torch.dtype, device: torch.device, seed: int,
               shared: SharedStore | None) -> Tensor:
        declaration = p.declaration
        shape = tuple(int(d) for d in p.stored)
        own = seed_of(p, self.hyper, seed)
        generator = torch.Generator().manual_seed(mixed(own, name))
        if declaration.shared and shared is not None:
            key = shared_key(self.adapter.name, self.adapter.hash, self.variant, name, own, p.start)
            self.shared[self.names[name]] = key
            return shared.take(key, shape, lambda s: initial(p.start, s, generator, dtype, device))
        return initial(p.start, shape, generator, dtype, device)

    def _attach(self, waiting: list[tuple[str, Learned]], leaves: dict[Leaf, Tensor], like: Tensor,
                kept: Sequence[Low]) -> list[Tensor]:
        """Starts that are expressions, in order, then kept values. A decomposition is made once."""
        planner = self.compiled.planner
        known: dict[int, Any] = {}
        for name, p in waiting:
            start, _ = planner.settle(planner.value(planner.rules(_node(p))))
            (value,) = run(start, leaves, like, known=known)
            leaves["param", name] = shaped(value, p)
        return run(kept, leaves, like, known=known)

    def _given_leaves(self, weight: Weights, bias: Tensor | None, like: Tensor) -> dict[Leaf, Tensor]:
        """What an attachment reads beside the declared tensors: the base's weights and the knobs."""
        leaves: dict[Leaf, Tensor] = {}
        given = dict(weight) if isinstance(weight, Mapping) else {} if weight is None else {"W": weight}
        for name, tensor in given.items():
            leaves[("bias" if name.startswith("b_") else "weight", name)] = tensor.detach().to(like)
        if bias is not None:
            leaves[("bias", "bias")] = bias.detach().to(like)
        for knob, value in self.knobs.items():
            leaves[("knob", knob)] = torch.tensor(value, dtype=like.dtype, device=like.device)
        return leaves

    @property
    def from_base(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The attributes that were computed from the base's weights: those that are learned since, and the rest."""
        learned: list[str] = []
        rest: list[str] = []
        read: set[Any] = set()
        for name, p in self.compiled.parameters.items():
            if p.start.node is not None and depends(
                    p.start.node, lambda n: n.op in ("weight", "bias") or (n.op == "param" and n.attrs[0] in read)):
                read.add(name)
                (learned if p.declaration.role == "learned" else rest).append(self.names[name])
        for k, low in enumerate(self.compiled.kept):
            if any(x.prim in ("weight", "bias") or (x.prim == "param" and x.args[0] in read) for x in order(low)):
                rest.append(f"kept_{k}")
        return tuple(learned), tuple(rest)

    def compute_anew(self, weight: Weights, bias: Tensor | None, changed: Collection[Leaf] | None = None) -> None:
        """What was computed from the base's weights and from frozen tensors, from those of now. Learned tensors stay as
        they are. With ``changed``, only what was computed from these.

        E511 when it cannot be computed or is not finite; then nothing has changed.
        """
        first = next(iter(weight.values())) if isinstance(weight, Mapping) else weight
        device = first.device if first is not None and self.like.is_meta else self.like.device
        like = torch.zeros((), dtype=torch.promote_types(self.like.dtype, torch.float32), device=device)
        _, rest = self.from_base if changed is None or any(kind != "param" for kind, _ in changed) else ((), ())
        waiting = [(name, p) for name, p in self.compiled.parameters.items() if self.names[name] in rest]
        stale = {*(changed or ()), *(("param", name) for name, _ in waiting)}
        kept = {f"kept_{k}": low for k, low in enumerate(self.compiled.kept)
                if changed is None or f"kept_{k}" in rest or leaves_of(low) & stale}
        with torch.no_grad():
            leaves = self._given_leaves(weight, bias, like)
            for name in self.compiled.parameters:
                if not any(name == other for other, _ in waiting):
                    leaves["param", name] = cast(Tensor, getattr(self, self.names[name])).detach().to(like)
            made = dict(zip(kept, self._attach(waiting, leaves, like, list(kept.values())), strict=True))
            made.update({self.names[name]: leaves["param", name] for name, _ in waiting})
            for attribute, new in made.items():
                old = cast(Tensor, getattr(self, attribute))
                made[attribute] = new.detach().to(device, old.dtype).contiguous().clone()
                self._refuse_infinite(made[attribute], "what is computed from other weights of the base",
                                      leaves)
        self.__dict__["_buffers"] = {**self._buffers, **made}  # at once: a call elsewhere has the old or the new ones
        self.drop_cache()
        self.belongs_to(weight, bias)

    def _rooted(self, weight: Weights, bias: Tensor | None) -> dict[Leaf, Tensor]:
        """The tensors that something was computed from when this was attached, as they are stored."""
        found: dict[Leaf, Tensor] = {}
        for leaf in self.compiled.roots.base:
            t = weight.get(leaf[1]) if isinstance(weight, Mapping) else weight if leaf[0] == "weight" else bias
            if t is not None:
                found[leaf] = t
        for name in self.compiled.roots.frozen:
            found["param", name] = cast(Tensor, getattr(self, self.names[name]))
        return found

    def belongs_to(self, weight: Weights, bias: Tensor | None) -> None:
        """From now on, what was computed when this was attached belongs to these weights and the tensors of now."""
        self.__dict__["_origin"] = origin(self._rooted(weight, bias))

    def keep_in_line(self, weight: Weights, bias: Tensor | None, *, thoroughly: bool = False,
                     since: Moment | None = None) -> None:
        """Compute anew what was computed from tensors that hold other numbers now.

        ``thoroughly`` compares all numbers, also where no trace of a write is seen. E511 where a learned tensor started
        from weights that were other ones, and the base is frozen. ``since`` is the moment in which the weights were
        read: where it is over, they may be merged ones, and the call is made again.
        """
        given = self._rooted(weight, bias)
        before = cast(Origin, self.__dict__["_origin"])
        if not given or (not thoroughly and before.untouched(list(given.values()))) \
                or any(t.is_meta or lent(t) for t in given.values()):
            return
        changed = before.changed(given)
        if not changed:
            self.__dict__["_origin"] = before.seen_again(given)
            return
        if since is not None and self.moments.now is not since:
            return
        of_base = [leaf for leaf in changed if leaf[0] != "param"]
        learned = self.from_base[0]
        if of_base and learned and before.prints and not any(given[leaf].requires_grad for leaf in of_base):
            names = " and ".join(symbol for symbol, attribute in self.names.items() if attribute in learned)
            raise refuse("E511", f"the base's weights were changed after {self.adapter.name} was attached, and {names} "
                         "started from those that were there",
                         suggestion="padp.refresh(model) keeps the adapter's learned tensors as they are; else change "
                         "the weights first and then attach")
        self.compute_anew(weight, bias, changed)

    def minds(self, base: nn.Module | None, weight: Weights = None) -> Compiled | None:
        """The plans for a base that is trained too, or lent for this call, where that matters. Otherwise None, and what
        was computed from the base's weights is in line with them."""
        if weight is None and type(base) is nn.Linear and self._untouched(base):
            return None
        since = self.moments.now
        if weight is None and base is not None:
            weight, bias = weight_of(base), bias_of(base)
        else:
            bias = None
        moving = list(weight.values()) if isinstance(weight, Mapping) else [t for t in (weight, bias) if t is not None]
        trains, lends, moves = torch.is_grad_enabled(), transforming(), False
        for t in moving:
            moves = moves or (trains and t.requires_grad) or (lends and lent(t))
        if moves:
            if compiling() and "base_moves" not in self.compiled.__dict__:
                raise refuse("E511", f"{self.adapter.name}: a base that is trained too has other plans, and they are "
                             "not made while torch compiles", suggestion="call the model once before torch.compile")
            return self.compiled.base_moves
        if not compiling():
            self.keep_in_line(weight, bias, since=since)
        return None

    def _untouched(self, base: nn.Linear) -> bool:
        """Whether all is seen at once to be in line, as at most calls: ``minds`` by a shorter way."""
        own = base._parameters  # pyright: ignore[reportPrivateUsage]
        weight, bias = own.get("weight"), own.get("bias")
        if weight is None or looked_into() or (torch.is_grad_enabled() and (
                weight.requires_grad or (bias is not None and bias.requires_grad))):
            return False
        at: tuple[Place, ...] = self._rooted_at
        there = standing(at, self, base) if at else []
        return there is not None and (not at or self.__dict__["_origin"].untouched(there))

    def _register(self, name: str, p: Learned, value: Tensor, dtype: torch.dtype) -> None:
        attribute = self.names[name]
        if isinstance(value, nn.Parameter):  # shared: the same object at every site
            self.register_parameter(attribute, value)
        elif p.declaration.role == "learned":
            self.register_parameter(attribute, nn.Parameter(value.detach().to(dtype).contiguous().clone()))
        else:
            self.register_buffer(attribute, value.detach().to(dtype).contiguous())

    def _write_knobs(self, like: Mapping[Leaf, Tensor] | None = None) -> None:
        """Knobs as tensors, so that a compiled graph reads them anew at every call; the numbers are in ``knobs``.

        A tensor that is there is filled, not replaced: a graph that was compiled with it goes on reading it.
        """
        for name, value in self.knobs.items():
            attribute = f"knob_{self.names[name]}"
            here = self._buffers.get(attribute)
            wanted = self.like if like is None else like["knob", name]
            if here is not None and here.device == wanted.device and here.dtype == wanted.dtype \
                    and not here.is_inference():
                with torch.no_grad():
                    here.fill_(value)
            else:
                made = torch.full((), value, dtype=wanted.dtype, device=wanted.device)
                self.register_buffer(attribute, made, persistent=False)

    # ------------------------------------------------------------ what is read when a graph runs

    def arguments(self, stage: Stage, base: nn.Module | None, steps: list[Tensor] | None = None,
                   weight: Weights = None, bias: Tensor | None = None, moving: Compiled | None = None) -> list[Tensor]:
        """What a stage reads, in its order. ``moving``: the plans that it is of, where the base is trained too."""
        out: list[Tensor] = []
        parameters, buffers = self._parameters, self._buffers
        constants = () if moving is None else self._constants(moving)
        for kind, name in stage.leaves:
            match kind:
                case "param":
                    attribute = self.names[name]
                    found: Tensor | None = parameters.get(attribute)
                    if found is None:
                        found = buffers.get(attribute)
                    out.append(getattr(self, attribute) if found is None else found)  # or parametrised
                case "kept" if moving is not None:
                    out.append(constants[int(name)])
                case "kept":
                    out.append(cast(Tensor, buffers[f"kept_{name}"]))
                case "step":
                    assert steps is not None
                    out.append(steps[int(name)])
                case "weight" | "bias" if isinstance(weight, Mapping):  # of an attention, by name
                    out.append(weight[str(name)].to(self.like.dtype))
                case "weight" if isinstance(weight, Tensor):
                    out.append(weight)
                case "weight":
                    assert base is not None
                    own = weight_of(base)
                    out.append(own if moving is None else own.to(self.like.dtype))
                case "bias":
                    out.append(bias if bias is not None else cast(Tensor, cast(nn.Module, base).bias))
                case "knob":
                    out.append(knob_of_call(self, name, getattr(self, f"knob_{self.names[name]}")))
                case _:
                    out.append(self.like)
        return out

    def _constants(self, moving: Compiled) -> list[Tensor]:
        """The kept values of plans for a base that is trained too: they are made of numbers alone."""
        like = self.like
        key = (like.device, like.dtype)
        known = self.__dict__["_numbers"]
        if known is None or known[0] != key:
            with torch.no_grad():
                known = key, run(moving.kept, {}, like.detach())
            self.__dict__["_numbers"] = known
        return cast("list[Tensor]", known[1])

    @property
    def like(self) -> Tensor:
        """A tensor of this adapter's precision and device."""
        for p in self._parameters.values():
            if p is not None:
                return p
        for p in self.parameters():  # parametrised ones
            return p
        return next(b for b in self.buffers() if b.is_floating_point())

    # ------------------------------------------------------------ forward

    def forward(self, x: Tensor, base: nn.Module | None) -> Tensor:
        """y for x of any leading shape; the base layer is called inside, once. A hidden site gives None for it."""
        if self.unstarted:
            self.refuse_empty(x.is_meta)
        tokens = self.tokens  # once: another thread may say otherwise meanwhile
        moving = self.minds(base) if base is not None and self.compiled.roots.minds else None
        if moving is None and tokens == "one" and alone(x) and plain_or_none(base):
            found = self._directly(x, base)
            if found is not None:
                return found
        plan = moving or self.plans_on(base)
        y: Tensor
        if self.dropout and self.training and base is not None:  # it adds to a layer's output
            y = call_base(base, x, x)
            return y + self.added(x, base).to(y.dtype)
        trains = torch.is_grad_enabled() or self.training
        if not trains and passing():
            whole = plan.evaluation(tokens).whole
            y = whole.graph(x, base, False, *self.arguments(whole, base))
        elif trains or moving is not None:
            self.drop_cache()
            if tokens == "one":
                whole = plan.one.whole if passing() else plan.step_of_one
                y = whole.graph(x, base, self.training, *self.arguments(whole, base, moving=moving))
            else:
                lean = plan.lean if moving is None and torch.is_grad_enabled() else None
                if lean is not None and not looked_into() and possible(x):
                    return self._leanly(lean, x, base)
                given = self.arguments(plan.train, base, moving=moving)
                y = plan.train.graph(x, base, self.training, *given)
        else:
            steps, token = self.steps(base, tokens=tokens), plan.evaluation(tokens).token
            y = token.graph.forward(x, base, False, *self.arguments(token, base, steps))
        return y

    def _directly(self, x: Tensor, base: nn.Module | None) -> Tensor | None:
        """y by the plan for one token without its questions, whose answers are known; None where they are not."""
        if self.dropout and self.training:
            return None
        plan = self.plans_on(base)
        if torch.is_grad_enabled() or self.training:
            self.drop_cache()
            stage, steps = plan.step_of_one, None
        else:
            stage, steps = plan.one.token, self.steps(base, tokens="one")
        arguments, dtype = self.arguments(stage, base, steps), x.dtype
        for a in arguments:
            if a.dtype is not dtype and (a.is_floating_point() or a.is_complex()):
                return None
        if x.dim() == 2:
            return stage.direct(x, base, self.training, *arguments)
        y = stage.direct(x.reshape(-1, x.shape[-1]), base, self.training, *arguments)
        return y.reshape(*x.shape[:-1], y.shape[-1])

    def refuse_empty(self, shapes_suffice: bool = False) -> None:
        """E511 while the tensors have no values: none were given since the meta device, or they are offloaded.

        ``shapes_suffice``: the call is on the meta device too.
        """
        if "_hf_hook" in self.__dict__ and is_offloaded(self):
            raise refuse("E511", f"{self.adapter.name}: its tensors were offloaded after it was attached, and are not "
                         "where they are read", suggestion="offload the model first and attach then: the adapter stays "
                         "where the layer computes")
        tensors = [*self.parameters(), *self.buffers()]
        if not self.unstarted or (shapes_suffice and all(t.is_meta for t in tensors)):
            return
        where = "are" if any(t.is_meta for t in tensors) else "were"
        raise refuse("E511", f"{self.adapter.name} was never started here: its tensors {where} on the meta device and "
                     "have no values", suggestion="padp.restart(model) once the base has its weights; or load the "
                     "adapter's tensors, all of them")

    def plans_on(self, base: nn.Module | None) -> Compiled:
        """The plans for this base layer: a frozen one that is nothing but a product may have faster ones."""
        other = self.compiled.on_plain
        if other is None or base is None or not plain(base):
            return self.compiled
        weight = cast(Tensor, base.weight)
        own = type(weight) in (Tensor, nn.Parameter) and weight.dtype == self.like.dtype and not weight.requires_grad
        return other if own else self.compiled

    def _leanly(self, lean: Lean, x: Tensor, base: nn.Module | None) -> Tensor:
        """The training plan; what it drops, backward makes again, from the tensors that this pass read."""
        training = self.training
        arguments = self.arguments(lean.stage, base)
        wanted = {leaf for stage in lean.again for leaf in stage.leaves}
        read = {leaf: a for leaf, a in zip(lean.stage.leaves, arguments, strict=True) if leaf in wanted}

        def again(k: int, given: Sequence[Tensor], x: Tensor | None) -> Tensor:
            stage = lean.again[k]
            values = [given[int(name)] if kind == "step" else read[kind, name] for kind, name in stage.leaves]
            return cast(Tensor, stage.graph(x, None, training, *values))

        with Recall(lean.givens, again, x if lean.reads_x else None, list(read.values())):
            return cast(Tensor, lean.stage.graph(x, base, training, *arguments))

    def steps(self, base: nn.Module | None, weight: Weights = None, tokens: Tokens | None = None) -> list[Tensor]:
        """The step stage, kept until something may have changed it."""
        tokens = tokens or self.tokens
        stage = self.plans_on(base).evaluation(tokens).step
        if stage is None:
            return []
        held: Held | None = self.__dict__["_held"]
        like = self.like
        origin_of_now: Origin = self.__dict__["_origin"]  # another one when W or a frozen tensor changed
        if held is not None and held.stage is stage and held.origin is origin_of_now:
            there = standing(held.at, self, base) if weight is None and not self._modules else None
            if there is None:
                learned, given = self._read_by(stage, base, weight)
                there = [*learned, *given]
            if held.stamp.holds(there, like):
                return held.values
        learned, given = self._read_by(stage, base, weight)
        now = stamp(learned, given, like, trusted=tokens == "one")
        made = stage.graph(like, base, False, *self.arguments(stage, base, weight=weight))
        values = list(made) if isinstance(made, (tuple, list)) else [made]
        at = places(stage, self, self.names, self.shared, self.compiled.roots.base)
        self.__dict__["_held"] = None if now is None else Held(stage, now, origin_of_now, at, values)
        return values

    def _read_by(self, stage: Stage, base: nn.Module | None, weight: Weights) -> tuple[list[Tensor], list[Tensor]]:
        """What a stage reads, as it is stored: learned tensors, and the rest."""
        parameters, buffers = self._parameters, self._buffers
        seen_to = self.compiled.roots.base  # ``minds`` has looked at them
        learned: list[Tensor] = []
        given: list[Tensor] = []
        if self._modules:  # parametrisations, whose tensors are theirs
            learned.extend(self.parameters())
            given.extend(self.buffers())
        for kind, name in stage.leaves:
            match kind:
                case "param" if not self._modules:
                    attribute = self.names[name]
                    found = parameters.get(attribute)
                    if found is None or attribute in self.shared:
                        given.append(cast(Tensor, found if found is not None else buffers[attribute]))
                    else:
                        learned.append(found)
                case "kept":
                    given.append(cast(Tensor, buffers[f"kept_{name}"]))
                case "knob":
                    given.append(cast(Tensor, buffers[f"knob_{self.names[name]}"]))
                case "weight" | "bias" if isinstance(weight, Mapping):
                    given.append(weight[str(name)])
                case "weight" if base is not None and ("weight", name) not in seen_to:
                    given.append(weight_of(base))
                case "bias" if base is not None and ("bias", name) not in seen_to:
                    given.append(cast(Tensor, base.bias))
                case _:
                    pass
        return learned, given

    def delta(self, x: Tensor, base: nn.Module | None = None) -> Tensor:
        """y − base(x), for programs that add to the base's output. ``base`` is read where W or the bias is used."""
        self.refuse_empty(x.is_meta)
        moving = self.minds(base) if base is not None and self.compiled.roots.minds else None
        stage = (moving or self.compiled).delta
        if stage is None:
            raise refuse("E508", f"{self.adapter.name} does not only add to the base's output")
        return cast(Tensor, stage.graph(x, None, self.training, *self.arguments(stage, base, moving=moving)))

    def added(self, x: Tensor, base: nn.Module) -> Tensor:
        """``delta`` with the adapter's own dropout before it, in training."""
        return self.delta(nn.functional.dropout(x, self.dropout) if self.dropout and self.training else x, base)

    def penalty(self, base: nn.Module | None = None, weight: Weights = None) -> Tensor | None:
        """What the program minimises beside the loss, or None. ``base``, or the weights by name of an attention, are
        read where a term reads them."""
        if self.compiled.penalty is None:
            return None
        self.refuse_empty(True)
        asked = self.compiled.roots.minds and (base is not None or weight is not None)
        moving = self.minds(base, weight) if asked else None
        stage = cast(Stage, (moving or self.compiled).penalty)
        arguments = self.arguments(stage, base, weight=weight, moving=moving)
        return cast(Tensor, stage.graph(self.like, None, self.training, *arguments))

    @property
    def has_updates(self) -> bool:
        """Whether the program has ``after backward`` rules."""
        return bool(self.compiled.method.updates)

    @property
    def draws(self) -> bool:
        """Whether it draws numbers in training."""
        return bool(self.dropout) or any(node.target is dropout for node in self.compiled.train.graph.graph.nodes)

    @property
    def additive(self) -> bool:
        """Whether y = base(x) + delta(x)."""
        return self.compiled.additive

    # ------------------------------------------------------------ merging

    def merged(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """W' and bias' with y = W' x + bias', computed in at least float32.

        Raises PadpError E504 with the reason when y is not affine in x.
        """
        self.refuse_empty()
        plan = self.compiled
        if plan.why_not_mergeable is not None:
            raise refuse("E504", f"{self.adapter.name} cannot be merged: {plan.why_not_mergeable}")
        self.keep_in_line(weight, bias)
        wide = torch.promote_types(torch.promote_types(weight.dtype, self.like.dtype), torch.float32)
        with torch.no_grad():
            W, b = weight.to(wide), None if bias is None else bias.to(wide)
            stage = plan.merged
            if stage is None:
                return self._merged_by_columns(W, b)
            arguments = [a.to(wide) if a.is_floating_point() else a
                         for a in self.arguments(stage, None, weight=W, bias=b)]
            made = stage.graph(self.like, None, False, *arguments)
            if isinstance(made, Tensor):
                return made, b
            return made[0], made[1]

    def _merged_by_columns(self, W: Tensor, b: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """W' by applying the plan to the identity: for programs whose matrix has no expression."""
        base = _Plain(W, b)
        stage = self.compiled.train
        arguments = [a.to(W.dtype) if a.is_floating_point() else a
                     for a in self.arguments(stage, base, weight=W, bias=b)]
        n = W.shape[1]
        zero = stage.graph(W.new_zeros(n), base, False, *arguments)
        columns = stage.graph(torch.eye(n, dtype=W.dtype, device=W.device), base, False, *arguments)
        constant = None if b is None and not bool(zero.abs().max() > 0) else zero
        return (columns - zero).mT, constant

    # ------------------------------------------------------------ the meaning

    def reference(self, x: Tensor, base: nn.Module) -> Tensor:
        """The program read literally, dense, in the precision of its tensors."""
        return self.literal(base).forward(x)

    def literal(self, base: nn.Module) -> Reference:
        """What the program means on a base layer with the tensors of now."""
        return self._reference(weight_of(base), bias_of(base))

    def meaning(self) -> Reference:
        """The program read literally with the tensors of now, without what the base holds: for ``after backward``."""
        return self._reference(None, None)

    def _reference(self, weight: Weights, bias: Tensor | None) -> Reference:
        tensors: dict[str, Tensor] = dict(weight) if isinstance(weight, Mapping) else \
            {} if weight is None else {"W": weight}
        if bias is not None:
            tensors["bias"] = bias
        tensors.update({name: self.stored(name) for name in self.compiled.parameters})
        hyper = {**self.hyper, **self.knobs}
        return Reference(self.compiled.method, self.sizes, hyper, tensors)

    def stored(self, name: str) -> Tensor:
        """A declared tensor as it is stored, at this site's size."""
        value = cast(Tensor, getattr(self, self.names[name]))
        for axis, size in enumerate(self.compiled.parameters[name].stored):
            if value.shape[axis] != int(size):  # shared with a larger site
                value = value.narrow(axis, 0, int(size))
        return value

    # ------------------------------------------------------------ attention

    @property
    def joint(self) -> bool:
        """Whether an attention program changes Q and K together."""
        return self.compiled.joint

    def head_maps(self, given: Mapping[str, Tensor] | None = None) -> dict[str, HeadMap]:
        """For an attention site: the map of every head, by role; kept in eval without gradients.

        ``given``: W_Q … b_O of now, by head.
        """
        self.refuse_empty(True)
        moving = None if given is None else self.minds(None, given)
        plan = moving or self.compiled
        if moving is not None or torch.is_grad_enabled() or self.training or passing():
            self.drop_cache()
            stage = plan.train
            arguments = self.arguments(stage, None, weight=given, moving=moving)
            made = stage.graph(self.like, None, self.training, *arguments)
            values = list(made) if isinstance(made, (tuple, list)) else [made]
        else:
            values = list(self.steps(None, given))
        found: dict[str, HeadMap] = {}
        for role, has_offset in plan.roles:
            matrix = values.pop(0)
            found[role] = HeadMap(matrix, values.pop(0) if has_offset else None)
        return found

    # ------------------------------------------------------------ keeping the cache honest

    def expect(self, tokens: Tokens) -> None:
        """Take the plan for this many tokens from now on."""
        self.compiled.evaluation(tokens).whole.ready()  # torch.compile may come next
        self.tokens = tokens
        self.drop_cache()

    def drop_cache(self) -> None:
        """Forget the kept step stage."""
        self.__dict__["_held"] = None  # past __setattr__, which asks what it is

    def set_knobs(self, values: Mapping[str, float]) -> None:
        """Give knobs new values, all in one change."""
        for name in values:
            if name not in self.knobs:
                raise refuse("E510", f"{self.adapter.name} has no knob called {name}",
                             suggestion=f"there are: {', '.join(self.knobs) or 'none'}")
        with self.moments.changing():
            self.knobs.update({name: float(value) for name, value in values.items()})
            self._write_knobs()
            self.drop_cache()

    def train(self, mode: bool = True) -> AdapterModule:
        self.drop_cache()
        return super().train(mode)

    def _apply(self, fn: Any, recurse: bool = True) -> AdapterModule:
        self.drop_cache()
        before = self.like.dtype
        moved = cast(AdapterModule, super()._apply(parts_of(fn), recurse))  # type: ignore[no-untyped-call]
        if self.like.dtype != before:
            self.__dict__["_origin"] = self._origin.cast()
        moved.unstarted = moved.unstarted or moved.like.is_meta
        moved._write_knobs()  # from the numbers: half precision and back would have rounded them
        return moved

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *args: Any) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        self.drop_cache()
        super()._load_from_state_dict(state_dict, prefix, *args)
        if self.unstarted:
            own = {key: t for key, t in (*self._parameters.items(), *self._buffers.items())
                   if key not in self._non_persistent_buffers_set}
            follows = self.from_base[1]  # computed when the base's weights come; a meta tensor till then
            self.unstarted = any((prefix + key not in state_dict or (t is not None and t.is_meta))
                                 and not (key in follows and t is not None and t.is_meta) for key, t in own.items())
        self._write_knobs()
        if any(f"{prefix}kept_{k}" in state_dict for k in range(len(self.compiled.kept))):
            frozen = {leaf: t for leaf, t in self._rooted(None, None).items() if leaf[0] == "param"}
            self.__dict__["_origin"] = self._origin.with_these(frozen)  # what was computed from them came along

    def arrive(self, device: torch.device) -> None:
        """What no state holds, because it is made of numbers, is made there; before it was on the meta device."""
        for key in sorted(self._non_persistent_buffers_set):
            here = self._buffers.get(key)
            if here is not None and here.is_meta:
                self._buffers[key] = torch.zeros_like(here, device=device)
        self.unstarted = self.unstarted and any(t.is_meta for t in (*self.parameters(), *self.buffers()))
        self._write_knobs()

    def __deepcopy__(self, memo: dict[int, Any]) -> AdapterModule:
        """A copy with tensors of its own; the compiled graphs hold no state and stay shared."""
        from copy import deepcopy

        twin = AdapterModule.__new__(AdapterModule)
        memo[id(self)] = twin
        for key, value in self.__dict__.items():
            twin.__dict__[key] = value if key in ("adapter", "compiled", "names") else \
                None if key in _KEPT else value.alone() if key == "_origin" else deepcopy(value, memo)
        return twin

    def __getstate__(self) -> dict[str, Any]:
        """For pickling: without the graphs, which are compiled again (pickling an fx graph re-traces it)."""
        return {**{k: v for k, v in self.__dict__.items() if k not in ("compiled", *_KEPT)},
                "_origin": self._origin.alone(), "has_bias": self.compiled.has_bias}

    def __setstate__(self, state: dict[str, Any]) -> None:
        has_bias = state.pop("has_bias")
        nn.Module.__setstate__(self, {**state, **dict.fromkeys(_KEPT)})
        self.compiled, _ = self.adapter.compiled(self.sizes, self.variant, self.hyper, has_bias)
        self.compiled.ready()
        self.expect(self.tokens)

    # ------------------------------------------------------------ looking inside

    @property
    def tensors(self) -> Tensors:
        """The declared tensors by symbol (``"λ"``) or by ASCII name (``"lambda_"``)."""
        return Tensors(self)

    @property
    def graph(self) -> fx.GraphModule:
        """The torch.fx graph of a training step on an ordinary base layer."""
        return self.compiled.usual.train.graph

    @property
    def code(self) -> str:
        """The training step as readable torch code, with the source line above each statement."""
        return printed(self.compiled.usual.train)

    @property
    def plan(self) -> Plan:
        """The chosen operations with their costs."""
        return plan_of(self.compiled.usual)

    def running_program(self) -> tuple[str, list[str]]:
        """For messages about what it computes: its name, and the lines that ask for what need not exist."""
        typed = self.compiled.typed
        starts = [p.start.node for p in typed.parameters.values() if p.start.node is not None]
        penalty = [] if typed.penalty is None else [typed.penalty]
        return self.adapter.name, inverting_lines(typed.method, typed.output, *penalty, *starts)

    def extra_repr(self) -> str:
        hyper = ", ".join(f"{k}={v}" for k, v in {**self.hyper, **self.knobs}.items())
        variant = f", variant={self.variant}" if self.variant else ""
        return f"{self.adapter.name}({hyper}){variant}"


class _Plain(nn.Module):
    """A linear layer around given tensors, for merging."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.register_buffer("weight", weight, persistent=False)
        self.register_buffer("bias", bias, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, cast(Tensor, self.weight), cast("Tensor | None", self.bias))


def _node(p: Learned) -> Node:
    assert p.start.node is not None
    return p.start.node


def _finite(tensor: Tensor) -> bool:
    return not tensor.is_floating_point() or tensor.is_meta or finite(tensor)


def _attributes(names: Mapping[str, str]) -> dict[str, str]:
    """The attribute of each tensor: its ASCII name, with "_" behind it where a module has such an attribute already.

    ``δ`` would be ``delta``, a method; ``kept_0`` a buffer of ours.
    """
    own = {*vars(nn.Module()), "adapter", "variant", "hyper", "sizes", "compiled", "names", "dropout", "shared",
           "knobs", "moments", "precision", "tokens", "unstarted"}

    def taken(word: str) -> bool:
        return word in own or hasattr(AdapterModule, word) or word.startswith(("kept_", "keep_", "ema_", "knob_"))

    return {name: f"{word}_" if taken(word) else word for name, word in names.items()}
