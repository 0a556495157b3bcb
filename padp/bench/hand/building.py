"""Hand-written forms in the place of a model's linear layers, and around one layer."""

from __future__ import annotations

from typing import cast

from torch import nn

import padp
from padp.bench.hand import FORMS
from padp.bench.hand.form import Form, Hand
from padp.bench.measure import Built
from padp.compiler.adapter import Adapter
from padp.compiler.module.site import LinearSite


def form_of(adapter: str) -> Form | None:
    """The hand-written form of an adapter of the library."""
    return next((form for form in FORMS if form.adapter == adapter), None)


def around(form: Form, base: nn.Linear) -> Hand:
    """The form around one layer, starting from the numbers that the compiled adapter starts from."""
    adapter = cast(Adapter, padp.compile(form.adapter))
    module = cast(LinearSite, adapter(base, variant=form.variant, **form.hyper)).only()
    tensors = {module.names[name]: module.tensors[name] for name in module.tensors}
    return form.make(base, tensors, adapter.settings(form.variant, **form.hyper).hyper)


def by_hand(form: Form, base: nn.Module) -> Built:
    """One layer adapted by hand. It takes its start from ours, so there is no attaching to time; it does not merge."""
    return Built(around(form, cast(nn.Linear, base)), None, None, attached=False)


def model_by_hand(form: Form, model: nn.Module, paths: list[str]) -> Built:
    """A model with the form in the place of these layers."""
    model.requires_grad_(False)
    for path in paths:
        parent, _, name = path.rpartition(".")
        setattr(model.get_submodule(parent), name, around(form, cast(nn.Linear, model.get_submodule(path))))
    return Built(model, None, None, attached=False)
