"""Adapters on real models: attach and detach, switch, train, merge, save and load.

    walk, places, heads, sizing        what a model has: its modules, where adapters can sit, of which sizes
    arguments, patterns, selecting     what was given, which of these are meant
    building, saved, record, owners    what is put there, and what is remembered
    notes, reminders                   what is said of it
    hidden, attention                  sites that are no linear layer
    positions, told, calls, reading    which tokens of a call a hidden site edits
    fast_paths, uncalled               what would bypass them
    attaching, detaching, restarting, merging, refreshing, training, prompting, checkpoint, files, listing
                                       the public functions
"""

from __future__ import annotations

from padp.models.attaching import activate, attach, decoding, disabled
from padp.models.checkpoint import load, save
from padp.models.detaching import detach
from padp.models.listing import summary, targets
from padp.models.merging import merge, unmerge
from padp.models.prompting import prompt
from padp.models.refreshing import refresh
from padp.models.restarting import restart
from padp.models.training import penalty, trainable, update
from padp.models.training import set_knobs as set

__all__ = [
    "activate", "attach", "decoding", "detach", "disabled", "load", "merge", "penalty", "prompt", "refresh", "restart",
    "save", "set", "summary", "targets", "trainable", "unmerge", "update",
]
