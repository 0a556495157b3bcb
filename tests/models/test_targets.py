"""Which modules an adapter goes to, and the errors that name what matched nothing."""

from __future__ import annotations

from typing import Any

import pytest
from torch import nn

import padp.models as pm
from padp.models.places import all_linear, blocks, heads_of
from padp.models.record import record_of
from padp.models.walk import sites
from tests.support.families import Refused, notebook
from tests.support.programs import HEADS, LORA, REFT, ROTATION


def paths(model: Any, kind: str = "linear") -> list[str]:
    return [site.path for site in sites(model) if site.kind == kind]


def test_all_linear_leaves_out_the_head(llama: Any, gpt2: Any, minilm: Any) -> None:
    assert heads_of(llama) == ["lm_head"]
    assert len(all_linear(llama)) == 3 * 7 and "lm_head" not in all_linear(llama)
    assert len(all_linear(gpt2)) == 2 * 4 and all("lm_head" not in path for path in all_linear(gpt2))
    assert len(all_linear(minilm)) == 6 * 6 + 1  # no head: its pooler counts


def test_all_linear_leaves_out_heads_by_name_and_all_in_them() -> None:
    model = nn.ModuleDict({"body": nn.Linear(4, 4), "classifier": nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2)),
                           "score": nn.Linear(4, 2)})
    assert all_linear(model) == ["body"]
    pm.attach(model, LORA, ["score", "classifier.1"])  # by name they can be had
    assert paths(model) == ["classifier.1", "score"]


def test_suffixes_and_regex(llama: Any) -> None:
    pm.attach(llama, LORA, ["q_proj", "self_attn.v_proj"])
    assert len(paths(llama)) == 6
    pm.detach(llama)
    pm.attach(llama, LORA, r"model\.layers\.[01]\..*_proj", exclude=["down_proj", "up_proj"])
    assert len(paths(llama)) == 2 * 5
    pm.detach(llama)
    pm.attach(llama, LORA, exclude=r".*layers\.2.*")
    assert len(paths(llama)) == 2 * 7


def test_every_pattern_that_matched_nothing_is_named(llama: Any) -> None:
    with Refused("E503", "'q_prj'", "q_proj", "'nonsense'", model=llama):
        pm.attach(llama, LORA, ["q_prj", "nonsense", "v_proj"])
    with Refused("E503", "'w_proj'", "r: 'k_proj'", "variant: 'o_prj'", model=llama):
        pm.attach(llama, LORA, ["q_proj"], exclude=["w_proj"], r={"k_proj": 3, "*": 2}, variant={"o_prj": "x"})
    with Refused("E503", "modules_to_save: 'nrm'", model=llama):
        pm.attach(llama, LORA, ["q_proj"], modules_to_save=["nrm"])
    with Refused("E503", "give ['q_proj']", model=llama):
        pm.attach(llama, LORA, "q_proj")  # a regex for whole paths
    with Refused("E503", "not a regular expression", model=llama):
        pm.attach(llama, LORA, "(")
    with Refused("E503", "empty", model=llama):
        pm.attach(llama, LORA, [])
    with Refused("E503", "leaves no site", model=llama):
        pm.attach(llama, LORA, ["q_proj"], exclude=["q_proj"])


def test_other_modules_are_refused_by_name(llama: Any) -> None:
    with Refused("E502", "model.embed_tokens", "Embedding", model=llama):
        pm.attach(llama, LORA, ["q_proj", "embed_tokens"])
    with Refused("E502", "self_attn", "LlamaAttention", model=llama):
        pm.attach(llama, LORA, ["self_attn"])
    with Refused("E511", "call the adapter on it"):
        pm.attach(nn.Linear(3, 3), LORA)
    with Refused("E503", "it has none"):
        pm.attach(nn.Sequential(nn.Linear(3, 3)), HEADS)


def test_multihead_attention_is_not_silently_skipped() -> None:
    model = nn.ModuleDict({"a": nn.MultiheadAttention(8, 2), "b": nn.Linear(8, 8)})
    assert all_linear(model) == ["b"]
    with Refused("E502", "never calls", model=model):
        pm.attach(model, LORA, ["out_proj"])


def test_values_by_pattern(llama: Any) -> None:
    pm.attach(llama, LORA, ["q_proj", "v_proj"], r={r".*layers\.0\..*": 5, "v_proj": 3, "*": 4}, α={"q_proj": 1.0})
    ranks = {site.path: (site.module("default").hyper["r"], site.module("default").hyper["α"]) for site in sites(llama)}
    prefix = "model.layers.{}.self_attn.{}"
    assert ranks[prefix.format(0, "v_proj")] == (5, 4.0)  # the first pattern that fits; α has no default of the call
    assert ranks[prefix.format(1, "v_proj")] == (3, 4.0)
    assert ranks[prefix.format(1, "q_proj")] == (4, 1.0)
    assert len({id(s) for s in record_of(llama).attached["default"].settings.values()}) == 4  # equal ones are one


def test_a_layer_under_two_names_is_one_site() -> None:
    shared = nn.Linear(4, 4)
    model: Any = nn.ModuleDict({"a": nn.Sequential(shared), "b": nn.Sequential(shared), "c": nn.Linear(4, 4)})
    pm.attach(model, LORA)
    assert paths(model) == ["a.0", "c"]
    assert model["a"][0] is model["b"][0]
    pm.detach(model)
    assert model["a"][0] is shared and model["b"][0] is shared


def test_blocks(llama: Any, minilm: Any, t5: Any) -> None:
    assert blocks(llama)[0] == "model.layers" and blocks(minilm)[0] == "encoder.layer"
    with Refused("E511", "encoder.block", "decoder.block"):
        pm.attach(t5, REFT)
    pm.attach(t5, REFT, r"decoder\.block\.\d+")
    assert paths(t5, "hidden") == ["decoder.block.0", "decoder.block.1"]
    mixture = nn.ModuleList(nn.ModuleDict({"experts": nn.ModuleList(nn.Linear(4, 4) for _ in range(9))})
                            for _ in range(3))
    assert blocks(nn.ModuleDict({"layers": mixture})) == ("layers", ["layers.0", "layers.1", "layers.2"])


def test_layers(llama: Any) -> None:
    pm.attach(llama, REFT, layers=[2, -3])
    assert paths(llama, "hidden") == ["model.layers.0", "model.layers.2"]
    pm.detach(llama)
    with Refused("E503", "no block 3", model=llama):
        pm.attach(llama, REFT, layers=[3])
    with Refused("E511", "layers='first'", model=llama):
        pm.attach(llama, REFT, layers="first")
    with Refused("E511", "sits on linear sites", model=llama):
        pm.attach(llama, LORA, layers=[1])
    with Refused("E511", "names them already", model=llama):
        pm.attach(llama, REFT, [r"layers.1"], layers=[1])


def test_fused_projections_are_no_attention_site(gpt2: Any) -> None:
    with Refused("E502", "c_attn", model=gpt2):
        pm.attach(gpt2, HEADS)
    with Refused("E502", "c_attn", model=gpt2):
        pm.attach(gpt2, HEADS, ["attn"])


def test_sizes_are_checked_before_anything_changes(llama: Any) -> None:
    with Refused("E501", "n = 48", model=llama):
        pm.attach(llama, ROTATION, k={"down_proj": 5, "*": 4})
    with Refused("E507", "nonsense", model=llama):
        pm.attach(llama, LORA, nonsense=3)
    with Refused("E208", "no variant 'other'", model=llama):
        pm.attach(llama, LORA, variant="other")


@pytest.mark.parametrize("name", ["a.b", "", "keys", "ä"])
def test_names(name: str, llama: Any) -> None:
    with Refused("E511", "cannot name", model=llama):
        pm.attach(llama, LORA, name=name)


def test_listing_of_targets(llama: Any, gpt2: Any) -> None:
    rows = {(row.name, row.kind): row for row in pm.targets(llama).rows}
    assert rows["q_proj", "linear"].count == 3 and rows["q_proj", "linear"].sizes == "m=32, n=32"
    assert "output head" in rows["lm_head", "linear"].note
    assert rows["model.layers.*", "hidden"].count == 3
    assert rows["self_attn", "attention"].sizes == "H=4, G=2, e=8, d=32"
    assert "rotary" in rows["self_attn", "attention"].note
    assert "self_attn" in repr(pm.targets(llama)) and "<pre" in notebook(pm.targets(llama))
    assert any("c_attn" in row.note for row in pm.targets(gpt2).rows if row.kind == "attention")
    pm.attach(llama, LORA)
    assert pm.targets(llama) == pm.targets(llama) and len(pm.targets(llama).rows) == len(rows)  # the same when attached
