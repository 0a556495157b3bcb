"""What belongs to a call stays with it: threads, errors and interrupts, backward passes, copies."""

from __future__ import annotations

import copy
import io
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import padp.models as pm
from padp.models.hidden import HiddenSite
from padp.models.walk import sites
from tests.support.families import Batch, make_llama, run
from tests.support.programs import HEADS, LORA, REFT


def batches() -> list[Batch]:
    """Of several sizes, padded on the left, on the right, and with no mask."""
    generator = torch.Generator().manual_seed(0)
    made: list[Batch] = []
    for k in range(4):
        ids = torch.randint(3, 64, (1 + k % 2, 5 + k), generator=generator)
        mask = torch.ones_like(ids)
        mask[0, :k] = 0
        made.append({"input_ids": ids} if k == 2 else {"input_ids": ids, "attention_mask": mask if k % 2 else
                                                       mask.flip(1)})
    return made


def in_threads(work: Callable[[int], None], count: int = 4) -> None:
    """Run ``work(n)`` in threads that begin together; what one of them raises is raised here."""
    errors: list[BaseException] = []
    gate = threading.Barrier(count)

    def guarded(n: int) -> None:
        try:
            gate.wait()
            work(n)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(n,)) for n in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


@pytest.mark.parametrize("adapter", [REFT, LORA, HEADS], ids=lambda a: a.name)
def test_threads_that_share_a_model(adapter: Any) -> None:
    model = make_llama(num_hidden_layers=2)
    pm.attach(model, adapter, variant="head" if adapter is HEADS else None)
    given = batches()
    wanted = [run(model, batch) for batch in given]

    def serve(n: int) -> None:
        for j in range(12):
            k = (n + j) % len(given)
            assert torch.allclose(run(model, given[k]), wanted[k], atol=1e-5)

    in_threads(serve)


def test_threads_that_train_one_model_with_recomputation() -> None:
    """Each has labels and masks of its own; gradients add up to what one thread after the other gives."""
    model = make_llama(num_hidden_layers=2).train()
    pm.attach(model, REFT, positions="f1+l1")
    getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)()

    def step(n: int) -> None:
        batch = batches()[n % 2]
        labels = batch["input_ids"].clone()
        labels[:, : 2 + n] = -100
        loss = model(**batch, labels=labels).loss
        loss.backward()

    for n in range(4):
        step(n)
    wanted = [p.grad.clone() for p in pm.trainable(model) if p.grad is not None]
    model.zero_grad()
    in_threads(step)
    assert len(wanted) == 4
    for p, grad in zip(pm.trainable(model), wanted, strict=True):
        assert p.grad is not None and torch.allclose(p.grad, grad, atol=1e-5)


def test_what_is_told_holds_in_its_own_thread(llama: Any) -> None:
    pm.attach(llama, REFT, positions="l1")
    ids = torch.randint(3, 64, (1, 8))
    with pm.prompt(llama, length=3):
        short = run(llama, {"input_ids": ids})
    whole = run(llama, {"input_ids": ids})
    assert not torch.allclose(short, whole, atol=1e-3)

    def serve(n: int) -> None:
        for _ in range(10):
            if n % 2:
                assert torch.allclose(run(llama, {"input_ids": ids}), whole, atol=1e-5)
            else:
                with pm.prompt(llama, length=3):
                    assert torch.allclose(run(llama, {"input_ids": ids}), short, atol=1e-5)

    in_threads(serve)


class Stops(nn.Module):
    """Raises when it is told to."""

    error: BaseException | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.error is not None:
            raise self.error
        return x


class Body(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Linear(6, 6) for _ in range(2))
        self.stops = Stops()

    def forward(self, h: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        for block in self.blocks:
            h = block(h)
        return self.stops(h)  # type: ignore[no-any-return]


class Whole(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = Body()

    def forward(self, h: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        out: Tensor = self.body(h)
        return out


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt(), SystemExit()], ids=lambda e: type(e).__name__)
def test_an_ended_call_leaves_nothing_behind(error: BaseException) -> None:
    """Not even an interrupt, after which torch runs no hook: later calls of parts do not take its mask for theirs."""
    model = Whole().eval()
    pm.attach(model, REFT, positions="l1", targets=r"body\.blocks\.\d")
    h, mask = torch.randn(1, 4, 6), torch.tensor([[1, 1, 0, 0]])
    with torch.no_grad():
        wanted = [model(h, mask), model(h), model.body(h), model.body.blocks[0](h)]
        assert not torch.equal(wanted[0], wanted[1])
        calls: list[Callable[[], Tensor]] = [lambda: model(h, mask), lambda: model(h), lambda: model.body(h),
                                             lambda: model.body.blocks[0](h)]
        for k, call in enumerate(calls):
            model.body.stops.error = error
            with pytest.raises(type(error)):
                model(h, mask)
            model.body.stops.error = None
            assert torch.equal(call(), wanted[k])


# ---------------------------------------------------------------- what runs again in backward


def gradients(model: nn.Module) -> list[Tensor]:
    found = [p.grad.clone() for p in pm.trainable(model) if p.grad is not None]
    model.zero_grad()
    return found


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("what", ["block", "body"])
def test_a_part_that_is_run_again_has_its_own_call(reentrant: bool, what: str) -> None:
    """A mask that only the outermost call was given is known when an inner part is run again without it."""

    class Model(Whole):
        again = False

        def forward(self, h: Tensor, attention_mask: Tensor | None = None) -> Tensor:
            if not self.again:
                return super().forward(h)
            if what == "body":
                made: Tensor = checkpoint(self.body, h, use_reentrant=reentrant)
                return made
            for block in self.body.blocks:
                h = checkpoint(block, h, use_reentrant=reentrant)
            return h

    one, two = torch.tensor([[1, 1, 0, 0]]), torch.tensor([[1, 1, 1, 0]])
    h = torch.randn(1, 4, 6, requires_grad=True)
    found = []
    for again in (False, True):
        model = Model().train()
        model.again = again
        pm.attach(model, REFT, positions="l1", targets=r"body\.blocks\.\d")
        (model(h, one).square().sum() + 2 * model(2 * h, two).square().sum()).backward()
        found.append(gradients(model))
    assert len(found[0]) == 4
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(*found, strict=True))


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("moved", [False, True])
def test_one_input_with_two_prompts(reentrant: bool, moved: bool) -> None:
    """Both calls give the block the very same memory, or none that was there before."""

    class Model(Whole):
        again = False

        def forward(self, h: Tensor, attention_mask: Tensor | None = None) -> Tensor:
            def block(t: Tensor) -> Tensor:
                made: Tensor = self.body.blocks[0](t.clone() if moved else t)
                return made

            made: Tensor = checkpoint(block, h, use_reentrant=reentrant) if self.again else block(h)
            return made

    h = torch.randn(1, 4, 6, requires_grad=True)
    one, two = torch.tensor([[1, 1, 0, 0]]), torch.tensor([[1, 1, 1, 0]])
    found = []
    for again in (False, True):
        model = Model().train()
        model.again = again
        pm.attach(model, REFT, positions="l1", targets=r"body\.blocks\.0")
        (model(h, one).square().sum() + 2 * model(h, two).square().sum()).backward()
        found.append(gradients(model))
    assert len(found[0]) == 2 and all(torch.allclose(a, b, atol=1e-6) for a, b in zip(*found, strict=True))


def test_a_backward_pass_inside_a_call() -> None:
    """The call around it is not the one of the block that is run again."""

    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.whole = Whole()

        def forward(self, h: Tensor, attention_mask: Tensor) -> Tensor:
            def again(t: Tensor) -> Tensor:
                made: Tensor = checkpoint(self.whole, t, torch.tensor([[1, 1, 0, 0]]), use_reentrant=False)
                return made

            again(h).square().sum().backward()
            return h

    found = []
    h = torch.randn(1, 4, 6, requires_grad=True)
    model = Outer().train()
    pm.attach(model, REFT, positions="l1", targets=r"whole\.body\.blocks\.\d")
    model(h, torch.tensor([[1, 1, 1, 1]]))
    found.append(gradients(model))
    model.whole(h, torch.tensor([[1, 1, 0, 0]])).square().sum().backward()
    found.append(gradients(model))
    assert len(found[0]) == 4 and all(torch.allclose(a, b, atol=1e-6) for a, b in zip(*found, strict=True))


# ---------------------------------------------------------------- copies


def generated(model: Any, **more: Any) -> Tensor:
    ids = torch.arange(3, 11)[None]
    settings = {"attention_mask": torch.ones_like(ids), "max_new_tokens": 3, "do_sample": False, "output_scores": True,
                "return_dict_in_generate": True, "eos_token_id": None, **more}
    return torch.stack(model.generate(ids, **settings).scores)


def test_copies_generate_for_themselves(llama: Any) -> None:
    pm.attach(llama, REFT, positions="f1+l1")
    wanted = generated(llama, use_cache=False)
    file = io.BytesIO()
    torch.save(llama, file)
    file.seek(0)
    for other in (copy.deepcopy(llama), torch.load(file, weights_only=False)):
        assert torch.equal(generated(other, use_cache=False), wanted)
        with torch.no_grad():
            for p in pm.trainable(other):
                p.mul_(3.0)
        assert not torch.allclose(generated(other, use_cache=False), wanted, atol=1e-3)
        assert torch.equal(generated(llama, use_cache=False), wanted)
        pm.detach(other)
        assert "generate" not in other.__dict__


def test_a_generate_of_the_users_own_comes_back(llama: Any) -> None:
    own = llama.generate
    llama.generate = own
    pm.attach(llama, REFT)
    assert llama.generate is not own
    pm.detach(llama)
    assert llama.generate is own


def test_a_replica_runs_with_its_own_tensors(llama: Any, batch: Batch) -> None:
    """As those of DataParallel: modules of their own under the hooks of the original."""
    pm.attach(llama, REFT, layers=[0], positions="l1")
    block = llama.model.layers[0]
    replica = block._replicate_for_data_parallel()
    site = next(site for site in sites(llama) if isinstance(site, HiddenSite))
    theirs = copy.deepcopy(site)
    with torch.no_grad():
        for p in theirs.parameters():
            p.mul_(3.0)
    replica._modules = {**block._modules, "padp_hidden": theirs}
    h = torch.randn(1, 4, 32)
    rotary = llama.model.rotary_emb(h, torch.arange(4)[None])
    with torch.no_grad():
        ours, other = (part(h, position_embeddings=rotary) for part in (block, replica))
    assert torch.equal(ours[:, :3], other[:, :3]) and not torch.allclose(ours[:, 3], other[:, 3])
