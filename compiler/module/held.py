"""What a call looks at before it uses what was computed before it: the tensors that stand where it would read.

    places(…)          where a stage reads what its values depend on
    standing(at, …)    the tensors that stand there now; None where one is not to be had this way
    Held               the values of a step stage, and by what is known that they still count

A call asks this of every layer, so it takes dictionary lookups and no more: a tensor that is computed when it is read
(parametrised, transposed, of a base that is no nn.Linear) has no place, and the caller finds it by the long way.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from torch import Tensor, nn

from padp.compiler.graph.stages import Leaf, Stage
from padp.compiler.module.freshness import Stamp
from padp.compiler.module.origins import Origin

Place: TypeAlias = "tuple[int, str]"
"""(which dictionary: the adapter's parameters, its buffers, the base's parameters; the key there)."""
PARAMETERS, BUFFERS, BASE = range(3)


def standing(at: Sequence[Place], module: nn.Module, base: nn.Module | None) -> list[Tensor] | None:
    """The tensors at these places."""
    here: Mapping[str, Tensor | None] = base._parameters if type(base) is nn.Linear else {}  # pyright: ignore[reportPrivateUsage]
    found = module._parameters, module._buffers, here  # pyright: ignore[reportPrivateUsage]
    made: list[Tensor] = []
    for which, key in at:
        t = found[which].get(key)
        if t is None:
            return None
        made.append(t)
    return made


def rooted_at(leaves: Sequence[Leaf], names: Mapping[str, str], has_bias: bool) -> tuple[Place, ...]:
    """Where W, the bias and the frozen tensors stand that something was computed from at the start, in this order."""
    return tuple((BUFFERS, names[name]) if kind == "param" else (BASE, kind) for kind, name in leaves
                 if kind != "bias" or has_bias)


def places(stage: Stage, module: nn.Module, names: Mapping[str, str], shared: Collection[str],
           seen_to: Collection[Leaf]) -> tuple[Place, ...]:
    """Where a stage reads what is not looked at elsewhere: learned tensors first, then the rest.

    ``names``: the attribute of each tensor; ``shared``: of those that other sites write to as well; ``seen_to``: what
    ``AdapterModule.minds`` has looked at.
    """
    learned: list[Place] = []
    given: list[Place] = []
    for kind, name in stage.leaves:
        match kind:
            case "param":
                attribute = names[name]
                if attribute in module._buffers:  # pyright: ignore[reportPrivateUsage]
                    given.append((BUFFERS, attribute))
                else:
                    (given if attribute in shared else learned).append((PARAMETERS, attribute))
            case "kept":
                given.append((BUFFERS, f"kept_{name}"))
            case "knob":
                given.append((BUFFERS, f"knob_{names[name]}"))
            case "weight" | "bias" if (kind, name) not in seen_to:
                given.append((BASE, kind))
            case _:
                pass
    return (*learned, *given)


@dataclass(frozen=True, slots=True)
class Held:
    """The values of a step stage, and what they were computed from: the stamp of the tensors at ``at``, and the
    ``origin``, of W and the frozen ones. Never changed, only replaced: a call that has taken it computes with values of
    one moment, whatever other threads do."""

    stage: Stage
    stamp: Stamp
    origin: Origin
    at: tuple[Place, ...]
    values: list[Tensor]
