"""The hand-written forms against the programs read literally: outputs and gradients in float64, nothing cheats."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

import padp
from padp.bench.hand import FORMS, Form, Hand
from padp.bench.hand.places import CLOVER, ReFT
from padp.bench.measure import linear_place, saved_for_backward
from padp.compiler.adapter import Adapter
from padp.compiler.library import library
from padp.compiler.literal.reference import Reference
from padp.compiler.module.site import LinearSite

# (n, m, bias); 40 = 8·5 makes GOFT's blocks end early, 96 is no power of two
SIZES = ((96, 64, True), (64, 128, False), (64, 64, True), (40, 32, True))
SMALL: Mapping[str, Mapping[str, Any]] = {
    "LoRA": {"r": 4, "α": 6}, "PiSSA": {"r": 4, "α": 6}, "AdaLoRA": {"r": 4, "steps": 9}, "DoRA": {"r": 4, "α": 6},
    "DeLoRA": {"r": 4}, "VeRA": {"r": 5}, "OFT": {"k": 8}, "BOFT": {"k": 4, "F": 2}, "GOFT": {}, "HRA": {"r": 6},
    "RoAd": {"g": 16}, "IA3": {}, "SVFT": {}, "SSVD": {"k": 8}, "AntiPaSTO": {"k": 8}, "RandLoRA": {"r": 8},
    "FourierFT": {"k": 200}, "PSOFT": {"r": 8},
}
Pair = tuple[LinearSite, Hand]


def pair(form: Form, n: int, m: int, bias: bool, hyper: Mapping[str, Any]) -> Pair:
    """The compiled adapter and the hand-written form around one base, with the same random numbers in both."""
    torch.manual_seed(0)
    base = nn.Linear(n, m, bias=bias, dtype=torch.float64).requires_grad_(False)
    adapter = cast(Adapter, padp.compile(form.adapter))
    site = cast(LinearSite, adapter(base, variant=form.variant, dtype=torch.float64, **hyper))
    module = site.only()
    tensors = {module.names[name]: module.tensors[name] for name in module.tensors}
    hand = form.make(base, tensors, adapter.settings(form.variant, **hyper).hyper)
    with torch.no_grad():
        for name, p in module.named_parameters():
            if p.requires_grad:
                p.add_(0.2 * torch.randn(p.shape, dtype=torch.float64))
                hand.get_parameter(name).copy_(p)
    return site, hand


def differences(wanted: Tensor, got: Tensor) -> float:
    assert got.shape == wanted.shape and got.dtype == wanted.dtype
    return float((got.detach() - wanted.detach()).abs().max() / wanted.detach().abs().max())


def names_of(hand: Hand) -> list[str]:
    return [name for name, p in hand.named_parameters() if not name.startswith("base.") and p.requires_grad]


@pytest.mark.parametrize("size", SIZES, ids=lambda s: f"{s[0]}to{s[1]}")
@pytest.mark.parametrize("form", FORMS, ids=lambda f: f.method)
@pytest.mark.parametrize("tokens", [(3, 70), (2,), ()], ids=["many", "few", "one"])
def test_is_what_the_program_says(form: Form, size: tuple[int, int, bool], tokens: tuple[int, ...]) -> None:
    site, hand = pair(form, *size, SMALL[form.method])
    n, m, _ = size
    x = torch.randn(*tokens, n, dtype=torch.float64, requires_grad=True)
    dy = torch.randn(*tokens, m, dtype=torch.float64)
    learned = dict(site.only().named_parameters())
    names = names_of(hand)
    assert set(names) == {name for name, p in learned.items() if p.requires_grad}
    wanted = site.reference(x)
    got = hand(x)
    assert differences(wanted, got) < 1e-11
    theirs = torch.autograd.grad(wanted, [x, *(learned[name] for name in names)], dy)
    ours = torch.autograd.grad(got, [x, *(hand.get_parameter(name) for name in names)], dy)
    for name, a, b in zip(["x", *names], theirs, ours, strict=True):
        assert differences(a, b) < 1e-9, name


@pytest.mark.parametrize("form", FORMS, ids=lambda f: f.method)
def test_evaluation_is_the_same(form: Form) -> None:
    """Also the second time, when values are cached, and after the parameters moved and training went on."""
    site, hand = pair(form, 64, 96, True, SMALL[form.method])
    for tokens in (40, 2):
        x = torch.randn(tokens, 64, dtype=torch.float64)
        for _ in range(2):
            hand.eval()
            with torch.no_grad():
                wanted = site.reference(x)
                assert differences(wanted, hand(x)) < 1e-11
                assert differences(wanted, hand(x)) < 1e-11
                hand.train()
                for name, p in site.only().named_parameters():
                    if p.requires_grad:
                        p.mul_(1.25)
                        hand.get_parameter(name).copy_(p)


@pytest.mark.parametrize("form", FORMS, ids=lambda f: f.method)
def test_leaves_the_base_alone(form: Form) -> None:
    _, hand = pair(form, 64, 64, True, SMALL[form.method])
    weight, bias = hand.base.weight.clone(), cast(Tensor, hand.base.bias).clone()
    x = torch.randn(9, 64, dtype=torch.float64, requires_grad=True)
    kept = x.detach().clone()
    hand(x).sum().backward()
    hand.eval()
    with torch.no_grad():
        hand(x)
    assert torch.equal(hand.base.weight, weight) and torch.equal(cast(Tensor, hand.base.bias), bias)
    assert torch.equal(x, kept) and hand.base.weight.grad is None


# T = 100, n = m = 64: x is 25,600 bytes, a thin product of r columns 400 r bytes. What stands beside x and parameters:
SAVED: Mapping[str, tuple[int, bool]] = {
    "LoRA": (400 * 4, True),                  # x Aᵀ
    "IA3": (0, True),
    "RoAd": (400 * 64 + 2 * 4 * 32, False),   # z, and α cos θ, α sin θ
    "SSVD": (400 * 8, False),                 # Vᵀ x (and what the small solve keeps, see below)
    "SVFT": (400 * 64 + 4 * 64, False),       # Vᵀ x, Σ + c
    "VeRA": (400 * 5, False),                 # A x
    "FourierFT": (4 * 200, True),             # scaled c
}


@pytest.mark.parametrize("method", SAVED)
def test_keeps_what_its_docstring_says(method: str) -> None:
    """Bytes for backward by hand; small k×k intermediates of the step (at most 16 matrices and vectors) come on top."""
    (form,) = [form for form in FORMS if form.method == method]
    hyper = SMALL[method]
    place = linear_place(64, 64, torch.device("cpu"), torch.float32)
    adapter = cast(Adapter, padp.compile(form.adapter))
    base = cast(nn.Linear, place.base())
    module = cast(LinearSite, adapter(base, variant=form.variant, **hyper)).only()
    hand = form.make(base, {module.names[s]: module.tensors[s] for s in module.tensors},
                     adapter.settings(form.variant, **hyper).hyper)
    saved, kept_x = saved_for_backward(hand.train(), place.input(100), place.call)
    least, x_too = SAVED[method]
    small = 4 * 16 * (8 * 8 + 8) if method == "SSVD" else 4 * 4 * 200 if method == "FourierFT" else 4 * 8 * 64
    assert least <= saved <= least + small
    assert kept_x == (25_600 if x_too else 0)


# ---------------------------------------------------------------- not at a linear layer


def attention(H: int, G: int, e: int, d: int, bias: bool) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(3)

    def random(*sizes: int) -> Tensor:
        return torch.randn(*sizes, generator=generator, dtype=torch.float64)

    weights = {"W_Q": random(H, e, d), "W_K": random(G, e, d), "W_V": random(G, e, d), "W_O": random(H, d, e)}
    return weights | ({"b_Q": random(H, e), "b_K": random(G, e), "b_V": random(G, e), "b_O": random(d)} if bias else {})


def by_head(weights: Mapping[str, Tensor], role: str, x: Tensor) -> Tensor:
    """(T, H, e)."""
    y = torch.einsum("hed,td->the", weights[f"W_{role}"], x)
    return y + weights[f"b_{role}"] if f"b_{role}" in weights else y


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(4, 2, 3, 12), (3, 3, 5, 7)], ids=str)
def test_clover(shape: tuple[int, int, int, int], bias: bool) -> None:
    H, G, e, _ = shape
    weights = attention(*shape, bias)
    adapter = cast(Adapter, padp.compile("clover"))
    hyper = adapter.settings("joint").hyper
    module = adapter.build(dict(zip("HGed", shape, strict=True)), variant="joint", hyper=hyper, weight=weights,
                           bias=None, dtype=torch.float64, device=torch.device("cpu"))
    with torch.no_grad():
        for p in module.parameters():
            p.add_(0.4 * torch.randn(p.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(5)))
    hand = CLOVER(weights, module.tensors["T_qk"], module.tensors["T_vo"])
    x = torch.randn(6, shape[3], dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()
    q = hand.queries(by_head(weights, "Q", x))
    k, v = (by_head(weights, role, x).repeat_interleave(H // G, 1) for role in "KV")
    scores = torch.softmax(torch.einsum("the,she->hts", q, k) / e**0.5, -1)
    got = torch.einsum("hde,the->td", weights["W_O"], hand.mixed(torch.einsum("hts,she->the", scores, v)))
    got = got + weights["b_O"] if bias else got
    tensors = {**weights, **{name: module.tensors[name] for name in module.tensors}}
    wanted = Reference(adapter.method("joint"), {}, {}, tensors).attention(x)
    assert differences(wanted, got) < 1e-9
    dy = torch.randn(wanted.shape, dtype=torch.float64)
    learned = dict(module.named_parameters())
    for a, b in zip(torch.autograd.grad(wanted, [x, learned["T_qk"], learned["T_vo"]], dy),
                    torch.autograd.grad(got, [x, hand.T_qk, hand.T_vo], dy), strict=True):
        assert differences(a, b) < 1e-8


def test_reft() -> None:
    adapter = cast(Adapter, padp.compile("reft"))
    hyper = adapter.settings("LoReFT", r=3).hyper
    module = adapter.build({"d": 12}, variant="LoReFT", hyper=hyper, weight=None, bias=None, dtype=torch.float64,
                           device=torch.device("cpu"))
    with torch.no_grad():
        for p in module.parameters():
            p.add_(0.4 * torch.randn(p.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(5)))
    learned = dict(module.named_parameters())
    hand = ReFT(learned["R"], learned["M"], learned["b"])
    h = torch.randn(2, 5, 12, dtype=torch.float64, requires_grad=True)
    wanted = Reference(adapter.method("LoReFT"), {}, hyper, dict(module.tensors)).forward(h)
    got = hand(h)
    assert differences(wanted, got) < 1e-11
    dy = torch.randn(h.shape, dtype=torch.float64)
    for a, b in zip(torch.autograd.grad(wanted, [h, *(learned[name] for name in "RMb")], dy),
                    torch.autograd.grad(got, [h, hand.R, hand.M, hand.b], dy), strict=True):
        assert differences(a, b) < 1e-9


def test_there_is_a_form_for_every_adapter_of_the_library() -> None:
    assert sorted([*(form.adapter for form in FORMS), "clover", "reft"]) == sorted(set(library()) - {"prelude"})


@pytest.mark.parametrize("broken", [lambda t: t * 1.001, lambda t: t + 1e-6], ids=["scaled", "shifted"])
def test_the_comparison_can_fail(broken: Callable[[Tensor], Tensor]) -> None:
    site, hand = pair(FORMS[0], 64, 64, True, SMALL["LoRA"])
    x: Any = torch.randn(3, 64, dtype=torch.float64)
    assert differences(site.reference(x), broken(hand(x))) > 1e-9
