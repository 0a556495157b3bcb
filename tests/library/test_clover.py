"""CLOVER against the paper's formulas, head by head, and its compiled maps against its literal reading."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, TypeAlias, cast

import pytest
import torch
from torch import Tensor, nn

import padp
from padp.compiler.adapter import Adapter
from padp.compiler.literal.reference import Reference
from padp.compiler.module.module import AdapterModule
from tests.support.common import close

Tensors: TypeAlias = Mapping[str, Tensor]
Shape: TypeAlias = "tuple[int, int, int, int]"  # heads, groups, e, d
VARIANTS = ("joint", "head", "seed")
SHAPES: tuple[Shape, ...] = ((4, 2, 3, 12), (3, 3, 5, 7), (4, 1, 2, 9))
ADAPTER = cast(Adapter, padp.compile("clover"))


def attention(shape: Shape, bias: bool = True) -> dict[str, Tensor]:
    """The weights of an attention, by head."""
    H, G, e, d = shape
    generator = torch.Generator().manual_seed(sum(shape))

    def random(*sizes: int) -> Tensor:
        return torch.randn(*sizes, generator=generator, dtype=torch.float64)

    weights = {"W_Q": random(H, e, d), "W_K": random(G, e, d), "W_V": random(G, e, d), "W_O": random(H, d, e)}
    biases = {"b_Q": random(H, e), "b_K": random(G, e), "b_V": random(G, e), "b_O": random(d)}
    return {**weights, **(biases if bias else {})}


def tokens(shape: Shape, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(6, shape[3], generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(dtype)


def softmax_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """(H, T, e) each; k and v may have fewer heads."""
    k, v = (s.repeat_interleave(len(q) // len(s), 0) for s in (k, v))
    return torch.softmax(q @ k.mT / math.sqrt(q.shape[-1]), -1) @ v


def projected(t: Tensors, role: str, x: Tensor) -> Tensor:
    y = torch.einsum("hed,td->hte", t[f"W_{role}"], x)
    return y + t[f"b_{role}"][:, None] if f"b_{role}" in t else y


def out(t: Tensors, z: Tensor) -> Tensor:
    y = torch.einsum("hde,hte->td", t["W_O"], z)
    return y + t["b_O"] if "b_O" in t else y


def base(t: Tensors, x: Tensor) -> Tensor:
    """The attention as it is."""
    return out(t, softmax_attention(*(projected(t, role, x) for role in "QKV")))


def built(variant: str, t: Tensors, shape: Shape, dtype: torch.dtype = torch.float64) -> AdapterModule:
    return ADAPTER.build(dict(zip("HGed", shape, strict=True)), variant=variant, hyper=ADAPTER.settings(variant).hyper,
                         weight=t, bias=None, dtype=dtype, device=torch.device("cpu"))


def moved(module: AdapterModule, spread: float = 0.4) -> AdapterModule:
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for p in module.parameters():
            p.add_(spread * torch.randn(p.shape, generator=generator, dtype=torch.float64))
    module.drop_cache()
    return module


def mapped(module: AdapterModule, t: Tensors, x: Tensor) -> Tensor:
    """The attention with the compiled maps: after the projections of Q, K and V, before that of O."""
    maps = module.head_maps(t)

    def changed(role: str, z: Tensor) -> Tensor:
        if role not in maps:
            return z
        z = torch.einsum("hij,htj->hti", maps[role].matrix, z)
        offset = maps[role].offset
        return z if offset is None else z + offset[:, None]

    z = softmax_attention(*(changed(role.lower(), projected(t, role, x)) for role in "QKV"))
    return out(t, changed("o", z))


def literal(module: AdapterModule, t: Tensors, x: Tensor) -> Tensor:
    """The program read literally."""
    tensors = {**t, **{name: module.tensors[name] for name in module.tensors}}
    return Reference(ADAPTER.method(module.variant), {}, {}, tensors).attention(x)


def signed_svd(M: Tensor, rank: int) -> tuple[Tensor, Tensor, Tensor]:
    U, S, Vh = torch.linalg.svd(M, full_matrices=False)
    U, S, Vh = U[..., :rank], S[..., :rank], Vh[..., :rank, :]
    sign = torch.sign(U.gather(-2, U.abs().argmax(-2, keepdim=True)))
    return U * sign, S, Vh * sign.mT


def with_bias(t: Tensors, role: str) -> Tensor:
    """[W, b], with a column of zeros where there is no bias."""
    W = t[f"W_{role}"]
    return torch.cat([W, t.get(f"b_{role}", W.new_zeros(W.shape[:2]))[..., None]], -1)


def by_hand(variant: str, t: Tensors, learned: Tensors, x: Tensor) -> Tensor:
    """joint, seed: score_h = x̃ᵀ U T Vᵀ x̃ / √e and P_h (x̃ᵀ F) T E; head: Tᵀ Qᵀ x̃ for Q and V. x̃ = [x; 1]."""
    H, e = t["W_Q"].shape[:2]
    one = torch.cat([x, x.new_ones(len(x), 1)], -1)
    group = torch.arange(H) // (H // len(t["W_K"]))
    if variant == "head":
        streams: dict[str, Tensor] = {"K": projected(t, "K", x)}
        for role, name in (("Q", "T_q"), ("V", "T_v")):
            Q, R = torch.linalg.qr(with_bias(t, role).mT)
            Q = Q * torch.sign(R.diagonal(dim1=-2, dim2=-1))[:, None]
            streams[role] = one @ Q @ learned[name]
        return out(t, softmax_attention(streams["Q"], streams["K"], streams["V"]))
    U, S, Vh = signed_svd(with_bias(t, "Q").mT @ with_bias(t, "K")[group], e)
    E, Z, F = signed_svd(t["W_O"] @ with_bias(t, "V")[group], e)
    T, M = (learned["T_qk"], learned["T_vo"]) if variant == "joint" else \
        (torch.diag_embed(S + learned["ΔS_qk"]), torch.diag_embed(Z + learned["ΔS_vo"]))
    P = torch.softmax(one @ U @ T @ Vh @ one.T / math.sqrt(e), -1)
    y = (P @ (one @ F.mT) @ (E @ M).mT).sum(0)
    return y + t["b_O"] if "b_O" in t else y


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "plain"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("variant", VARIANTS)
class TestClover:
    def test_starts_as_the_attention_it_changes(self, variant: str, shape: Any, bias: bool) -> None:
        t, x = attention(shape, bias), tokens(shape)
        module = built(variant, t, shape)
        close(literal(module, t, x), base(t, x))
        close(mapped(module, t, x), base(t, x))

    def test_is_the_papers_formula(self, variant: str, shape: Any, bias: bool) -> None:
        t, x = attention(shape, bias), tokens(shape)
        module = moved(built(variant, t, shape))
        wanted = by_hand(variant, t, module.tensors, x)
        assert (wanted - base(t, x)).abs().max() > 1e-2
        close(literal(module, t, x), wanted, 1e-9)
        close(mapped(module, t, x), wanted, 1e-8)

    def test_gradients_are_those_of_the_formula(self, variant: str, shape: Any, bias: bool) -> None:
        t, x = attention(shape, bias), tokens(shape)
        module = moved(built(variant, t, shape))
        leaves = list(module.parameters())
        weights = torch.randn(len(x), shape[3], generator=torch.Generator().manual_seed(3), dtype=torch.float64)
        fast, slow = (torch.autograd.grad((y * weights).sum(), leaves)
                      for y in (mapped(module, t, x), by_hand(variant, t, module.tensors, x)))
        for one, other in zip(fast, slow, strict=True):
            assert (one - other).abs().max() <= 1e-7 * max(1.0, other.abs().max().item())

    def test_count_and_what_is_kept(self, variant: str, shape: Any, bias: bool) -> None:
        """The formula is the number; nothing of a head's e×d is kept, only e×e."""
        H, G, e, _ = shape
        module = built(variant, attention(shape, bias), shape)
        formula = ADAPTER.count_of(variant)
        value = formula.subs({s: {"H": H, "G": G, "p": H // G, "e": e}[str(s)] for s in formula.free_symbols})
        assert value == sum(p.numel() for p in module.parameters())
        assert all(b.numel() <= H * e * e for b in module.buffers())

    def test_eval_keeps_what_training_computes(self, variant: str, shape: Any, bias: bool) -> None:
        t, x = attention(shape, bias), tokens(shape)
        module = moved(built(variant, t, shape))
        wanted = mapped(module, t, x).detach()
        module.eval()
        with torch.no_grad():
            close(mapped(module, t, x), wanted, 1e-12)
            close(mapped(module, t, x), wanted, 1e-12)
        moved(module, 0.1)
        with torch.no_grad():
            assert not torch.allclose(mapped(module, t, x), wanted)


def test_only_the_head_form_leaves_queries_and_keys_apart() -> None:
    t = attention(SHAPES[0])
    assert [built(v, t, SHAPES[0]).joint for v in VARIANTS] == [True, False, True]


def test_heads_that_are_wider_than_the_model_are_refused() -> None:
    with pytest.raises(padp.PadpError, match="E501"):
        built("head", attention((2, 2, 9, 5)), (2, 2, 9, 5))


@pytest.mark.parametrize("variant", VARIANTS)
def test_float32_starts_as_the_base_to_rounding(variant: str) -> None:
    t, x = {k: v.float() for k, v in attention(SHAPES[1]).items()}, tokens(SHAPES[1], torch.float32)
    close(mapped(built(variant, t, SHAPES[1], torch.float32), t, x), base(t, x), 2e-5)


class Attention(nn.Module):
    """An attention of nn.Linear projections, for surgery."""

    def __init__(self, d: int, heads: int, groups: int, size: int) -> None:
        super().__init__()
        self.q_proj, self.o_proj = nn.Linear(d, heads * size), nn.Linear(heads * size, d)
        self.k_proj, self.v_proj = nn.Linear(d, groups * size), nn.Linear(d, groups * size)
        self.num_heads, self.num_key_value_heads, self.head_dim = heads, groups, size

    def forward(self, x: Tensor) -> Tensor:
        streams = [p(x).unflatten(-1, (-1, self.head_dim)) for p in (self.q_proj, self.k_proj, self.v_proj)]
        heads = softmax_attention(*(s.transpose(0, 1) for s in streams))
        return cast(Tensor, self.o_proj(heads.transpose(0, 1).flatten(1)))


@pytest.mark.parametrize("variant", VARIANTS)
def test_on_a_module_it_trains_and_merges(variant: str) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Identity(), Attention(12, 4, 2, 3)).double()
    x = tokens(SHAPES[0])
    before = model(x).detach()
    padp.attach(model, ADAPTER, variant=variant)
    close(model(x), before)
    learned = [p for p in model.parameters() if p.requires_grad]
    model(x).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in learned)
    with torch.no_grad():
        for p in learned:
            p.add_(0.3 * torch.randn_like(p))
        after = model(x)
        assert (after - before).abs().max() > 1e-3
        padp.merge(model)
        close(model(x), after)
        padp.unmerge(model)
        padp.detach(model)
        assert torch.equal(model(x), before)
