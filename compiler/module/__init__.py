"""Modules: an adapter's tensors at one site, and what happens to them.

In: a ``Compiled`` and a layer. Out: nn.Modules in the place of the layer.

    module, starting, shared     tensors and forward of one adapter; what they start from; what all sites share
    site                         the place in a model: its adapters, which are active, merging
    attention_maps               an attention's maps when it runs
    linear_layer                 what a linear layer is
    weights, reads               what the weight of a layer is; who reads it without calling the layer
    held, freshness, origins, reloading, complexes    what is kept from call to call, and when it no longer counts
    acting, first_runs, moments  which adapters act in a call; calls while other threads change something
    keys, ambient                keys in state dicts; what surrounds an attachment
"""
