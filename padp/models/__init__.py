"""Adapters on real models: attach and detach, switch, train, merge, save and load.

    walk, patterns, places, heads   what a model has        record, saved, building   what padp puts there
    selecting, attaching, merging, training, checkpoint, listing                      the public functions
    hidden, prompt, attention       sites that are no linear layer
"""

from __future__ import annotations

from padp.models.attaching import activate, attach, detach, disabled
from padp.models.checkpoint import load, save
from padp.models.listing import summary, targets
from padp.models.merging import merge, unmerge
from padp.models.training import penalty, trainable, update
from padp.models.training import set_knobs as set

__all__ = [
    "activate", "attach", "detach", "disabled", "load", "merge", "penalty", "save", "set", "summary", "targets",
    "trainable", "unmerge", "update",
]  # fmt: skip
