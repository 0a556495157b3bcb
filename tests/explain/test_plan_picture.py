"""The picture of a plan: nothing above the bands is cut off."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

import pytest
from torch import nn

import padp
from padp.compiler.explain.picture import picture


@pytest.mark.parametrize("name", ["lora", "dora", "adalora", "ia3"])
@pytest.mark.parametrize("regime", ["train", "eval", "decode"])
def test_the_head_fits_the_width(name: str, regime: str) -> None:
    """Title, costs and legend stand in lines within the picture, each below the last and above the first band."""
    adapter = padp.compile(name)
    layer = adapter(nn.Linear(24, 16), **({"steps": 9} if "steps" in adapter.hyper else {}))
    root = ElementTree.fromstring(picture(layer.plan, regime))
    width = float(root.attrib["width"])
    band = next(part for part in root if part.tag.endswith("rect") and "rx" in part.attrib)
    head = [part for part in root if part.tag.endswith("text") and float(part.attrib["y"]) < float(band.attrib["y"])]
    assert "■ stored" in str(head[-1].text) and len(head) >= 3
    assert [float(p.attrib["y"]) for p in head] == sorted({float(p.attrib["y"]) for p in head})
    for part in head:  # the widest sans-serif takes about 0.62 of its size a letter
        room = len(str(part.text)) * 0.59 * float(part.attrib.get("font-size", 12))
        assert float(part.attrib["x"]) + room <= width, part.text
