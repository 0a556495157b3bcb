"""``padp demo``: code search with a pretrained sentence encoder, from the program of an adapter to a trained model.

    corpus     functions of installed packages: the first sentence of the docstring, and the code without it
    encoder    MiniLM, whole or its upper half over what the lower half puts out
    training   one loop for everybody, and what is measured on held-out text
    recipes    the twenty adapters with their settings and learning rates
    reload     a checkpoint in a new process
    report     tables and plot
    story      all of it, in order
"""

from __future__ import annotations

from padp.demo.story import demo

__all__ = ["demo"]
