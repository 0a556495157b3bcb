"""Switching is not freezing: whichever adapter acts in a call gets that call's gradient, however and whenever it was
switched, and a checkpoint that runs a call again runs it as it was."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, TypeAlias, cast

import pytest
import torch
from torch import Tensor, nn
from torch.distributed._composable.checkpoint_activation import checkpoint as hooked
from torch.utils.checkpoint import checkpoint

import padp
import padp.models as pm
from padp import Adapter
from tests.support.families import Refused, make_opt
from tests.support.programs import HEADS, LORA, PISSA, REFT, ROTATION

DROPPED = padp.compile("""# draws numbers in training
adapter Dropped(r = 2) on linear(W ∈ ℝ^{m×n})
A ∈ ℝ^{r×n}: learned, init = normal(0.5)
B ∈ ℝ^{m×r}: learned, init = normal(0.5)
y ← W @ x + B @ (A @ drop(x, 0.5))
""")
KNOBBED = padp.compile("""# a knob that gradients pass
adapter Knobbed(r = 2, knob α = 1) on linear(W ∈ ℝ^{m×n})
A ∈ ℝ^{r×n}: learned, init = normal(0.5)
B ∈ ℝ^{m×r}: learned, init = normal(0.5)
y ← W @ x + B @ tanh(α · (A @ x))
""")
ON = {"linear": LORA, "rotation": ROTATION, "frozen parts": PISSA, "hidden": REFT, "attention": HEADS}
Call: TypeAlias = Callable[[nn.Module, Tensor], Tensor]


class Task(nn.Module):
    """A decoder on embedded tokens, with a head: a place for every kind of adapter."""

    def __init__(self) -> None:
        super().__init__()
        self.body = make_opt(num_hidden_layers=1, dropout=0.0).double()
        self.head = nn.Linear(64, 3).double()

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.head(self.body(inputs_embeds=x).logits))


def make(adapter: Adapter) -> tuple[Task, Tensor]:
    """The model with "a" acting and "b" not, each with a copy of the head, and an input."""
    model = Task().train()
    settings = {"linear": {"targets": ["fc1", "fc2"]}, "hidden": {"positions": "f2"}}.get(adapter.site, {})
    for seed, name in enumerate("ab"):
        pm.attach(model, adapter, name=name, seed=seed, modules_to_save=["head"], active=name == "a",
                  **cast(Any, settings))
    with torch.no_grad():
        for p in pm.trainable(model, "b"):
            p.mul_(1.5)
    return model, torch.randn(2, 6, 32, dtype=torch.float64, requires_grad=True)


def plainly(model: nn.Module, x: Tensor) -> Tensor:
    return cast(Tensor, model(x))


def held(model: nn.Module, x: Tensor) -> Tensor:
    return cast(Tensor, checkpoint(model, x, use_reentrant=False))


def reentrant(model: nn.Module, x: Tensor) -> Tensor:
    return cast(Tensor, checkpoint(model, x, use_reentrant=True))


def nested(model: nn.Module, x: Tensor) -> Tensor:
    return held(cast(Any, lambda v: held(model, v)), x)


def crosswise(model: nn.Module, x: Tensor) -> Tensor:
    return reentrant(cast(Any, lambda v: held(model, v)), x)


def inside_out(model: nn.Module, x: Tensor) -> Tensor:
    return held(cast(Any, lambda v: reentrant(model, v)), x)


def moved(model: nn.Module, x: Tensor) -> Tensor:
    """Hooks for saved tensors inside the checkpoint: they keep everything, and nothing runs again."""
    def inner(v: Tensor) -> Tensor:
        with torch.autograd.graph.save_on_cpu():
            return plainly(model, v)
    return held(cast(Any, inner), x)


def by_hooks(model: nn.Module, x: Tensor) -> Tensor:
    """A checkpoint that hooks of the module make: it is nowhere on the stack."""
    outer = nn.Sequential(model)
    hooked(outer)
    return cast(Tensor, outer(x))


def by_hand(model: nn.Module, x: Tensor) -> Tensor:
    """A checkpoint of another make: nothing tells its second run from a call of its own."""
    with torch.no_grad():
        y = plainly(model, x)

    def again(gradient: Tensor) -> None:
        with torch.enable_grad():
            plainly(model, x).backward(gradient)

    y.requires_grad_().register_hook(again)
    return y


class ByFunction(torch.autograd.Function):
    """A checkpoint that is an autograd function."""

    @staticmethod
    def forward(ctx: Any, run: Any, x: Tensor) -> Tensor:
        ctx.run, ctx.x = run, x.detach().requires_grad_()
        return cast(Tensor, run(ctx.x))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        with torch.enable_grad():
            torch.autograd.backward(ctx.run(ctx.x), gradients[0])
        return None, ctx.x.grad


def by_function(model: nn.Module, x: Tensor) -> Tensor:
    return cast(Tensor, ByFunction.apply(model, x))  # type: ignore[no-untyped-call]


AGAIN: list[Call] = [held, reentrant, nested, crosswise, inside_out, by_hooks, by_function]
CHECKPOINTS: list[Call] = [*AGAIN, moved]


def gradients(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """All gradients by name."""
    found = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return {**found, **({} if x.grad is None else {"x": x.grad})}


def assert_same(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    nonzero = {name for name, g in wanted.items() if g.any()}
    assert nonzero <= found.keys() <= wanted.keys(), found.keys() ^ wanted.keys()
    for name, g in found.items():
        torch.testing.assert_close(g, wanted[name], atol=1e-10, rtol=1e-8)


# ---------------------------------------------------------------- two adapters, one optimiser


@pytest.mark.parametrize("kind", ON)
def test_one_loss_of_two_adapters(kind: str) -> None:
    """Each gets the gradient of its own call."""
    model, x = make(ON[kind])
    one, two = copy.deepcopy(model), copy.deepcopy(model)
    pm.activate(two, "b")
    u, v = x.detach().clone().requires_grad_(), x.detach().clone().requires_grad_()
    (one(u) + two(v)).square().sum().backward()
    ya = model(x)
    pm.activate(model, "b")
    yb = model(x)
    pm.activate(model, [])
    (ya + yb).square().sum().backward()
    names: dict[int, str] = {id(p): name for name, p in model.named_parameters()}
    for name, other in (("a", one), ("b", two)):
        wanted = dict(other.named_parameters())
        for p in pm.trainable(model, name):
            assert p.grad is not None
            torch.testing.assert_close(p.grad, wanted[names[id(p)]].grad)
    assert x.grad is not None and u.grad is not None and v.grad is not None
    torch.testing.assert_close(x.grad, u.grad + v.grad)


@pytest.mark.parametrize("kind", ON)
def test_an_optimiser_from_before_a_switch_trains_whichever_acts(kind: str) -> None:
    model, x = make(ON[kind])
    optimiser = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=0.1, weight_decay=0.5)
    for name, other in ("ab", "ba", "ab"):
        pm.activate(model, name)
        before = {n: [p.detach().clone() for p in pm.trainable(model, n)] for n in "ab"}
        model(x).square().sum().backward()
        optimiser.step()
        optimiser.zero_grad()
        assert all(not torch.equal(p, q) for p, q in zip(pm.trainable(model, name), before[name], strict=True))
        assert all(torch.equal(p, q) for p, q in zip(pm.trainable(model, other), before[other], strict=True))


@pytest.mark.parametrize("kind", ON)
def test_what_was_frozen_stays_frozen_and_detaching_gives_the_flags_back(kind: str) -> None:
    model, x = make(ON[kind])
    chosen = [next(iter(pm.trainable(model, name))).requires_grad_(False) for name in "ab"]
    for names in (["b"], list[str](), ["a"]):
        pm.activate(model, names)
        with pm.disabled(model):
            pass
        assert not any(p.requires_grad for p in chosen)
    model(x).sum().backward()
    assert all(p.grad is None for p in chosen)
    pm.detach(model)
    assert all(p.requires_grad for p in model.parameters())


def test_knobs_of_two_values_in_one_loss() -> None:
    """As AntiPaSTO trains: a call keeps the value that it was made with."""
    model, x = make(KNOBBED)
    twin = copy.deepcopy(model)
    u = x.detach().clone().requires_grad_()
    pm.set(model, α=1)
    up = model(x)
    pm.set(model, α=-2)
    (up - model(x)).square().sum().backward()
    other = copy.deepcopy(twin)
    pm.set(other, α=-2)
    (twin(u) - other(u)).square().sum().backward()
    found, first, second = (gradients(m, t) for m, t in ((model, x), (twin, u), (other, u)))
    for name in found.keys() - {"x"}:
        torch.testing.assert_close(found[name], first[name] + second[name])


# ---------------------------------------------------------------- checkpoints


def to_other(model: nn.Module) -> None:
    pm.activate(model, "b")


def to_none(model: nn.Module) -> None:
    pm.activate(model, [])


def to_evaluation(model: nn.Module) -> None:
    model.eval()


def compared(adapter: Adapter, call: Call, switch: Callable[[nn.Module], None], *, off: bool = False
             ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The gradients of a checkpointed call with a switch before backward, and those of a plain one."""
    found: list[dict[str, Tensor]] = []
    model, x = make(adapter)
    for made in (call, plainly):
        mine, v = copy.deepcopy(model), x.detach().clone().requires_grad_()
        if off:
            with pm.disabled(mine):
                y = made(mine, v)
        else:
            y = made(mine, v)
        switch(mine)
        y.square().sum().backward()
        found.append(gradients(mine, v))
    return found[0], found[1]


@pytest.mark.parametrize(("kind", "call"), [*(("linear", call) for call in CHECKPOINTS),
                                            *((kind, call) for kind in ON for call in (held, reentrant, by_hooks))])
def test_a_checkpoint_runs_again_what_ran(kind: str, call: Call) -> None:
    assert_same(*compared(ON[kind], call, to_other))


@pytest.mark.parametrize("call", CHECKPOINTS, ids=lambda f: f.__name__)
@pytest.mark.parametrize("switch", [to_none, to_evaluation])
def test_whatever_is_switched(switch: Callable[[nn.Module], None], call: Call) -> None:
    assert_same(*compared(LORA, call, switch))


@pytest.mark.parametrize("call", CHECKPOINTS, ids=lambda f: f.__name__)
def test_a_call_without_adapters_stays_one(call: Call) -> None:
    found, wanted = compared(LORA, call, to_other, off=True)
    assert_same(found, wanted)
    assert "x" in found and not any(".adapters." in name for name in found)


@pytest.mark.parametrize("call", CHECKPOINTS, ids=lambda f: f.__name__)
def test_knobs_come_back(call: Call) -> None:
    assert_same(*compared(KNOBBED, call, lambda model: pm.set(model, α=-3)))


@pytest.mark.parametrize("call", [call for call in AGAIN if call is not by_hooks], ids=lambda f: f.__name__)
def test_switching_inside_a_checkpoint(call: Call) -> None:
    """The k-th call of the second run is the k-th of the first."""
    model, x = make(LORA)
    found: list[dict[str, Tensor]] = []
    for made in (call, plainly):
        mine, v = copy.deepcopy(model), x.detach().clone().requires_grad_()

        def contrast(u: Tensor, mine: nn.Module = mine) -> Tensor:
            with pm.disabled(mine):
                base = mine(u)
            return cast(Tensor, mine(u) * base)

        y = made(cast(Any, contrast), v)
        pm.activate(mine, "b")
        y.square().sum().backward()
        found.append(gradients(mine, v))
    assert_same(*found)


def test_a_backward_pass_twice() -> None:
    model, x = make(LORA)
    y = held(model, x)
    pm.activate(model, "b")
    for _ in range(2):
        x.grad = None
        model.zero_grad()
        y.sum().backward(retain_graph=True)
        found = gradients(model, x)
        pm.activate(model, [])
    pm.activate(model, "a")
    x.grad = None
    model.zero_grad()
    model(x).sum().backward()
    assert_same(found, gradients(model, x))  # pyright: ignore[reportPossiblyUnboundVariable]


@pytest.mark.parametrize("call", AGAIN, ids=lambda f: f.__name__)
@pytest.mark.parametrize("kind", ["linear", "attention"])
def test_what_cannot_come_back_is_refused(kind: str, call: Call) -> None:
    for change, piece in ((pm.merge, "merged"), (lambda m: pm.detach(m, "a"), "taken off")):
        model, x = make(ON[kind])
        model.eval()
        y = call(model, x)
        cast(Any, change)(model)
        with Refused("E511", "computed again in a backward pass", piece):
            y.sum().backward()


@pytest.mark.parametrize("call", AGAIN, ids=lambda f: f.__name__)
def test_numbers_drawn_in_training_only(call: Call) -> None:
    for given in ({"dropout": 0.5}, {}):
        model = nn.Sequential(nn.Linear(8, 8)).train()
        pm.attach(model, LORA if given else DROPPED, **cast(Any, given))
        y = call(model, torch.randn(3, 8, requires_grad=True))
        model.eval()
        with Refused("E511", "computed again", "training and evaluation"):
            y.sum().backward()


@pytest.mark.parametrize("kind", ON)
def test_a_checkpoint_of_another_make(kind: str) -> None:
    """Right while nothing was ever switched; refused then."""
    model, x = make(ON[kind])
    twin, v = copy.deepcopy(model), x.detach().clone().requires_grad_()
    by_hand(model, x).sum().backward()
    plainly(twin, v).sum().backward()
    assert_same(gradients(model, x), gradients(twin, v))
    y = by_hand(model, x)
    pm.activate(model, "b")
    with Refused("E511", "computed again", "not known"):
        y.sum().backward()
