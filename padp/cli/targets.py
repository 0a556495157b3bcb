"""``padp targets MODEL``: the linear layers of a model on disk that an adapter would go to."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterable, Sequence

from padp.cli.options import open_model
from padp.cli.output import console, number, plural, share, table
from padp.weights import StoredLinear, StoredModel, chosen


def run(arguments: Namespace) -> int:
    model = open_model(arguments.model)
    layers = chosen(model.linears, arguments.targets, arguments.exclude)
    out = console()
    rows = table("suffix", "W", ">layers", ">scalars", "example")
    for (suffix, m, n), group in grouped(layers).items():
        rows.add_row(suffix, f"{m}×{n}", number(len(group)), number(m * n * len(group)), group[0].name)
    out.print(rows)
    scalars = sum(layer.m * layer.n for layer in layers)
    out.print(
        f"{plural(len(layers), 'linear layer')}, {number(scalars)} scalars in their W: "
        f"{share(scalars, model.scalars)} of {number(model.scalars)}"
    )
    for remark in remarks(model):
        out.print(remark, style="dim")
    return 0 if layers else 1


def grouped(layers: Iterable[StoredLinear]) -> dict[tuple[str, int, int], Sequence[StoredLinear]]:
    """Layers by the last part of their name and their shape, in order of appearance."""
    groups: dict[tuple[str, int, int], list[StoredLinear]] = {}
    for layer in layers:
        groups.setdefault((suffix(layer.name), layer.m, layer.n), []).append(layer)
    return {key: groups[key] for key in groups}


def suffix(name: str) -> str:
    """What tells a layer from others: the last part of its name, or two where one says little (``output.dense``)."""
    parts = name.split(".")
    return ".".join(parts[-2:]) if parts[-1] == "dense" and len(parts) > 1 else parts[-1]


def remarks(model: StoredModel) -> list[str]:
    """What names and shapes alone cannot tell, and what is left out, with its share of the model."""
    said = ["Read from names and shapes: embeddings and the output head are left out by their names and the "
            "vocabulary's size. Names are those in the file; transformers may load it under others."]
    if model.experts:
        said.append(f"{share(model.experts, model.scalars)} of the model are experts and what chooses among them: not "
                    "listed, because transformers loads them as parameters, not as linear layers, and \"all-linear\" "
                    "leaves them out.")
    if model.others:
        scalars = sum(tensor.size for tensor in model.others)
        said.append(f"{plural(len(model.others), 'parameter')} that no linear layer has ({model.others[0].name}, …): "
                    f"not listed, {share(scalars, model.scalars)} of the model.")
    if model.packed:
        packed = plural(model.packed, "weight")
        said.append(f"{packed} in a packed (quantised) format: not listed, because their shape is not W's.")
    return said
