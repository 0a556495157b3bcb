"""Reading a model's files: headers only, and a clear refusal for everything that is not what it says."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from padp.dsl.diagnostics import PadpError
from padp.weights import INDEX, StoredLinear, chosen, matching, read_header, read_model


def zeros(*shape: int) -> Any:
    return np.zeros(shape, dtype=np.float16)


def llama(layers: int = 2) -> dict[str, Any]:
    """The tensors of a small Llama: d = 16, 4 heads of 4, 2 groups, 24 inside the MLP, 100 words."""
    tensors = {"model.embed_tokens.weight": zeros(100, 16), "lm_head.weight": zeros(100, 16)}
    tensors["model.norm.weight"] = zeros(16)
    for i in range(layers):
        block = f"model.layers.{i}."
        for name, m, n in [("q_proj", 16, 16), ("k_proj", 8, 16), ("v_proj", 8, 16), ("o_proj", 16, 16)]:
            tensors[f"{block}self_attn.{name}.weight"] = zeros(m, n)
        tensors[f"{block}mlp.down_proj.weight"] = zeros(16, 24)
        tensors[f"{block}input_layernorm.weight"] = zeros(16)
    return tensors


CONFIG = {"hidden_size": 16, "num_attention_heads": 4, "num_key_value_heads": 2, "num_hidden_layers": 2}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    save_file(llama(), tmp_path / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    return tmp_path


def refused(path: Path, *words: str) -> None:
    with pytest.raises(PadpError) as caught:
        read_model(path)
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.code == "E505"
    text = " ".join([diagnostic.message, *diagnostic.notes, diagnostic.suggestion or ""])
    for word in words:
        assert word in text


def test_header(model: Path) -> None:
    header = read_header(model / "model.safetensors")
    assert {name: tensor.shape for name, tensor in header.items()} == {k: v.shape for k, v in llama().items()}
    assert {tensor.dtype for tensor in header.values()} == {"F16"}


def test_linear_layers_without_embedding_and_head(model: Path) -> None:
    found = read_model(model)
    assert len(found.linears) == 2 * 5
    assert StoredLinear("model.layers.1.self_attn.k_proj", 8, 16, bias=False) in found.linears
    assert found.scalars == sum(tensor.size for tensor in llama().values())


def test_sizes_of_hidden_and_attention_sites(model: Path) -> None:
    found = read_model(model)
    assert found.layers == 2
    assert found.hidden_sizes() == {"d": 16}
    assert found.attention_sizes() == {"d": 16, "H": 4, "G": 2, "e": 4}


def test_layers_are_counted_from_names_without_a_config(model: Path) -> None:
    (model / "config.json").unlink()
    found = read_model(model)
    assert found.layers == 2
    with pytest.raises(PadpError, match="hidden_size"):
        found.hidden_sizes()


def test_conv1d_is_recognised_by_its_bias(tmp_path: Path) -> None:
    file = tmp_path / "gpt2.safetensors"
    save_file({"h.0.attn.c_attn.weight": zeros(16, 48), "h.0.attn.c_attn.bias": zeros(48)}, file)
    assert read_model(file).linears == (StoredLinear("h.0.attn.c_attn", 48, 16, bias=True),)


def test_head_without_a_telling_name_is_recognised_by_the_vocabulary(tmp_path: Path) -> None:
    save_file({"out.weight": zeros(100, 16), "h.0.w.weight": zeros(8, 16)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"vocab_size": 100}))
    assert [layer.name for layer in read_model(tmp_path).linears] == ["h.0.w"]


def test_packed_weights_are_not_taken_for_shapes(tmp_path: Path) -> None:
    save_file({"a.weight": np.zeros((32, 1), dtype=np.uint8), "b.weight": zeros(8, 4)}, tmp_path / "q.safetensors")
    found = read_model(tmp_path / "q.safetensors")
    assert [layer.name for layer in found.linears] == ["b"]
    assert found.packed == 1


def test_shards(tmp_path: Path) -> None:
    tensors = llama()
    parts = [dict(list(tensors.items())[:5]), dict(list(tensors.items())[5:])]
    weight_map: dict[str, str] = {}
    for i, part in enumerate(parts):
        save_file(part, tmp_path / f"model-{i}.safetensors")
        weight_map |= dict.fromkeys(part, f"model-{i}.safetensors")
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": weight_map}))
    assert len(read_model(tmp_path).tensors) == len(tensors)
    assert len(read_model(tmp_path / INDEX).tensors) == len(tensors)
    (tmp_path / "model-1.safetensors").unlink()
    refused(tmp_path, "model-1.safetensors", "missing")


def test_index_that_leads_elsewhere(tmp_path: Path) -> None:
    inside = tmp_path / "model"
    inside.mkdir()
    save_file({"a.weight": zeros(2, 2)}, tmp_path / "other.safetensors")
    (inside / INDEX).write_text(json.dumps({"weight_map": {"a.weight": "../other.safetensors"}}))
    refused(inside, "other.safetensors")


@pytest.mark.parametrize("keep", [0, 5, 8, 40, -1, -300])
def test_cut_short(model: Path, keep: int) -> None:
    file = model / "model.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    refused(model, "model.safetensors")


def written(path: Path, header: object, data: bytes = b"") -> Path:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(raw)) + raw + data)
    return path


@pytest.mark.parametrize(
    "header",
    [
        b"{",
        b"\xff\xfe",
        [],
        {"a": []},
        {"a": {"dtype": "F32", "shape": [2]}},
        {"a": {"dtype": "F32", "shape": [-2], "data_offsets": [0, 8]}},
        {"a": {"dtype": "F32", "shape": [2], "data_offsets": [8, 0]}},
        {"a": {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}},
        {"a": {"dtype": "F32", "shape": ["x"], "data_offsets": [0, 8]}},
    ],
    ids=str,
)
def test_damaged_header(tmp_path: Path, header: object) -> None:
    refused(written(tmp_path / "x.safetensors", header, bytes(8)), "x.safetensors")


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.one_of(st.binary(max_size=64), st.binary(max_size=64).map(lambda b: struct.pack("<Q", len(b)) + b)))
def test_any_bytes(tmp_path: Path, data: bytes) -> None:
    """Whatever is in the file: a header, or E505."""
    file = tmp_path / "any.safetensors"
    file.write_bytes(data)
    try:
        read_header(file)
    except PadpError as error:
        assert error.diagnostics[0].code == "E505"


def test_deeply_nested_header(tmp_path: Path) -> None:
    refused(written(tmp_path / "x.safetensors", b"[" * 200_000), "JSON")


def test_foreign_file(tmp_path: Path) -> None:
    file = tmp_path / "pytorch_model.bin"
    file.write_bytes(b"PK\x03\x04" + bytes(range(256)) * 4)
    refused(file, "safetensors")
    refused(tmp_path, "pytorch_model.bin", "pickle")


def test_nothing_there(tmp_path: Path) -> None:
    refused(tmp_path / "none", "does not exist")
    refused(tmp_path, "no safetensors file")


def test_config_that_is_not_json(model: Path) -> None:
    (model / "config.json").write_text("{")
    refused(model, "config.json")


def test_choosing_layers(model: Path) -> None:
    layers = read_model(model).linears
    assert chosen(layers, "all-linear") == layers
    assert [layer.m for layer in chosen(layers, "k_proj,v_proj")] == [8] * 4
    assert len(chosen(layers, r".*layers\.0\..*")) == 5
    assert len(chosen(layers, "all-linear", "down_proj")) == 8
    assert len(chosen(layers, "self_attn.q_proj")) == 2


def test_choosing_what_is_not_there() -> None:
    names = ["a.q_proj", "a.k_proj"]
    with pytest.raises(PadpError, match="'qproj'") as caught:
        matching(names, "q_proj,qproj")
    assert caught.value.diagnostics[0].code == "E503"
    assert "k_proj" in str(caught.value.diagnostics[0].notes)
    with pytest.raises(PadpError, match="regular expression"):
        matching(names, "(")
    assert matching(names, "proj.*|a.*") == names
