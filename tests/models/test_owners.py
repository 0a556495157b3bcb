"""Who owns a module: wrappers, models that share modules, and refusals that leave everything as it was."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor, distributed, nn

import padp
import padp.models as pm
from padp.models.record import record_of
from tests.support.families import Refused
from tests.support.programs import HEADS, LORA, PISSA, REFT, ROTATION, VERA


class Task(nn.Module):
    """A head on a body that may be another model's too."""

    def __init__(self, body: nn.Module, outputs: int) -> None:
        super().__init__()
        self.body, self.head = body, nn.Linear(8, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.head(self.body(x)))


def body() -> nn.Sequential:
    return nn.Sequential(nn.Linear(8, 8), nn.LayerNorm(8), nn.Linear(8, 8))


# ---------------------------------------------------------------- everything that a refusal could change


def everything(model: nn.Module) -> object:
    """All state of a model and of torch that a call could change."""
    modules: list[object] = []
    for path, module in model.named_modules():
        tables = {key: [(k, id(v)) for k, v in value.items()] for key, value in vars(module).items()
                  if isinstance(value, dict)}
        plain = {key: value for key, value in vars(module).items() if isinstance(value, (bool, int, str, tuple))}
        modules.append((path, id(module), type(module), tables, plain))
    tensors = [(name, id(t), t.requires_grad, t.grad is None, repr(t.detach().flatten().tolist()), t._version)
               for name, t in (*model.named_parameters(), *model.named_buffers())]
    surroundings = (torch.get_rng_state().tolist(), random.getstate(), torch.is_grad_enabled(),
                    torch.get_default_dtype(), torch.is_inference_mode_enabled())
    return modules, tensors, surroundings, id(record_of(model).attached) if record_of(model).attached else None


def attached() -> Task:
    model = Task(body(), 2)
    pm.attach(model, LORA, ["body.0", "body.2"], name="one", modules_to_save=["head"])
    pm.attach(model, ROTATION, ["body.0"], name="turn", active=False)
    return model


def merged() -> Task:
    return pm.merge(attached())


def infinite() -> Task:
    model = Task(body(), 2)
    with torch.no_grad():
        cast(Any, model.body)[2].weight[0, 0] = float("nan")
    return model


def overflowing() -> Task:
    model = attached()
    with torch.no_grad():
        list(pm.trainable(model))[2].fill_(float("inf"))
    return model


def plain() -> Task:
    return Task(body(), 2)


def shared() -> Task:
    one = attached()
    two = Task(one.body, 3)
    vars(two)["keep"] = one.body
    return two


def large_first() -> nn.Module:
    return pm.attach(nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 64)), VERA, ["0"], name="small")


REFUSED: dict[str, tuple[Callable[[], nn.Module], Callable[[Any], object]]] = {
    "no such target": (plain, lambda m: pm.attach(m, LORA, ["nothing"])),
    "no such exclusion": (plain, lambda m: pm.attach(m, LORA, exclude=["nothing"])),
    "no linear layer": (plain, lambda m: pm.attach(m, LORA, ["body.1"])),
    "no attention": (plain, lambda m: pm.attach(m, HEADS)),
    "no blocks": (plain, lambda m: pm.attach(m, REFT)),
    "bad value": (plain, lambda m: pm.attach(m, LORA, r="two")),
    "unknown value": (plain, lambda m: pm.attach(m, LORA, q=3)),
    "broken relation": (plain, lambda m: pm.attach(m, ROTATION, k={"body.2": 3, "*": 4})),
    "not finite": (infinite, lambda m: pm.attach(m, PISSA)),
    "name taken": (attached, lambda m: pm.attach(m, LORA, name="one")),
    "bad name": (attached, lambda m: pm.attach(m, LORA, name="a.b")),
    "not together": (attached, lambda m: pm.attach(m, ROTATION, name="other")),
    "saved twice": (attached, lambda m: pm.attach(m, LORA, ["body.2"], name="other", modules_to_save=["head"])),
    "saved around a site": (plain, lambda m: pm.attach(m, LORA, modules_to_save=["body"])),
    "dropout of no sum": (plain, lambda m: pm.attach(m, ROTATION, dropout=0.5)),
    "shared too small": (large_first, lambda m: pm.attach(m, VERA, ["1"], name="large")),
    "another model's": (shared, lambda m: pm.attach(m, LORA, ["body.0"], name="one")),
    "another model's elsewhere": (shared, lambda m: pm.attach(m, LORA, ["head"], name="new")),
    "activate unknown": (attached, lambda m: pm.activate(m, ["one", "nobody"])),
    "activate together": (attached, lambda m: pm.activate(m, ["one", "turn"])),
    "activate merged": (merged, lambda m: pm.activate(m, "turn")),
    "attach merged": (merged, lambda m: pm.attach(m, LORA, name="new")),
    "restart merged": (merged, pm.restart),
    "merge twice": (merged, pm.merge),
    "merge not finite": (overflowing, pm.merge),
    "detach unknown": (attached, lambda m: pm.detach(m, "nobody")),
    "detach one of merged": (merged, lambda m: pm.detach(m, "one")),
    "set unknown": (attached, lambda m: pm.set(m, α=2, β=3)),
    "load nothing": (plain, lambda m: pm.load(m, "no/such/directory")),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_refusal_leaves_everything_as_it_was(case: str) -> None:
    make, call = REFUSED[case]
    torch.manual_seed(0)
    model = make().train()
    next(iter(model.parameters())).requires_grad_(True)
    before = everything(model)
    with pytest.raises(padp.PadpError):
        call(model)
    assert everything(model) == before


@pytest.mark.parametrize("case", ["sizes", "name", "merged", "another model's"])
def test_a_refused_load_leaves_everything_as_it_was(case: str, tmp_path: Path) -> None:
    pm.save(pm.attach(plain(), LORA, ["body.0", "body.2"], name="one", modules_to_save=["head"]), tmp_path)
    model = {"sizes": lambda: Task(nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4), nn.Linear(4, 8)), 2),
             "name": attached, "merged": merged, "another model's": shared}[case]()
    before = everything(model)
    with pytest.raises(padp.PadpError):
        pm.load(model, tmp_path)
    assert everything(model) == before


# ---------------------------------------------------------------- one body, two models


@pytest.mark.parametrize("call", [
    lambda m: pm.attach(m, LORA, ["body.0"], name="two"), lambda m: pm.attach(m, LORA, ["head"], name="two"),
    lambda m: pm.activate(m, "one"), pm.detach, pm.merge, pm.restart, pm.update, lambda m: list(pm.trainable(m)),
    lambda m: pm.set(m, α=2), lambda m: pm.save(m, "nowhere"), lambda m: pm.disabled(m).__enter__()])
def test_another_models_adapters_are_left_alone(call: Callable[[nn.Module], object]) -> None:
    one = attached()
    two = Task(one.body, 3)
    before, flags = everything(one), [p.requires_grad for p in two.parameters()]
    with Refused("E511", "body.0", "attached through another model"):
        call(two)
    assert everything(one) == before and flags == [p.requires_grad for p in two.parameters()]
    pm.detach(one)
    pm.attach(two, LORA, ["body.0"])


def test_a_copy_of_a_model_owns_its_adapters() -> None:
    one = attached()
    two = copy.deepcopy(one)
    pm.detach(two)
    pm.attach(two, LORA)
    assert list(record_of(one).attached) == ["one", "turn"] and list(record_of(two).attached) == ["default"]
    with Refused("E511", "attached through another model"):
        pm.attach(Task(copy.deepcopy(one).body, 2), LORA)
    with Refused("E511", "attached through another model"):
        pm.attach(one.body, LORA)


# ---------------------------------------------------------------- wrappers


@pytest.fixture(scope="module")
def group(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path_factory.mktemp('group')}/store", rank=0,
                                   world_size=1)
    yield
    distributed.destroy_process_group()


def sharded(model: nn.Module) -> nn.Module:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    return cast(nn.Module, fully_shard(model, mesh=init_device_mesh("cpu", (1,))))


WRAPPERS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "DistributedDataParallel": nn.parallel.DistributedDataParallel, "DataParallel": nn.DataParallel,
    "fully_shard": sharded, "torch.compile": lambda model: cast(nn.Module, torch.compile(model))}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.usefixtures("group")
@pytest.mark.parametrize("kind", WRAPPERS)
def test_wrappers_are_refused_by_name(kind: str, tmp_path: Path) -> None:
    """Attached to the wrapper, inside it, or to a model that has a wrapped part; attached first it works."""
    pm.save(pm.attach(plain(), LORA, ["body.0"]), tmp_path)
    inner = plain()
    outer = WRAPPERS[kind](inner)
    around = nn.ModuleDict({"part": outer})
    tried = [outer]
    if kind in ("DistributedDataParallel", "fully_shard"):
        tried += [inner, inner.body]
    if kind != "torch.compile":
        tried += [around]
    for model in tried:
        if kind == "fully_shard" and model is inner.body:
            with Refused("E502", "sharded over several processes"):
                pm.attach(model, LORA)
            continue
        with Refused("E511", kind, "attach", "wrap"):
            pm.attach(model, LORA)
        with Refused("E511", kind):
            pm.load(model, tmp_path)
    assert all(p.requires_grad for p in inner.parameters())
    first = pm.attach(plain(), LORA, ["body.0", "body.2"])
    WRAPPERS[kind](first)(torch.randn(3, 8)).sum().backward()
    assert all(p.grad is not None for p in pm.trainable(first))
