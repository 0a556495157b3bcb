"""Attention sites: what is read from a model, the maps, and joint forms where something stands between Q and K."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import padp
import padp.models as pm
from padp.compiler.module.attention_maps import HeadMap
from padp.models.attention import HeadProjection, by_head, into_input, into_output
from padp.models.heads import Attention, read_attention
from padp.models.places import attentions, with_ancestors
from padp.models.walk import sites
from tests.support.families import Batch, Refused, cache_of, make_llama, run, with_cache
from tests.support.programs import HEADS


def read(model: Any, path: str | None = None) -> Attention:
    path = path or attentions(model)[0]
    return read_attention(path, *with_ancestors(model)[path])


def test_what_is_read(llama: Any, minilm: Any, opt: Any, t5: Any) -> None:
    assert read(llama).sizes == {"H": 4, "G": 2, "e": 8, "d": 32} and "rotary" in str(read(llama).between)
    assert read(minilm).sizes == {"H": 12, "G": 12, "e": 32, "d": 384} and read(minilm).between is None
    assert read(minilm).projection("o") is minilm.get_submodule("encoder.layer.0.attention.output.dense")
    assert read(opt).sizes == {"H": 4, "G": 4, "e": 8, "d": 32} and read(opt).between is None
    assert read(t5).sizes == {"H": 4, "G": 4, "e": 8, "d": 32} and read(t5).between is None  # its bias is added later
    assert len(attentions(t5)) == 2 + 2 * 2


def test_heads_of_another_size_than_width_over_heads() -> None:
    assert read(make_llama(head_dim=16)).sizes == {"H": 4, "G": 2, "e": 16, "d": 32}


def test_norms_and_relative_terms_are_found(llama: Any) -> None:
    from transformers import BertConfig, BertModel, Qwen3Config, Qwen3Model

    qwen = Qwen3Model(Qwen3Config(vocab_size=32, hidden_size=16, intermediate_size=16, num_hidden_layers=1,
                                  num_attention_heads=2, num_key_value_heads=1, head_dim=8))
    assert read(qwen).between == "a norm (q_norm)"
    bert = BertModel(BertConfig(vocab_size=32, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
                                intermediate_size=16))
    assert read(bert).between is None
    bert.config.position_embedding_type = "relative_key"  # of older transformers
    assert "relative_key" in str(read(bert).between)


def test_tensors_by_head_are_the_projections(llama: Any) -> None:
    attention = read(llama)
    tensors = attention.tensors()
    x, z = torch.randn(32), torch.randn(32)
    q = torch.einsum("hed,d->he", tensors["W_Q"], x).flatten()
    assert torch.allclose(q, attention.projection("q")(x), atol=1e-6)
    y = torch.einsum("hde,he->d", tensors["W_O"], z.reshape(4, 8))
    assert torch.allclose(y, attention.projection("o")(z), atol=1e-6)
    assert "b_Q" not in tensors and tensors["W_V"].shape == (2, 8, 32)


def test_heads_that_do_not_fit_are_refused(llama: Any) -> None:
    attention = llama.get_submodule("model.layers.1.self_attn")
    attention.o_proj = nn.Linear(24, 32)
    with Refused("E502", "layers.1.self_attn", "not whole heads", model=llama):
        pm.attach(llama, HEADS)
    attention.o_proj = nn.Embedding(32, 32)
    with Refused("E502", "O projection", "Embedding", model=llama):
        pm.attach(llama, HEADS)


@pytest.mark.parametrize("offset", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_maps_and_their_merged_weights(offset: bool, bias: bool) -> None:
    torch.manual_seed(0)
    H, e, d = 3, 4, 5
    map_ = HeadMap(torch.randn(H, e, e).double(), torch.randn(H, e).double() if offset else None)
    x, z = torch.randn(2, d).double(), torch.randn(2, H * e).double()
    out, into = nn.Linear(d, H * e, bias=bias).double(), nn.Linear(H * e, d, bias=bias).double()
    mapped = by_head(map_, out(x))
    for h in range(H):
        part = slice(h * e, (h + 1) * e)
        hand = out(x)[:, part] @ map_.matrix[h].T + (map_.offset[h] if map_.offset is not None else 0)
        assert torch.allclose(mapped[:, part], hand)
    W, b = into_output(map_, out.weight, out.bias)
    assert torch.allclose(nn.functional.linear(x, W, b), mapped)
    W, b = into_input(map_, into.weight, into.bias)
    assert torch.allclose(nn.functional.linear(z, W, b), into(by_head(map_, z)))


def test_per_head_maps_on_models(llama: Any, minilm: Any, opt: Any, t5: Any,
                                 batch: Batch) -> None:
    for model in (llama, minilm, opt, t5):
        own = {**batch, "decoder_input_ids": batch["input_ids"]} if model is t5 else batch
        modules = [(name, id(m)) for name, m in model.named_modules()]
        before = run(model, own)
        pm.attach(model, HEADS)
        adapted = run(model, own)
        assert not torch.allclose(adapted, before, atol=1e-3)
        with pm.disabled(model):
            assert torch.equal(run(model, own), before)
        keys = [key for key in model.state_dict() if "padp_attention.adapters.default" in key]
        assert len(keys) == 4 * len(attentions(model)) or keys
        model.train()
        (model(**own)[0].square().mean()).backward()
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in pm.trainable(model))
        model.eval()
        pm.detach(model)
        assert modules == [(name, id(m)) for name, m in model.named_modules()]
        assert torch.equal(run(model, own), before)


def test_joint_forms_need_nothing_between(llama: Any, opt: Any, minilm: Any) -> None:
    with Refused("E502", "model.layers.0.self_attn", "rotary", "variant='head'", model=llama):
        pm.attach(llama, HEADS, variant="joint")
    pm.attach(opt, HEADS, variant="joint")
    pm.attach(minilm, HEADS, variant="joint", targets=["layer.0.attention.self"])
    assert len(sites(minilm)) == 1


def test_one_adapter_a_time_and_what_others_see(llama: Any, batch: Batch) -> None:
    pm.attach(llama, HEADS, name="one")
    projection = llama.get_submodule("model.layers.0.self_attn.q_proj")
    assert isinstance(projection, HeadProjection) and projection.in_features == 32
    assert projection.weight is projection.base.weight
    with Refused("E508", "one and two", model=llama):
        pm.attach(llama, HEADS, name="two")
    pm.attach(llama, HEADS, name="two", active=False, seed=4)
    one = run(llama, batch)
    pm.activate(llama, "two")
    assert not torch.equal(run(llama, batch), one)
    pm.detach(llama, "two")
    pm.activate(llama, "one")
    assert torch.equal(run(llama, batch), one)


def test_maps_that_leave_the_bias_alone(batch: Batch) -> None:
    """q = A W x: the bias is added outside the map, and read from the model when the map is used."""
    llama = make_llama(attention_bias=True)
    with torch.no_grad():
        for p in llama.parameters():
            p.add_(0.05)
    before = run(llama, batch)
    pm.attach(llama, HEADS, variant="plain", s=0.0)
    assert torch.allclose(run(llama, batch), before, atol=1e-5)
    pm.detach(llama)
    pm.attach(llama, HEADS, variant="plain")
    projection = llama.get_submodule("model.layers.0.self_attn.q_proj")
    x = torch.randn(3, 32)
    T = sites(llama)[0].module("default").tensors["T"]
    by_hand = torch.einsum("hij,bhj->bhi", torch.eye(8) + T, (x @ projection.weight.T).unflatten(-1, (4, 8))).flatten(1)
    assert torch.allclose(projection(x), by_hand + projection.bias, atol=1e-5)
    adapted = run(llama, batch)
    pm.merge(llama)
    assert torch.allclose(run(llama, batch), adapted, atol=1e-5)
    pm.unmerge(llama)
    half = pm.attach(make_llama(attention_bias=True).bfloat16(), HEADS, variant="plain")
    assert run(half, batch).dtype == torch.bfloat16


def test_a_penalty_reads_the_weights_of_now(llama: Any) -> None:
    """Σ_h ‖T_h W_Q,h‖² with T = 2 I, over the layers; after a change of W_Q it is the new one's."""
    pm.attach(llama, padp.compile("""
adapter T on attention(W_Q ∈ (ℝ^{e×d})^H, W_K ∈ (ℝ^{e×d})^G, W_V ∈ (ℝ^{e×d})^G, W_O ∈ (ℝ^{d×e})^H) where H = G·p
T ∈ (ℝ^{e×e})^H: learned, init = 2 · I                    # not the identity at init
Z ← T @ W_Q
y ← attn(q = Z @ x)
minimise Σ_{h ∈ range(H)} ‖Z_h‖_F²
"""))
    weights = [p for name, p in llama.named_parameters() if name.endswith("q_proj.base.weight")]
    for _ in range(2):
        wanted = 4 * torch.stack([w.square().sum() for w in weights]).sum()
        assert weights and torch.allclose(pm.penalty(llama), wanted)
        with torch.no_grad():
            weights[0].mul_(3)


def test_one_graph_with_the_maps_inside(batch: Batch) -> None:
    llama = make_llama(num_hidden_layers=1)
    pm.attach(llama, HEADS)
    torch.compiler.reset()
    compiled = torch.compile(llama, fullgraph=True, backend="eager")
    assert torch.allclose(run(compiled, batch), run(llama, batch), atol=1e-6)


def test_the_cache_holds_what_the_attention_uses(llama: Any) -> None:
    pm.attach(llama, HEADS)
    ids = torch.randint(3, 64, (1, 6))
    with torch.no_grad():
        whole = llama(ids).logits
        cache = cache_of(llama(ids[:, :4], use_cache=True))
        rest = llama(ids[:, 4:], **with_cache(llama, cache)).logits
    assert torch.allclose(whole[:, 4:], rest, atol=1e-5)
