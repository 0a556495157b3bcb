"""Write an adapter that no library has, check it, see an error, train it on one layer.

The program is in gated_low_rank.padp beside this file: a low-rank update with a gate that reads the token.

    python examples/write_your_own.py
"""

from pathlib import Path

import torch
from torch import nn

import padp

PROGRAM = Path(__file__).with_name("gated_low_rank.padp")
print(PROGRAM.read_text(encoding="utf-8"))

# Shapes and claims are proved for all sizes, before there is any tensor.
print("findings:", padp.check(PROGRAM))

# A wrong program is refused, with the place and both shapes.
wrong = PROGRAM.read_text(encoding="utf-8").replace("B @ (A @ x)", "A @ (B @ x)")
for diagnostic in padp.check(wrong):
    print(f"with A and B swapped: {diagnostic.code} {diagnostic.message}")

# One layer, and something to learn: the layer's output plus a change that only some inputs get.
torch.manual_seed(0)
linear = nn.Linear(32, 24)
x = torch.randn(512, 32)
change = 0.3 * torch.randn(24, 2) @ torch.randn(2, 32)
wanted = (linear(x) + (x[:, :1] > 0) * (x @ change.T)).detach()

adapter = padp.compile(PROGRAM)
print(adapter)
layer = adapter(linear, r=4)
learned = [p for p in layer.parameters() if p.requires_grad]
print("learned scalars:", sum(p.numel() for p in learned))

optimiser = torch.optim.AdamW(learned, lr=0.02)
first = last = 0.0
for step in range(300):
    loss = (layer(x) - wanted).square().mean()
    first, last = (loss.item() if step == 0 else first), loss.item()
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
print(f"loss: {first:.4f} before, {last:.4f} after 300 steps")

# What it cannot do is refused by name.
try:
    layer.merge()
except padp.PadpError as refusal:
    print(refusal)
