"""Layers that are not what their class says are found, and refused by name for what would be wrong."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

import padp
import padp.models as pm
from tests.support.families import Refused
from tests.support.programs import BIAS, LORA, PISSA, ROTATION

F = nn.functional
DORA = padp.compile("dora")


class Scaled(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        return F.linear(x, 0.5 * self.weight, self.bias)


class Grouped(nn.Linear):
    """Its weight is two blocks of a block diagonal."""

    def __init__(self) -> None:
        super().__init__(4, 8, bias=False)

    def forward(self, x: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        blocks = self.weight.unflatten(0, (2, -1))
        return torch.einsum("...gi,goi->...go", x.unflatten(-1, (2, -1)), blocks).flatten(-2)


class Paired(nn.Linear):
    def forward(self, x: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        return F.linear(x, self.weight), self.bias


class Asking(nn.Linear):
    def forward(self, x: Tensor, scale: float) -> Tensor:  # type: ignore[override]
        return F.linear(x, self.weight, self.bias) * scale


class Faithful(nn.Linear):
    """Another way to the same: it counts its calls, and drops in training."""

    def __init__(self) -> None:
        super().__init__(8, 8)
        self.calls = 0
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        self.calls += 1
        cast(Tensor, self.seen).add_(1)
        return F.dropout(x @ self.weight.T + self.bias, 0.5, self.training)


def patched() -> nn.Linear:
    layer = nn.Linear(8, 8)
    cast(Any, layer).forward = lambda x: F.linear(x, layer.weight.abs(), layer.bias)
    return layer


class Fp8(nn.Linear):
    def __init__(self) -> None:
        super().__init__(8, 8)
        self.weight = nn.Parameter(self.weight.detach().to(torch.float8_e4m3fn), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        return F.linear(x, self.weight.to(x.dtype), self.bias)


def int8() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torchao.quantization import Int8WeightOnlyConfig, quantize_

        model = nn.Sequential(nn.Linear(64, 64))
        quantize_(model, Int8WeightOnlyConfig())
    return model[0]


def nf4() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import bitsandbytes as bnb

        return nn.Sequential(cast(Any, bnb.nn).Linear4bit(64, 64, quant_type="nf4")).to("cpu")[0]


UNLIKE: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "scaled": (lambda: Scaled(8, 8), "is not W x + b"), "grouped": (Grouped, "fails on vectors of 4"),
    "tuple": (lambda: Paired(8, 8), "gives tuple"), "more arguments": (lambda: Asking(8, 8), "scale"),
    "patched": (patched, "is not W x + b"), "lazy": (lambda: nn.LazyLinear(4), "does not exist yet"),
    "fp8": (Fp8, "FP8 (float8_e4m3fn), with a scale apart"), "nf4": (nf4, "nf4 by bitsandbytes")}


@pytest.mark.parametrize("kind", UNLIKE)
def test_what_is_no_linear_map_of_its_weight_is_refused_by_name(kind: str) -> None:
    """Named, by hand, and by "all-linear", which leaves nothing out in silence; without it the rest is fine."""
    make, piece = UNLIKE[kind]
    plain = nn.Linear(8, 8)
    model = nn.ModuleDict({"odd": make(), "plain": plain})
    for targets in ("all-linear", ["odd"]):
        with Refused("E502", "odd", piece, "exclude", model=model):
            pm.attach(model, LORA, cast(Any, targets))
    with Refused("E502", piece):
        LORA(make())
    pm.targets(model)
    pm.attach(model, LORA, exclude=["odd"])
    pm.summary(model)
    pm.detach(model)
    assert model["plain"] is plain


@pytest.mark.parametrize("adapter", [DORA, PISSA], ids=lambda a: a.name)
def test_numbers_that_only_the_layer_reads(adapter: padp.Adapter) -> None:
    model = nn.Sequential(int8())
    with Refused("E502", "0: its weight is int8 by torchao", "reads W", model=model):
        pm.attach(model, adapter)


def test_an_adapter_that_leaves_w_to_the_layer_works_on_any_weight() -> None:
    model, x = nn.Sequential(int8()), torch.randn(3, 64)
    base = model(x)
    pm.attach(model, LORA)
    tensors = cast(Any, model[0]).tensors
    torch.testing.assert_close(model(x), base + 2 * (x @ tensors["A"].T @ tensors["B"].T))
    with Refused("E504", "0: its weight is int8 by torchao", model=model):
        pm.merge(model)
    with Refused("E504", "int8 by torchao"):
        cast(Any, model[0]).merge()


def test_trying_a_layer_leaves_no_trace() -> None:
    layer = Faithful().train()
    model = nn.Sequential(layer)
    before, state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    for adapter in (LORA, ROTATION, DORA):
        pm.attach(model, adapter)
        pm.merge(model)
        pm.unmerge(model)
        pm.detach(model)
    assert layer.calls == 0 and layer.training and torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def made_by_hook(kind: str) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        layer = nn.Linear(8, 8)
        match kind:
            case "weight_norm":
                return nn.utils.weight_norm(layer)
            case "spectral_norm":
                return nn.utils.spectral_norm(layer)
            case _:
                prune.l1_unstructured(layer, "weight", amount=0.5)
                return layer


@pytest.mark.parametrize("kind", ["weight_norm", "spectral_norm", "pruning"])
def test_weights_that_a_hook_computes(kind: str) -> None:
    """What leaves W to the layer's call is right; what reads it is refused, and so is merging."""
    model, x = nn.Sequential(made_by_hook(kind)).eval(), torch.randn(3, 8)
    base = model(x)
    for adapter in (DORA, PISSA):
        with Refused("E502", "0: its weight is computed anew before each call", model=model):
            pm.attach(model, adapter)
    for adapter in (LORA, BIAS, ROTATION):
        pm.attach(model, adapter, s=0.0)
        torch.testing.assert_close(model(x), base)
        with Refused("E504", "computed anew", model=model):
            pm.merge(model)
        pm.detach(model)


def test_parametrisations_are_followed() -> None:
    model, x = nn.Sequential(parametrizations.weight_norm(nn.Linear(8, 8))).eval(), torch.randn(3, 8)
    for adapter in (LORA, DORA, PISSA):
        pm.attach(model, adapter)
        torch.testing.assert_close(model(x), cast(Any, model[0]).reference(x))
        pm.detach(model)


@pytest.mark.parametrize("hook", ["forward", "pre"])
def test_hooks_that_change_what_comes_out_do_not_merge(hook: str) -> None:
    layer = nn.Linear(8, 8)
    if hook == "forward":
        layer.register_forward_hook(lambda module, args, y: 2 * y)  # pyright: ignore[reportOperatorIssue]
    else:
        layer.register_forward_pre_hook(lambda module, args: (args[0].relu(),))
    model = pm.attach(nn.Sequential(layer), LORA)
    with Refused("E504", "0", "is not W x + b", model=model):
        pm.merge(model)
    watched = nn.Linear(8, 8)
    watched.register_forward_hook(lambda module, args, y: None)
    pm.merge(pm.attach(nn.Sequential(watched), LORA))


# ---------------------------------------------------------------- read and not called


class Mixer(nn.Module):
    """``read``: how it reads the weight of ``inner``; it calls it when ``calls``."""

    def __init__(self, read: str, calls: str) -> None:
        super().__init__()
        self.outer, self.inner = nn.Linear(8, 8), nn.Linear(8, 8)
        self.listed = nn.ModuleList([nn.Linear(8, 8)])
        self.read, self.calls = read, calls

    def forward(self, x: Tensor) -> Tensor:
        x = self.outer(x)
        inner = cast(nn.Linear, self.listed[0] if self.read == "in a list" else self.inner)
        if self.read == "dtype":
            x = x.to(inner.weight.dtype)
        if self.calls == "always" or self.calls == ("train" if self.training else "eval"):
            return cast(Tensor, inner(x))
        return x @ inner.weight.T + inner.bias if self.read != "never" else x


@pytest.mark.parametrize("read", ["product", "in a list", "dtype"])
@pytest.mark.parametrize("calls", ["never", "train", "eval"])
def test_a_weight_that_is_read_without_a_call(read: str, calls: str) -> None:
    """Refused by name in the mode where the layer is not called, again and again, in whatever order."""
    model = nn.Sequential(Mixer(read, calls))
    pm.attach(model, LORA, ["inner", "outer", "listed.0"])
    path = "0.listed.0" if read == "in a list" else "0.inner"
    x = torch.randn(3, 8)
    for twin in (copy.deepcopy(model), model):
        for mode in ("train", "eval", "eval", "train"):
            twin.train(mode == "train")
            if calls == mode:
                twin(x).sum().backward()
            else:
                with Refused("E511", path, "Mixer reads this layer's weight and does not call it", "exclude"):
                    twin(x)
                with pm.disabled(twin):
                    twin(x)
    pm.detach(model)
    pm.attach(model, LORA, ["outer"])
    model(x)


@pytest.mark.parametrize("read", ["dtype", "never"])
def test_what_calls_its_layers_is_let_alone(read: str) -> None:
    """Where nothing is read, nothing stays behind: no hook, no cost."""
    model = nn.Sequential(Mixer(read, "always"), Mixer("never", "never"))
    pm.attach(model, LORA)
    for mode in (True, False):
        model.train(mode)
        model(torch.randn(3, 8)).sum().backward()
    first = cast(Any, model[0])
    assert bool(first._forward_hooks) == (read == "dtype") == bool(first.inner._forward_pre_hooks)
    pm.detach(model)
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in model.modules())  # pyright: ignore[reportPrivateUsage]


def test_mamba() -> None:
    from transformers import MambaConfig, MambaForCausalLM

    torch.manual_seed(0)
    model = MambaForCausalLM(MambaConfig(vocab_size=50, hidden_size=16, state_size=4, num_hidden_layers=1,
                                         time_step_rank=4))
    ids = torch.randint(0, 50, (2, 7))
    pm.attach(model, LORA)
    with Refused("E511", "dt_proj", "MambaMixer reads this layer's weight"):
        model(ids)
    pm.detach(model)
    pm.attach(model, LORA, exclude=["dt_proj"])
    model(ids, labels=ids).loss.backward()
    assert all(p.grad is not None for p in pm.trainable(model))
