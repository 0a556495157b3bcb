"""Compile an adapter of the library and look at what came out: count, shapes, plan, code, and its literal meaning.

    python examples/compile_and_look.py
"""

import torch
from torch import nn

import padp

# From text to an adapter: parsed, resolved, shapes proved for all sizes. torch has no part in this.
oft = padp.compile("oft")
print(oft)
print("title:     ", oft.title)
print("settings:  ", dict(oft.hyper))
print("variants:  ", ", ".join(oft.variants))
print("parameters:", dict(oft.parameters))
print("count:     ", oft.count, "learned scalars a site")

# On a layer: sizes are solved, the schedule is planned, tensors are made.
torch.manual_seed(0)
linear = nn.Linear(512, 512)
layer = oft(linear, k=32)
print()
print("Q is stored as", tuple(layer.tensors["Q"].shape))

# The plan: what is computed when, at which cost, and from which line. R_full (512×512) is never built.
print()
print(layer.plan)

# The same as code.
print()
print(layer.code)

# A fresh adapter changes nothing but the last digits: the base's product may be summed in another order.
x = torch.randn(5, 512)
print("fresh:   largest change of the output     ", f"{(layer(x) - linear(x)).abs().max():.1e}")

# And the fast code computes what the program says when it is read literally, matrix by matrix.
with torch.no_grad():
    layer.tensors["Q"].normal_(0, 0.1)
error = (layer(x) - layer.reference(x)).abs().max() / layer.reference(x).abs().max()
print("rotated: largest change of the output     ", f"{(layer(x) - linear(x)).abs().max():.1e}")
print("         relative error to the dense reading", f"{error:.1e}")
