"""Weights that are elsewhere, or nowhere yet, and what surrounds an attachment: right numbers or a refusal by name."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

import padp
import padp.models as pm
from padp import Adapter
from padp.models.walk import sites
from tests.support.families import Refused, make_opt
from tests.support.programs import BIAS, HEADS, LORA, PISSA, RANKED, REFT, ROTATION, VERA

ADAPTERS = {a.name: a for a in (LORA, ROTATION, PISSA, VERA, BIAS, RANKED, REFT, HEADS)}


def make() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 8), nn.GELU(), nn.Linear(8, 8)).eval()


def fresh(adapter: Adapter) -> tuple[nn.Module, dict[str, Any]]:
    """A model for an adapter, and a batch."""
    if adapter.site == "linear":
        return make(), {"input": torch.randn(3, 8, generator=torch.Generator().manual_seed(1))}
    return make_opt(), {"input_ids": torch.arange(12).reshape(2, 6)}


def called(model: Any, batch: dict[str, Any]) -> Tensor:
    out = model(**batch)
    return cast(Tensor, out if isinstance(out, Tensor) else out.logits)


# ---------------------------------------------------------------- what surrounds a call


@contextlib.contextmanager
def of_dtype(dtype: torch.dtype) -> Any:
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


AROUND: dict[str, Callable[[], Any]] = {
    "inference_mode": torch.inference_mode, "no_grad": torch.no_grad, "meta": lambda: torch.device("meta"),
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16), "float64": lambda: of_dtype(torch.float64),
    "bfloat16": lambda: of_dtype(torch.bfloat16)}


@pytest.mark.parametrize("around", AROUND)
@pytest.mark.parametrize("name", ADAPTERS)
def test_attaching_does_not_depend_on_what_surrounds_it(name: str, around: str, tmp_path: Path) -> None:
    """The same tensors as anywhere else, trainable ones; attached, loaded or started anew."""
    adapter = ADAPTERS[name]
    plain, batch = fresh(adapter)
    pm.attach(plain, adapter)
    pm.save(plain, tmp_path)
    wanted = plain.state_dict()
    puts: dict[str, Callable[[nn.Module], object]] = {
        "attach": lambda model: pm.attach(model, adapter), "load": lambda model: pm.load(model, tmp_path),
        "restart": lambda model: pm.restart(pm.attach(model, adapter))}
    for put in puts.values():
        model, _ = fresh(adapter)
        with AROUND[around]():
            put(model)
        found = model.state_dict()
        assert found.keys() == wanted.keys()
        for key, tensor in found.items():
            assert not tensor.is_inference() and tensor.dtype is wanted[key].dtype and torch.equal(tensor, wanted[key])
        called(model, batch).sum().backward()
        assert any(p.grad is not None for p in pm.trainable(model))
    assert torch.get_default_dtype() is torch.float32


@pytest.mark.parametrize("around", AROUND)
def test_one_layer_and_merging_in_whatever_surrounds(around: str) -> None:
    layer = PISSA(nn.Linear(8, 8, dtype=torch.float32), seed=1)
    other = copy.deepcopy(cast(Any, layer).base)
    with AROUND[around]():
        twin = PISSA(other, seed=1)
        model = pm.attach(copy.deepcopy(nn.Sequential(cast(Any, layer).base)), LORA)
        pm.merge(model)
        kept = cast(Any, model[0]).base.weight
        assert not kept.is_inference()
    assert all(torch.equal(a, b) for a, b in zip(layer.state_dict().values(), twin.state_dict().values(), strict=True))
    anywhere = pm.merge(pm.attach(copy.deepcopy(nn.Sequential(cast(Any, layer).base)), LORA))
    assert torch.equal(kept, cast(Any, anywhere[0]).base.weight)


# ---------------------------------------------------------------- nowhere yet


@pytest.mark.parametrize("name", ADAPTERS)
def test_built_on_meta_then_given_weights_then_started(name: str) -> None:
    adapter = ADAPTERS[name]
    model, batch = fresh(adapter)
    weights = copy.deepcopy(model.state_dict())
    wanted = pm.attach(copy.deepcopy(model), adapter)
    empty = pm.attach(model.to("meta"), adapter)
    with Refused("E511", "no values"):
        pm.restart(empty)
    empty.to_empty(device="cpu")
    with torch.no_grad():
        for p in empty.parameters():
            p.fill_(float("nan"))
        for key, tensor in empty.state_dict().items():
            if key in weights:
                tensor.copy_(weights[key])
        for (_, there), (_, here) in zip(model.named_buffers(), wanted.named_buffers(), strict=False):
            if there.shape == here.shape and not there.is_meta:
                there.copy_(here)
    with Refused("E511", "never started", "padp.restart(model)"):
        called(empty, batch)
    if adapter.site != "hidden":
        with Refused("E511"):
            pm.merge(empty)
    assert pm.restart(empty) is empty
    assert torch.equal(called(empty, batch), called(wanted, batch))
    assert {k: v.shape for k, v in empty.state_dict().items()} == {k: v.shape for k, v in wanted.state_dict().items()}
    called(empty, batch).sum().backward()
    shared = [site.module("default").A for site in sites(empty)] if adapter is VERA else []
    assert len({id(p) for p in shared}) <= 1


def test_loading_every_tensor_starts_an_adapter_too() -> None:
    model, batch = fresh(LORA)
    pm.attach(model, LORA)
    state = copy.deepcopy(model.state_dict())
    for assign in (False, True):
        other = pm.attach(make().to("meta"), LORA)
        if not assign:
            other.to_empty(device="cpu")
        part = {key: tensor for key, tensor in state.items() if not key.endswith(".B")}
        other.load_state_dict(part, strict=False, assign=assign)
        with Refused("E511", "never started"):
            called(other, batch)
        other.load_state_dict(state, assign=assign)
        assert torch.equal(called(other, batch), called(model, batch))


def test_on_meta_shapes_are_enough() -> None:
    model = pm.attach(make().to("meta"), LORA)
    assert model(torch.randn(3, 8, device="meta")).shape == (3, 8)
    with Refused("E511", "never started"):
        model(torch.randn(3, 8))


def test_restart_keeps_parameters_and_what_others_hold() -> None:
    """After training: as attached, the same objects, the other adapter untouched, knobs and steps of the beginning."""
    model, batch = fresh(RANKED)
    pm.attach(model, RANKED, name="one", modules_to_save=["2"], targets=["0"])
    pm.attach(model, LORA, name="two", targets=["0"], seed=3)
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    parameters = {key: id(p) for key, p in model.named_parameters()}
    optimiser = torch.optim.SGD(pm.trainable(model), lr=0.1)
    pm.set(model, "two", α=9)
    called(model, batch).sum().backward()
    optimiser.step()
    pm.update(model)
    trained = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    pm.restart(model, "one")
    for key, tensor in model.state_dict().items():
        assert torch.equal(tensor, (before if ".one." in key else trained)[key]), key
    pm.restart(model)
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())
    assert parameters == {key: id(p) for key, p in model.named_parameters()}
    assert all(site.module("two").knobs == {"α": 4.0} for site in sites(model))
    with Refused("E510", "nobody", model=model):
        pm.restart(model, "nobody")
    pm.merge(model)
    with Refused("E511", "merged", model=model):
        pm.restart(model)


def test_restart_follows_the_base() -> None:
    model, batch = fresh(PISSA)
    pm.attach(model, PISSA)
    with torch.no_grad():
        for site in sites(model):
            cast(Any, site).base.weight.copy_(torch.randn(8, 8))
    other = copy.deepcopy(model)
    pm.attach(pm.detach(other), PISSA)
    assert torch.equal(called(pm.restart(model), batch), called(other, batch))


# ---------------------------------------------------------------- elsewhere


@pytest.fixture(params=["cpu", "disk"])
def offload(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[nn.Module], nn.Module]:
    accelerate = pytest.importorskip("accelerate")

    def put(model: nn.Module) -> nn.Module:
        cpu = torch.device("cpu")
        if request.param == "cpu":
            accelerate.cpu_offload(model, execution_device=cpu)
        else:
            accelerate.disk_offload(model, str(tmp_path), execution_device=cpu)
        return model

    return put


def test_attached_to_offloaded_layers(offload: Callable[[nn.Module], nn.Module]) -> None:
    """An adapter that leaves W to the layer's own call is right; what reads it is refused by name."""
    x = torch.randn(3, 8)
    for adapter in (LORA, ROTATION, VERA, BIAS):
        model = offload(make())
        wanted = pm.attach(make(), adapter)
        pm.attach(model, adapter)
        assert all(p.device.type == "cpu" for p in pm.trainable(model))
        torch.testing.assert_close(model(x), wanted(x))
        model(x).sum().backward()
        with Refused("E504", "offloaded"):
            pm.merge(model)
    model = offload(make())
    for adapter in (PISSA, padp.compile("dora")):
        with Refused("E502", "0: its weight is offloaded", "reads W", model=model):
            pm.attach(model, adapter)


def test_offloaded_after_attaching(offload: Callable[[nn.Module], nn.Module]) -> None:
    for names in (["a"], ["a", "b"]):
        model = make()
        for name in "ab":
            pm.attach(model, LORA, name=name)
        pm.activate(model, names)
        offload(model)
        with Refused("E511", "offloaded after it was attached", "offload the model first"):
            model(torch.randn(3, 8))


@pytest.mark.parametrize("adapter", ["lora", "dora", "vera"])
@pytest.mark.parametrize("state", ["disabled", "inactive", "detached"])
def test_offloaded_after_attaching_and_no_adapter_acts(offload: Callable[[nn.Module], nn.Module], adapter: str,
                                                       state: str) -> None:
    model, x = make(), torch.randn(3, 8)
    wanted = model(x)
    pm.attach(model, adapter, modules_to_save=["2"] if adapter == "lora" else (), targets=["0"])
    offload(model)
    with contextlib.ExitStack() as stack:
        if state == "disabled":
            stack.enter_context(pm.disabled(model))
        elif state == "inactive":
            pm.activate(model, [])
        else:
            pm.detach(model)
        for _ in range(2):
            assert torch.equal(model(x), wanted)
