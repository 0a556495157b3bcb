"""What a model's files say about its layers: names and shapes from safetensors headers, sizes from ``config.json``.

A safetensors file is ``u64 little-endian N``, then N bytes of JSON (``name -> dtype, shape, data_offsets``), then the
data (https://huggingface.co/docs/safetensors). Only the first two are read here, so a model of any size takes
milliseconds, and torch is not needed.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any

from padp.dsl.diagnostics import PadpError, refuse

INDEX = "model.safetensors.index.json"
_HEADER_LIMIT = 100_000_000  # the library's own limit on N
_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "U16": 16, "I16": 16, "U32": 32, "I32": 32, "U64": 64, "I64": 64,
    "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F16": 16, "BF16": 16, "F32": 32, "F64": 64, "C64": 64,
    "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
}
# What looks like nn.Linear in a file and is not: tables of embeddings.
_EMBEDDING = re.compile(r"embed|^wte$|^wpe$|^shared$|relative_attention_bias")
# Output heads, with all that is under them: "all-linear" leaves them out on a loaded model too.
_HEADS = {"lm_head", "classifier", "score", "embed_out", "qa_outputs"}
# Experts, one by one or all in one tensor, and what chooses among them, beside them.
_EXPERTS, _ROUTERS = "experts", {"gate", "router"}
_BLOCK = re.compile(r"(?:^|\.)\d+\.")
_LAYER = re.compile(r"(?:^|\.)(?:layers?|h|blocks?)\.(\d+)\.")


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """One entry of a header."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """The number of scalars: ∏ shape."""
        return prod(self.shape)


@dataclass(frozen=True, slots=True)
class StoredLinear:
    """A linear layer found in a file: W ∈ ℝ^{m×n}, with or without a bias."""

    name: str
    m: int
    n: int
    bias: bool


@dataclass(frozen=True)
class StoredModel:
    """A model on disk: every tensor by name, and its ``config.json`` (empty when there is none)."""

    path: Path
    tensors: Mapping[str, StoredTensor]
    config: Mapping[str, Any]

    @cached_property
    def linears(self) -> tuple[StoredLinear, ...]:
        """Every linear layer but the output heads, in the order of the file.

        A file has no module types, so these are the two-dimensional ``NAME.weight`` of a floating dtype that are
        neither named like an embedding or a head, nor as long as the vocabulary and outside the numbered blocks, nor
        experts or what chooses among them: these are one parameter each on a loaded model. A ``NAME.bias`` as long as
        the second axis and not the first shows a layer that is stored transposed (GPT-2's Conv1D).
        """
        found: list[StoredLinear] = []
        for tensor in self.tensors.values():
            name, _, last = tensor.name.rpartition(".")
            if last != "weight" or not name or len(tensor.shape) != 2 or not tensor.dtype.startswith(("F", "BF")):
                continue
            m, n = tensor.shape
            bias = self.tensors.get(f"{name}.bias")
            parts = name.split(".")
            table = m == self.config.get("vocab_size") and not _BLOCK.search(name)
            if _EMBEDDING.search(parts[-1]) or _HEADS & set(parts) or table or tensor.name in self._of_experts:
                continue
            if bias is not None and bias.shape == (n,) and m != n:
                m, n = n, m
            found.append(StoredLinear(name, m, n, bias is not None))
        return tuple(found)

    @cached_property
    def _of_experts(self) -> frozenset[str]:
        """The tensors of experts, and of what chooses among them: ``gate`` or ``router`` beside ``experts``."""
        experts = {name for name in self.tensors if _EXPERTS in name.split(".")}
        beside = {name.split(f"{_EXPERTS}.")[0] for name in experts}
        routers = {name for name in self.tensors
                   if (found := re.fullmatch(r"(.*?)(\w+)\.(?:weight|bias)", name)) and found[1] in beside
                   and found[2] in _ROUTERS}
        return frozenset(experts | routers)

    @cached_property
    def experts(self) -> int:
        """The scalars of experts and of what chooses among them: no linear layers on a loaded model."""
        return sum(self.tensors[name].size for name in self._of_experts)

    @cached_property
    def others(self) -> tuple[StoredTensor, ...]:
        """Parameters of two axes or more that are no ``NAME.weight``, experts and embeddings apart: of no layer."""
        return tuple(t for t in self.tensors.values() if len(t.shape) > 1 and not t.name.endswith(("weight", "bias"))
                     and t.name not in self._of_experts and t.dtype.startswith(("F", "BF"))
                     and not re.search(r"embed|token", t.name))

    @cached_property
    def packed(self) -> int:
        """How many weights are stored in a packed (quantised) format, whose shape is not the layer's."""
        endings = (".qweight", ".weight_packed", ".weight_format")
        return sum(
            t.name.endswith(endings) or (t.name.endswith(".weight") and t.dtype in ("U8", "I8", "I32"))
            for t in self.tensors.values()
        )

    @cached_property
    def scalars(self) -> int:
        """The number of scalars of the whole model."""
        return sum(tensor.size for tensor in self.tensors.values())

    @property
    def layers(self) -> int:
        """The number of blocks, from ``config.json``, else from the numbers in the tensors' names."""
        told = self._told("num_hidden_layers", "n_layer", "num_layers")
        if told is not None:
            return told
        return len({match[1] for name in self.tensors if (match := _LAYER.search(name))})

    def hidden_sizes(self) -> dict[str, int]:
        """Sizes of a hidden state h ∈ ℝ^d."""
        return {"d": self._required("hidden_size", "n_embd", "d_model")}

    def attention_sizes(self) -> dict[str, int]:
        """Sizes of an attention: H heads and G groups of e coordinates, on d inputs."""
        d = self._required("hidden_size", "n_embd", "d_model")
        heads = self._required("num_attention_heads", "n_head", "num_heads")
        groups = self._told("num_key_value_heads") or heads
        return {"d": d, "H": heads, "G": groups, "e": self._told("head_dim", "d_kv") or d // heads}

    def _told(self, *keys: str) -> int | None:
        for key in keys:
            value = self.config.get(key)
            if isinstance(value, int) and value > 0:
                return value
        return None

    def _required(self, *keys: str) -> int:
        value = self._told(*keys)
        if value is None:
            raise refuse(
                "E505",
                f"{self.path} does not say {' or '.join(keys)}",
                notes=["sizes of hidden and attention sites are read from the config.json beside the weights"],
                suggestion="give the directory of the model, or the sizes with --size",
            )
        return value


def read_header(path: Path) -> dict[str, StoredTensor]:
    """Names, dtypes and shapes of a safetensors file.

    E505: not a safetensors file, or cut short (the header says where the data would end).
    """
    with path.open("rb") as file:
        file.seek(0, 2)
        length = file.tell()
        file.seek(0)
        if length < 8:
            raise _broken(path, f"it is {length} bytes long, and the length of the header alone takes 8")
        (size,) = struct.unpack("<Q", file.read(8))
        if size > _HEADER_LIMIT:
            raise _broken(path, "its first 8 bytes are not the length of a header", "is this a safetensors file?")
        if size > length - 8:
            raise _truncated(path, 8 + size, length)
        raw = file.read(size)
    try:
        header = json.loads(raw)
    except (ValueError, RecursionError):  # a UnicodeDecodeError is a ValueError
        raise _broken(path, "its header is not JSON", "is this a safetensors file?") from None
    if not isinstance(header, dict):
        raise _broken(path, "its header is not a table of tensors")
    tensors: dict[str, StoredTensor] = {}
    end = 0
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        tensors[name], stop = _entry(path, name, entry)
        end = max(end, stop)
    if 8 + size + end > length:
        raise _truncated(path, 8 + size + end, length)
    return tensors


def _entry(path: Path, name: str, entry: Any) -> tuple[StoredTensor, int]:
    """One entry of a header, and the offset at which its data ends."""
    match entry:
        case {"dtype": str(dtype), "shape": [*shape], "data_offsets": [int(start), int(stop)]} if all(
            isinstance(d, int) and d >= 0 for d in shape
        ):
            tensor = StoredTensor(name, dtype, tuple(shape))
        case _:
            raise _broken(path, f"its entry for {name!r} has no dtype, shape and data_offsets")
    bits = _BITS.get(dtype)
    if not 0 <= start <= stop or (bits is not None and (stop - start) * 8 != tensor.size * bits):
        shape_text = "×".join(map(str, tensor.shape)) or "one"
        raise _broken(path, f"its entry for {name!r} gives {stop - start} bytes to {shape_text} numbers of {dtype}")
    return tensor, stop


def read_model(path: str | Path) -> StoredModel:
    """The model at ``path``: a safetensors file, an index of shards, or a directory as transformers writes it.

    E505: nothing there that can be read, a shard that is missing, a file that is cut short.
    """
    path = Path(path)
    if path.is_dir():
        directory, files = path, _files_of(path)
    elif path.is_file():
        directory, files = path.parent, _shards(path) if path.name.endswith(".index.json") else [path]
    else:
        raise refuse("E505", f"{path} does not exist", suggestion="give a directory or a .safetensors file")
    tensors: dict[str, StoredTensor] = {}
    for file in files:
        tensors |= read_header(file)
    config = directory / "config.json"
    return StoredModel(path, tensors, _flat(_json(config)) if config.is_file() else {})


def _files_of(directory: Path) -> list[Path]:
    """The safetensors files of a model directory."""
    index, single = directory / INDEX, directory / "model.safetensors"
    if index.is_file():
        return _shards(index)
    if single.is_file():
        return [single]
    found = sorted(directory.glob("*.safetensors"))
    if not found:
        pickled = sorted(p.name for p in (*directory.glob("*.bin"), *directory.glob("*.pt")))
        raise refuse(
            "E505",
            f"{directory} has no safetensors file",
            notes=[f"it has {pickled[0]}, a pickle: reading one can run any code, so padp does not"] if pickled else (),
            suggestion="save the model with model.save_pretrained(directory): it writes safetensors",
        )
    return found


def _shards(index: Path) -> list[Path]:
    """The files that an index names, in its order."""
    table = _json(index).get("weight_map")
    if not isinstance(table, dict) or not all(isinstance(name, str) for name in table.values()):
        raise _broken(index, "it has no weight_map")
    shards = [index.parent / name for name in dict.fromkeys(table.values())]
    for shard in shards:
        if shard.parent != index.parent or not shard.is_file():
            raise _broken(index, f"it names {shard.name}, which is not beside it", "download the missing shard")
    return shards


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):  # a UnicodeDecodeError is a ValueError
        raise _broken(path, "it is not JSON") from None
    if not isinstance(value, dict):
        raise _broken(path, "it is not a table")
    return value


def _flat(config: dict[str, Any]) -> dict[str, Any]:
    """A multimodal model keeps the sizes of its language model one level down."""
    inner = config.get("text_config")
    return {**config, **inner} if isinstance(inner, dict) else config


def _broken(path: Path, why: str, suggestion: str | None = None) -> PadpError:
    return refuse("E505", f"cannot read {path}: {why}", suggestion=suggestion)


def _truncated(path: Path, needed: int, length: int) -> PadpError:
    return _broken(path, f"it is cut short: {length} bytes, and its header needs {needed}", "download it again")


def chosen(linears: Sequence[StoredLinear], targets: str, exclude: str | None = None) -> tuple[StoredLinear, ...]:
    """The layers that ``targets`` names: ``all-linear``, comma-separated suffixes (``q_proj,v_proj``), or a regular
    expression for the whole name.

    E503: a suffix or an expression that matches nothing. E507: not a regular expression.
    """
    left_out = set(matching([layer.name for layer in linears], exclude)) if exclude else set()
    if targets == "all-linear":
        return tuple(layer for layer in linears if layer.name not in left_out)
    wanted = set(matching([layer.name for layer in linears], targets))
    return tuple(layer for layer in linears if layer.name in wanted and layer.name not in left_out)


def matching(names: Iterable[str], pattern: str) -> list[str]:
    """The names that end in one of the comma-separated suffixes, or that the regular expression matches whole."""
    names = list(names)
    if re.fullmatch(r"[\w.\-]+(,[\w.\-]+)*", pattern):
        found: list[str] = []
        missed: list[str] = []
        for suffix in pattern.split(","):
            hits = [name for name in names if name == suffix or name.endswith("." + suffix)]
            found += hits
            if not hits:
                missed.append(suffix)
    else:
        try:
            found = [name for name in names if re.fullmatch(pattern, name)]
        except re.error as error:
            raise refuse("E507", f"{pattern!r} is not a regular expression: {error}") from None
        missed = [] if found else [pattern]
    if missed:
        endings = sorted({name.rpartition(".")[2] for name in names})
        raise refuse(
            "E503",
            f"no linear layer matches {', '.join(map(repr, missed))}",
            notes=[f"the layers here end in: {', '.join(endings[:12])}{' …' if len(endings) > 12 else ''}"],
        )
    return found
