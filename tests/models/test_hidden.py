"""Hidden sites: which tokens are edited, under padding, in generation, with checkpoints and copies."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import padp.models as pm
from padp.models.hidden import HiddenSite, put_back, take_out
from padp.models.positions import Positions, edited, read_positions
from padp.models.walk import sites
from tests.support.families import Batch, Refused, cache_of, make_llama, run, with_cache
from tests.support.programs import LORA, REFT

# ---------------------------------------------------------------- positions


@pytest.mark.parametrize(("text", "meant"), [
    ("all", Positions(everything=True)), ("f7", Positions(7)), ("l3", Positions(0, 3)), ("f7+l7", Positions(7, 7)),
    ("l2 + f1", Positions(1, 2)), ("first 4", Positions(4)), ("first 1+last 2", Positions(1, 2))])
def test_reading_positions(text: str, meant: Positions) -> None:
    assert read_positions(text) == meant


@pytest.mark.parametrize("text", ["", "f", "7", "f0", "f1+f2", "f1+x2", "all+f1", 7])
def test_positions_that_are_not_understood(text: object) -> None:
    with Refused("E507", repr(text), "f7+l7"):
        read_positions(text)


def by_hand(positions: Positions, mask: list[bool]) -> list[int]:
    """The tokens that are edited, in the order in which they are taken out."""
    prompt = [i for i, one in enumerate(mask) if one]
    first, last = min(positions.first, len(prompt)), min(positions.last, len(prompt))
    if first + last > len(prompt):
        first, last = min(first, len(prompt) // 2), min(last, len(prompt) // 2)
    return prompt[:first] + prompt[len(prompt) - last:]


@given(st.integers(0, 4), st.integers(0, 4),
       st.lists(st.lists(st.booleans(), min_size=6, max_size=6), min_size=1, max_size=4))
def test_edited_tokens(first: int, last: int, rows: list[list[bool]]) -> None:
    if first + last == 0:
        return
    positions, mask = Positions(first, last), torch.tensor(rows)
    where = edited(positions, mask)
    h = torch.arange(float(mask.numel())).reshape(*mask.shape, 1)
    new = put_back(h, -1 - take_out(h, where), where)
    for b, row in enumerate(rows):
        wanted = by_hand(positions, row)
        assert [t for t in range(6) if where.mask[b, t]] == sorted(wanted)
        assert [t for t in range(6) if new[b, t] != h[b, t]] == sorted(wanted)
        assert all(new[b, t] == -1 - h[b, t] for t in wanted)  # each token got its own new value


# ---------------------------------------------------------------- on models


def block_output(model: Any, path: str, call: Callable[[], Any]) -> Tensor:
    """What a block puts out, after its hooks."""
    seen: list[Tensor] = []
    handle = model.get_submodule(path).register_forward_hook(
        lambda _m, _a, output: seen.append(output[0] if isinstance(output, tuple) else output))
    with torch.no_grad():
        call()
    handle.remove()
    return seen[0]


def changed(model: Any, batch: Batch, path: str = "model.layers.1") -> list[list[int]]:
    """The tokens of each example at which a block's output is edited."""
    after = block_output(model, path, lambda: model(**batch))
    with pm.disabled(model):
        before = block_output(model, path, lambda: model(**batch))
    return [[t for t in range(after.shape[1]) if not torch.equal(after[b, t], before[b, t])] for b in range(len(after))]


@pytest.mark.parametrize(("positions", "right", "left", "full"), [
    ("f2+l2", [0, 1, 3, 4], [2, 3, 5, 6], [0, 1, 5, 6]), ("f3", [0, 1, 2], [2, 3, 4], [0, 1, 2]), ("l1", [4], [6], [6]),
    ("all", [0, 1, 2, 3, 4], [2, 3, 4, 5, 6], list(range(7))),
    ("f4+l4", [0, 1, 3, 4], [2, 3, 5, 6], [0, 1, 2, 4, 5, 6])])
def test_positions_follow_the_mask(positions: str, right: list[int], left: list[int], full: list[int], llama: Any,
                                   batch: Batch) -> None:
    pm.attach(llama, REFT, layers=[1], positions=positions)
    assert changed(llama, batch) == [full, right]
    padded = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"].flip(1)}
    assert changed(llama, padded) == [full, left]
    assert changed(llama, {"input_ids": batch["input_ids"]}) == [full, full]  # no mask: the whole sequence


def test_padding_does_not_matter(llama: Any) -> None:
    pm.attach(llama, REFT, positions="f2+l3")
    tokens = torch.randint(3, 64, (1, 6))
    alone = run(llama, {"input_ids": tokens})
    padded = torch.cat([torch.zeros(1, 3, dtype=torch.long), tokens], 1)
    mask = torch.tensor([[0] * 3 + [1] * 6])
    left = run(llama, {"input_ids": padded, "attention_mask": mask, "position_ids": mask.cumsum(1) - 1})
    assert torch.allclose(left[:, 3:], alone, atol=1e-5)
    right = run(llama, {"input_ids": padded.flip(1).clone()[:, :9].index_copy(1, torch.arange(6), tokens),
                        "attention_mask": mask.flip(1)})
    assert torch.allclose(right[:, :6], alone, atol=1e-5)


def test_generated_tokens_are_not_edited(llama: Any) -> None:
    pm.attach(llama, REFT, positions="f1+l1")
    prompt = torch.randint(3, 64, (2, 5))
    mask = torch.tensor([[1] * 5, [0] * 2 + [1] * 3])
    lengths: list[int] = []
    site = sites(llama)[0]
    handle = site.module("default").register_forward_pre_hook(lambda _m, args: lengths.append(args[0].shape[1]))
    out = llama.generate(prompt, attention_mask=mask, max_new_tokens=4, do_sample=False)
    handle.remove()
    assert lengths == [2]  # once, at the prompt's two tokens
    # the same step by step: the prompt edited with the cache it fills, then plain decoding
    with torch.no_grad():
        first = llama(prompt, attention_mask=mask, position_ids=(mask.cumsum(1) - 1).clamp(min=0), use_cache=True)
        cache, token = cache_of(first), first.logits[:, -1:].argmax(-1)
        with pm.disabled(llama):
            for step in range(4):
                assert torch.equal(out[:, 5 + step], token[:, 0])
                mask = torch.cat([mask, torch.ones(2, 1, dtype=torch.long)], 1)
                position = mask.sum(1, keepdim=True) - 1
                next_ = llama(token, attention_mask=mask, position_ids=position, **with_cache(llama, cache))
                token = next_.logits[:, -1:].argmax(-1)


def test_cached_tokens_without_a_mask_are_not_edited(llama: Any) -> None:
    pm.attach(llama, REFT, positions="all")
    prompt, token = torch.randint(3, 64, (1, 5)), torch.tensor([[7]])
    with torch.no_grad():
        cache = cache_of(llama(prompt, use_cache=True))
        again = copy.deepcopy(cache)
        after = block_output(llama, "model.layers.0", lambda: llama(token, **with_cache(llama, again)))
        with pm.disabled(llama):
            before = block_output(llama, "model.layers.0", lambda: llama(token, **with_cache(llama, cache)))
    assert torch.equal(after, before)


def test_a_decoder_follows_its_own_mask(t5: Any) -> None:
    pm.attach(t5, REFT, r"decoder\.block\.1", positions="f1+l1")
    batch = {"input_ids": torch.randint(3, 64, (2, 6)), "attention_mask": torch.tensor([[1] * 6, [1] * 2 + [0] * 4]),
             "decoder_input_ids": torch.randint(3, 64, (2, 6))}
    assert changed(t5, batch, "decoder.block.1") == [[0, 5], [0, 5]]
    batch["decoder_attention_mask"] = torch.tensor([[1] * 4 + [0] * 2, [1] * 6])
    assert changed(t5, batch, "decoder.block.1") == [[0, 3], [0, 5]]


def test_bert(minilm: Any, batch: Batch) -> None:
    pm.attach(minilm, REFT, layers=[5], positions="f1+l2")
    assert changed(minilm, batch, "encoder.layer.5") == [[0, 5, 6], [0, 3, 4]]
    ids, mask = batch["input_ids"], batch["attention_mask"]
    with torch.no_grad():  # the mask given by position
        assert torch.equal(minilm(ids, mask).last_hidden_state, minilm(**batch).last_hidden_state)


def test_masks_that_cannot_be_read_are_refused(llama: Any, batch: Batch) -> None:
    pm.attach(llama, REFT)
    square = torch.ones(7, 7, dtype=torch.bool).tril()[None, None].expand(2, 1, 7, 7)
    with Refused("E511", "2-D attention mask"):
        llama(batch["input_ids"], attention_mask=square)
    stacks = [site.reader.here.stack for site in sites(llama) if isinstance(site, HiddenSite)]
    assert stacks == [[], [], []]  # an error leaves nothing behind
    run(llama, batch)


def test_blocks_of_any_torch_model() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.LayerNorm(6)

        def forward(self, h: Tensor) -> tuple[Tensor, str]:
            return self.norm(h), "rest"

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.ModuleList(Block() for _ in range(3))

        def forward(self, h: Tensor) -> Tensor:
            for block in self.blocks:
                h, rest = block(h)
                assert rest == "rest"
            return h

    model = Model()
    h = torch.randn(2, 4, 6)
    before = model(h)
    pm.attach(model, REFT, layers=[0], positions="all")
    assert not torch.allclose(model(h), before)
    model(torch.randn(5, 6))  # positions="all" needs no axis of tokens
    pm.detach(model)
    assert torch.equal(model(h), before)
    pm.attach(model, REFT, layers=[2], positions="l1")
    assert [t for t in range(4) if not torch.allclose(model(h)[:, t], before[:, t])] == [3]
    with Refused("E511", "2 axes"):
        model(torch.randn(5, 6))
    with Refused("E507", "positions"):
        pm.attach(model, REFT, layers=[1], name="two", positions="middle")


def test_two_adapters_at_one_block(llama: Any) -> None:
    pm.attach(llama, REFT, name="one")
    with Refused("E508", "model.layers.0", "one and two", model=llama):
        pm.attach(llama, REFT, name="two")
    pm.attach(llama, REFT, name="two", active=False, positions="l1")
    batch = {"input_ids": torch.randint(3, 64, (1, 5))}
    assert changed(llama, batch) == [[0, 1, 2, 3, 4]]  # by way of layer 0, all tokens differ after layer 1
    pm.activate(llama, "two")
    assert changed(llama, batch, "model.layers.0") == [[4]]


def test_copies_are_bound_to_themselves(llama: Any, batch: Batch) -> None:
    pm.attach(llama, REFT)
    before = run(llama, batch)
    other = copy.deepcopy(llama)
    with torch.no_grad():
        for p in pm.trainable(other):
            p.mul_(3.0)
    theirs = run(other, batch)
    assert not torch.equal(theirs, before) and torch.equal(run(llama, batch), before)
    readers = [{site.reader for site in sites(m)} for m in (llama, other)]
    assert len(readers[0]) == len(readers[1]) == 1 and readers[0] != readers[1]
    pm.detach(other)
    assert torch.equal(run(llama, batch), before) and not torch.equal(run(other, batch), theirs)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in other.modules())


def test_gradients_reach_only_edited_tokens_and_nothing_is_written_in_place(llama: Any, batch: Batch) -> None:
    pm.attach(llama, REFT, layers=[2], positions="f2+l2")
    out = llama(**batch)
    out.logits.square().mean().backward()
    for p in pm.trainable(llama):
        assert p.grad is not None and torch.isfinite(p.grad).all() and p.grad.abs().sum() > 0


@pytest.mark.parametrize("reentrant", [False, True])
def test_recomputed_blocks_see_the_prompt_of_their_own_call(reentrant: bool) -> None:
    """Two calls with different masks, then one backward: each block is recomputed with the mask of its first run."""

    class Blocks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.blocks = nn.ModuleList(nn.Linear(6, 6) for _ in range(2))

        def forward(self, h: Tensor, attention_mask: Tensor, again: bool) -> Tensor:
            for block in self.blocks:
                h = checkpoint(block, h, use_reentrant=reentrant) if again else block(h)
            return h

    grads = []
    one, two = torch.tensor([[1, 1, 0, 0]]), torch.tensor([[1, 1, 1, 1]])
    h = torch.randn(1, 4, 6, requires_grad=True)
    for again in (False, True):
        model = Blocks().train()
        pm.attach(model, REFT, positions="l1")
        (model(h, one, again).square().sum() + 2 * model(2 * h, two, again).square().sum()).backward()
        grads.append([p.grad.clone() for p in pm.trainable(model) if p.grad is not None])
    assert len(grads[0]) == 4 and all(torch.allclose(a, b, atol=1e-6) for a, b in zip(*grads, strict=True))


def test_beside_linear_adapters_and_in_training(batch: Batch) -> None:
    llama = make_llama().train()
    pm.attach(llama, LORA, ["v_proj"])
    pm.attach(llama, REFT, name="reft", layers="all")
    optimiser = torch.optim.Adam(pm.trainable(llama), lr=1e-2)
    losses = []
    labels = batch["input_ids"].clone()
    labels[:, :3] = -100
    for _ in range(8):
        loss = llama(**batch, labels=labels).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] - 0.05


def test_torch_compile_follows_the_mask(llama: Any, batch: Batch) -> None:
    pm.attach(llama, REFT, positions="f1+l2")
    compiled = torch.compile(llama, backend="eager")
    assert torch.allclose(run(compiled, batch), run(llama, batch), atol=1e-6)
    other = {**batch, "attention_mask": batch["attention_mask"].flip(0)}
    assert torch.allclose(run(compiled, other), run(llama, other), atol=1e-6)
