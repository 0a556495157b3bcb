"""A plan for a few tokens that nobody looks into, without its questions.

    direct(graph) -> f(x, base, training, *leaves)      the same operations on the rows of x, and the same values

Every operation of a plan asks before it computes: one precision? is somebody tracing? which routine for these sizes?
For one token through a thin adapter that takes as long as the arithmetic. Here ``alone`` asks once, for the whole
plan; behind it an operation is torch's own call. Only the asking differs: sizes decide here too, when the plan is made.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from padp.compiler.kernels import table as prims
from padp.compiler.kernels.products import FEW, PLAIN, REAL, WORTH_ONEDNN_FEW, few_times
from padp.compiler.kernels.torch_state import autocasting, dispatched, looked_into
from padp.compiler.plan.costs import count
from padp.compiler.plan.steps import Low

_MAKE_COMPLEX = tuple(prims.PRIMS[name] for name in prims.MAKE_COMPLEX)


def alone(x: Tensor) -> bool:
    """Whether x is a few vectors in ordinary memory of a CPU, and nobody traces, transforms or casts what is done."""
    return not looked_into() and type(x) in PLAIN and x.is_cpu and x.dtype in REAL and x.layout is torch.strided \
        and x.dim() > 0 and 0 < x.numel() < FEW * x.shape[-1] and not dispatched() and not autocasting()


def direct(graph: fx.Graph) -> Callable[..., Tensor]:
    """The function of this graph for x (T, n), all of whose tensors are of x's precision."""
    made = fx.Graph()
    new: dict[fx.Node, fx.Node] = {}
    complexes = any(node.target in _MAKE_COMPLEX for node in graph.nodes)  # then two kinds of numbers may meet
    for node in graph.nodes:
        if node.target in (prims.to_compute, prims.from_compute):
            new[node] = new[node.args[0]]
            continue
        copy = new[node] = made.node_copy(node, lambda n: new[n])
        low = node.meta.get("low")
        if isinstance(low, Low) and not complexes:
            _answer(copy, low)
    return cast("Callable[..., Tensor]", fx.GraphModule(nn.Module(), made).forward)


def _answer(node: fx.Node, low: Low) -> None:
    """Put torch's own call in the place of an operation that would ask."""
    if node.target is prims.call_base:
        node.target = _base
    elif node.target is prims.call_base_without_bias:
        node.target = _base_without_bias
    elif node.target is prims.linear:
        node.target = F.linear if _small(low.args[1]) else few_times
    elif node.target is prims.add_linear and len(low.dims) == 2 and low.args[1].lead == ("T",) and _small(low.args[2]):
        node.target = _add_linear
    elif node.target is prims.addcmul:
        a, b, c, *sign = node.args
        node.target, node.args, node.kwargs = torch.addcmul, (a, b, c), {"value": sign[0] if sign else 1}
    elif node.target is prims.each and low.args[2] == 1 and low.lead == ("T",):
        node.target = _each


def _small(m: Low) -> bool:
    """Whether there is no choice for products of a few vectors with this matrix."""
    return bool(count(m.dims) < WORTH_ONEDNN_FEW)


def _base(base: nn.Module, v: Tensor, _: Tensor) -> Tensor:
    return few_times(v, cast(Tensor, base.weight), cast("Tensor | None", base.bias))


def _base_without_bias(base: nn.Module, v: Tensor, _: Tensor) -> Tensor:
    return few_times(v, cast(Tensor, base.weight))


def _add_linear(a: Tensor, v: Tensor, m: Tensor, factor: float) -> Tensor:
    return torch.addmm(a, v, m.mT, alpha=factor)


def _each(v: Tensor, m: Tensor, _: Any) -> Tensor:
    return torch.bmm(v.transpose(0, 1), m.mT).transpose(0, 1)
