"""The twenty adapters as the demo trains them, each with the defaults of its file where nothing else is written.

The learning rate is by adapter, because a step of one size means different things for an angle, a scale and a
coefficient of a spectrum. Steps, batches and their order are the same for everybody.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

STEPS = 24
BATCH = 16
HELD_OUT = 300


@dataclass(frozen=True)
class Recipe:
    """A name of the library, its hyperparameters where they are not the defaults, and the learning rate."""

    name: str
    rate: float
    hyper: Mapping[str, Any] = field(default_factory=dict[str, Any])


RECIPES = (
    Recipe("lora", 2e-3),
    Recipe("oft", 1e-3),
    Recipe("vera", 5e-2),
    Recipe("dora", 2e-3),
    Recipe("delora", 2e-3),
    Recipe("pissa", 1e-3),
    Recipe("svft", 2e-2),
    Recipe("ssvd", 2e-3),
    Recipe("ia3", 2e-2),
    Recipe("road", 1e-2),
    Recipe("antipasto", 2e-3),
    Recipe("adalora", 2e-2, {"steps": STEPS, "α": 32}),
    Recipe("boft", 5e-3),
    Recipe("goft", 1e-2),
    Recipe("hra", 1e-3),
    Recipe("randlora", 5e-4),
    Recipe("fourierft", 5e-2),
    Recipe("clover", 5e-3),
    Recipe("psoft", 2e-3),
    Recipe("reft", 2e-3, {"positions": "all"}),
)
