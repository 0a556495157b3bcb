"""Save a trained adapter, load it in a new process, merge it, take it out again, and keep the merged model.

Uses a small transformer with random weights, so that nothing has to be downloaded. Needs transformers.

    python examples/merge_and_save.py
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

import padp

TOKENS = torch.arange(24).reshape(2, 12) % 60


def base_model() -> nn.Module:
    """The same model in every process."""
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=64, hidden_size=64, intermediate_size=128, num_hidden_layers=2,
                         num_attention_heads=4, num_key_value_heads=2, pad_token_id=0)
    model: nn.Module = LlamaForCausalLM(config)
    return model.eval()


@torch.no_grad()
def logits(model: nn.Module) -> Tensor:
    """What the model says to TOKENS."""
    out: Tensor = model(TOKENS).logits
    return out


def save_merge_keep(directory: Path) -> None:
    """Train, save, compare with a new process; merge, unmerge; keep."""
    model = base_model()
    before = logits(model)
    padp.attach(model, padp.compile("dora"), r=4)
    optimiser = torch.optim.AdamW(padp.trainable(model), lr=1e-2)
    for _ in range(10):
        loss = model(TOKENS, labels=TOKENS).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    trained = logits(model)
    print(f"training changed the logits by up to {(trained - before).abs().max():.2f}")

    # A checkpoint holds the program, its settings and its tensors; the base is not in it.
    padp.save(model, directory / "adapter")
    print("saved:", ", ".join(f"{file.name} ({file.stat().st_size:,} bytes)"
                              for file in sorted((directory / "adapter").iterdir())))
    subprocess.run([sys.executable, __file__, str(directory)], check=True)
    there: Tensor = torch.load(directory / "logits.pt")
    print("a new process gives the same logits, bit for bit:", torch.equal(there, trained))

    # Merged, the layers are plain linear layers again; unmerging gives back the very same bits.
    weight = model.get_parameter("model.layers.0.self_attn.q_proj.base.weight").clone()
    padp.merge(model)
    print(f"merged: logits differ by {(logits(model) - trained).abs().max() / trained.abs().max():.0e}, relatively")
    padp.unmerge(model)
    again = model.get_parameter("model.layers.0.self_attn.q_proj.base.weight")
    print("unmerged: the weight is what it was, bit for bit:", torch.equal(again, weight))

    # For good: a model without any trace of padp, to be saved as any other.
    padp.merge(model)
    padp.detach(model, keep_merged=True)
    print("kept:", type(model.get_submodule("model.layers.0.self_attn.q_proj")).__name__, "layers, logits differ by",
          f"{(logits(model) - trained).abs().max() / trained.abs().max():.0e}")


def load_elsewhere(directory: Path) -> None:
    """What the new process does."""
    model = base_model()
    padp.load(model, directory / "adapter")
    torch.save(logits(model), directory / "logits.pt")


if len(sys.argv) > 1:
    load_elsewhere(Path(sys.argv[1]))
else:
    with tempfile.TemporaryDirectory() as directory:
        save_merge_keep(Path(directory))
