"""Other weights for the base of an attached adapter: what was computed from the old ones follows, or it is refused."""

from __future__ import annotations

import copy
import pickle
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

import padp
from padp.compiler.module.site import LinearSite
from padp.models.attention import AttentionSite
from padp.models.walk import sites
from tests.support.common import Case, close, inputs, learned, only, randomise, trained

FOLLOW = [Case("delora", hyper={"r": 4}), Case("psoft", hyper={"r": 4}), Case("ssvd", hyper={"k": 4}),
          Case("svft", hyper={"d": 1}), Case("antipasto", hyper={"k": 3})]
STARTED = [Case("pissa", hyper={"r": 4}), Case("dora", hyper={"r": 4})]

# q of each head in an orthonormal basis of its projection: kept values, and nothing learned that starts from W
TURNED = """
adapter Turned on attention(W_Q ∈ (ℝ^{e×d})^H, W_K ∈ (ℝ^{e×d})^G, W_V ∈ (ℝ^{e×d})^G,
                            W_O ∈ (ℝ^{d×e})^H) where H = G·p, e ≤ d
T ∈ (ℝ^{e×e})^H: learned, init = 0
N, L ← qr(W_Qᵀ)
y ← attn(q = Tᵀ @ Nᵀ @ x)
"""


def others(base: nn.Module) -> dict[str, Tensor]:
    torch.manual_seed(9)
    return {key: torch.randn_like(t) for key, t in base.state_dict().items()}


def outputs_agree(layer: LinearSite, x: Tensor) -> None:
    """In training and with kept values, the layer is what the program means on the weights of now."""
    with torch.no_grad():
        wanted = layer.reference(x)
        close(layer.train()(x), wanted, 1e-9)
        close(layer.eval()(x), wanted, 1e-9)


@pytest.mark.parametrize("case", FOLLOW, ids=str)
def test_kept_values_follow_the_base(case: Case) -> None:
    layer, x = trained(case), inputs(case, 5)
    layer.eval()
    with torch.no_grad():
        before = layer(x)
    own = {key: p.detach().clone() for key, p in learned(layer).items()}
    layer.base.load_state_dict(others(layer.base))
    assert all(torch.equal(p, own[key]) for key, p in learned(layer).items())
    outputs_agree(layer, x)
    with torch.no_grad():
        assert not torch.allclose(layer(x), before)


@pytest.mark.parametrize("assign", [False, True])
@pytest.mark.parametrize("case", FOLLOW, ids=str)
def test_a_dict_of_the_model_with_base_weights_only(case: Case, assign: bool) -> None:
    model, x = nn.Sequential(trained(case)), inputs(case, 5)
    site = cast(LinearSite, model[0])
    model.load_state_dict({f"0.base.{k}": t for k, t in others(site.base).items()}, strict=False, assign=assign)
    outputs_agree(site, x)


@pytest.mark.parametrize("case", [*FOLLOW, *STARTED], ids=str)
def test_a_whole_dict_is_taken_as_it_is(case: Case) -> None:
    """With other base weights in it: nothing is computed, every tensor is the dict's, bit for bit."""
    torch.manual_seed(3)
    linear = nn.Linear(case.n, case.m, dtype=torch.float64)
    one, other = trained(case), cast(LinearSite, case.adapter(linear, variant=case.variant, **case.hyper))
    nn.Sequential(one).load_state_dict(nn.Sequential(other).state_dict())
    assert all(torch.equal(t, other.state_dict()[key]) for key, t in one.state_dict().items())
    outputs_agree(one, inputs(case, 5))
    if case in FOLLOW:  # what the dict brought counts for that dict only
        one.base.load_state_dict(others(one.base))
        outputs_agree(one, inputs(case, 5))


@pytest.mark.parametrize("case", STARTED, ids=str)
def test_learned_tensors_that_started_from_other_weights_are_refused(case: Case) -> None:
    layer = trained(case)
    before = {key: t.clone() for key, t in layer.state_dict().items()}
    with pytest.raises(padp.PadpError, match="started from those that were there") as refused:
        layer.base.load_state_dict(others(layer.base))
    assert refused.value.diagnostics[0].code == "E511"
    layer.base.load_state_dict({key: t.clone() for key, t in layer.base.state_dict().items()})  # the same again
    assert all(torch.equal(t, before[key]) for key, t in layer.state_dict().items())


def test_a_merged_layer_takes_no_other_weights() -> None:
    layer = trained(FOLLOW[0])
    layer.merge()
    with pytest.raises(padp.PadpError, match="is merged: unmerging would bring back"):
        layer.base.load_state_dict(others(layer.base))
    layer.load_state_dict({key: t.clone() for key, t in layer.state_dict().items()})


@pytest.mark.parametrize("case", FOLLOW, ids=str)
def test_an_assigned_weight(case: Case) -> None:
    layer = trained(case)
    cast(Any, layer).weight = nn.Parameter(others(layer.base)["weight"], requires_grad=False)
    outputs_agree(layer, inputs(case, 5))


def test_all_adapters_of_a_site_follow() -> None:
    model = nn.Sequential(nn.Linear(12, 8).double())
    padp.attach(model, padp.compile("lora"), r=4, name="plain")
    padp.attach(model, padp.compile("ssvd"), k=4, name="turned", active=False)
    site = cast(LinearSite, model[0])
    site.base.load_state_dict(others(site.base))
    padp.activate(model, "turned")
    outputs_agree(randomise(site, 0.3), torch.randn(4, 12, dtype=torch.float64))


def test_weights_that_come_after_a_model_without_values() -> None:
    """Attached on the meta device, where nothing can be computed; then the base's weights come."""
    case = FOLLOW[2]
    real = trained(case)
    with torch.device("meta"):
        model = nn.Sequential(nn.Linear(case.n, case.m, dtype=torch.float64))
    padp.attach(model, case.adapter, **case.hyper)
    state = {f"0.{key}": t.clone() for key, t in real.state_dict().items() if "kept" not in key}
    model.load_state_dict(state, strict=False, assign=True)
    x = inputs(case, 5)
    with torch.no_grad():
        close(model(x), real(x), 1e-12)


@pytest.mark.parametrize("twin", [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))],
                         ids=["copied", "pickled"])
def test_a_copy_follows_its_own_base(twin: Any) -> None:
    layer = trained(FOLLOW[0])
    other = cast(LinearSite, twin(layer))
    before = {key: t.clone() for key, t in only(layer).state_dict().items()}
    other.base.load_state_dict(others(other.base))
    outputs_agree(other, inputs(FOLLOW[0], 5))
    assert all(torch.equal(t, before[key]) for key, t in only(layer).state_dict().items())
    plain = copy.deepcopy(layer.base)  # a base alone has no adapter
    plain.load_state_dict(others(plain))
    assert all(torch.equal(t, before[key]) for key, t in only(layer).state_dict().items())


def hooks(model: nn.Module) -> list[object]:
    tables = ("_load_state_dict_pre_hooks", "_load_state_dict_post_hooks")
    return [hook for module in model.modules() for table in tables for hook in vars(module)[table].values()]


def test_detached_models_have_no_hooks(minilm: nn.Module) -> None:
    bert = minilm
    before = len(hooks(bert))
    padp.attach(bert, padp.compile("dora"), ["intermediate.dense"], r=4, name="norms")
    padp.attach(bert, padp.compile(TURNED), name="turned")
    assert len(hooks(bert)) > before
    padp.detach(bert)
    assert len(hooks(bert)) == before


@pytest.mark.parametrize("family", ["opt", "minilm"])
def test_maps_of_heads_follow(family: str, request: pytest.FixtureRequest, batch: dict[str, Tensor]) -> None:
    """BERT's output projection stands beside the attention that the adapter is a child of."""
    model = request.getfixturevalue(family)
    plain = copy.deepcopy(model)
    torch.manual_seed(1)
    weights = {key: torch.randn_like(t) * 0.05 if "weight" in key and t.dim() == 2 else t.clone()
               for key, t in plain.state_dict().items()}
    plain.load_state_dict(weights)
    padp.attach(plain, padp.compile(TURNED))
    padp.attach(model, padp.compile(TURNED))
    for one in (plain, model):
        for p in padp.trainable(one):
            p.data = torch.linspace(0.5, 1.5, p.numel()).reshape(p.shape)
    own = {key.replace(".base.", "."): key for key in model.state_dict()}
    model.load_state_dict({own[key]: t for key, t in weights.items()}, strict=False)
    with torch.no_grad():
        close(next(iter(model(**batch).values())), next(iter(plain(**batch).values())), 1e-5)


@pytest.mark.parametrize("family", ["opt", "minilm"])
def test_starts_of_heads(family: str, request: pytest.FixtureRequest) -> None:
    """CLOVER's learned maps start from W: other weights alone are refused, a whole dict is taken."""
    model = request.getfixturevalue(family)
    padp.attach(model, padp.compile("clover"))
    state = {key: torch.randn_like(t) if t.is_floating_point() else t for key, t in model.state_dict().items()}
    model.load_state_dict(state)
    own = [key for key in state if "padp_attention" in key]
    assert own and all(torch.equal(model.state_dict()[key], state[key]) for key in own)
    site = next(s for s in sites(model) if isinstance(s, AttentionSite))
    with pytest.raises(padp.PadpError, match="started from those that were there"):
        site.attention.projection("q").load_state_dict(others(site.attention.projection("q")))


@pytest.mark.parametrize("spelling", ["{}.weight", "{}.base.weight"])
@pytest.mark.parametrize("how", ["a start from W", "merged"])
def test_a_load_that_is_refused_at_one_layer_loads_nothing(spelling: str, how: str) -> None:
    model = nn.Sequential(*[nn.Linear(6, 6) for _ in range(3)]).eval()
    padp.attach(model, "lora", ["0", "1"], r=2, name="a")
    padp.attach(model, "pissa" if how == "a start from W" else "lora", ["2"], r=2, name="b")
    if how == "merged":
        padp.activate(model, "b")
        padp.merge(model)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    state = {spelling.format(k): before[f"{k}.weight"] + 1 for k in range(3)}
    with pytest.raises(padp.PadpError, match="E511"):
        model.load_state_dict(state, strict=False)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
