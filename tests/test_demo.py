"""The demo, small: its corpus leaks nothing, everybody's recipe fits, and a new process puts out the same."""

from __future__ import annotations

import copy
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import padp
from padp.cli import USAGE, main
from padp.compiler.library import library
from padp.demo.corpus import Corpus, Pair, distinct, files, first_sentence, keys, pairs, read
from padp.demo.encoder import LOWER, Batch, Upper, batches, load, lowered, upper, whole
from padp.demo.recipes import RECIPES, Recipe
from padp.demo.reload import compare_in_new_process
from padp.demo.report import Run, plot
from padp.demo.story import run_recipe
from padp.demo.training import Found, search, train

Encoder = tuple[nn.Module, Any]


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return read(training=("jinja2", "numpy"), held_out=("networkx",))


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return load()


# ---------------------------------------------------------------- the corpus


def test_pairs_of_a_file() -> None:
    text = '''
def shortest(G, source):
    """Return the shortest path from a source. It is a list.

    More of it.
    """
    found = G.walk(source)
    return sorted(found, key=len)[0]

def _private(G):
    """Return what nobody asks for here."""
    return G.walk(G.first), G.walk(G.last)

def terse(G):
    """Two words."""
    return G.walk(G.first), G.walk(G.last)
'''
    (pair,) = pairs("here", text)
    assert pair == Pair("here", "shortest", "Return the shortest path from a source.",
                        "found = G.walk(source) return sorted(found, key=len)[0]")
    assert list(pairs("here", "def broken(:")) == []


def test_first_sentence() -> None:
    assert first_sentence("One\nsentence here. Another one.\n\nMore.") == "One sentence here."
    assert first_sentence("The e.g. of an abbreviation stays.") == "The e.g. of an abbreviation stays."
    assert first_sentence(">>> 1 + 1") == first_sentence("") == ""


def test_corpus_does_not_leak(corpus: Corpus) -> None:
    assert len(corpus.training) > 300 and len(corpus.held_out) > 500
    assert {pair.package for pair in corpus.training}.isdisjoint({pair.package for pair in corpus.held_out})
    training = [key for pair in corpus.training for key in keys(pair)]
    held_out = [key for pair in corpus.held_out for key in keys(pair)]
    assert set(training).isdisjoint(held_out)
    assert len(set(training)) == len(training) and len(set(held_out)) == len(held_out)
    assert read(training=("jinja2", "numpy"), held_out=("networkx",)) == corpus


def test_code_does_not_hold_its_sentence(corpus: Corpus) -> None:
    assert [pair for pair in corpus.held_out if pair.sentence in pair.code] == []


def test_what_counts_as_the_same() -> None:
    one = Pair("a", "to_list", "Make a list of it.", "return list(it)")
    others = [Pair("b", "tolist", "Something else here.", "x = 1"), Pair("b", "f", "make a list of it", "x = 2"),
              Pair("b", "g", "Other words again.", "return  list( it )"), Pair("b", "h", "New words here.", "x = 3")]
    assert distinct([one, *others], set()) == [one, others[-1]]
    assert distinct(others, set(keys(one))) == [others[-1]]


def test_files() -> None:
    assert files("no_such_package_here") == []
    assert not any("test" in path.name for path in files("networkx"))


# ---------------------------------------------------------------- training and measuring


def test_ranks() -> None:
    similar = torch.tensor([[0.9, 0.1, 0.2], [0.8, 0.7, 0.1], [0.5, 0.4, 0.3]])
    units = torch.eye(3)
    found = search(nn.Identity(), lambda _, side: side.inputs,
                   [Batch(sentences=_side(similar), code=_side(units))])
    assert found.ranks.tolist() == [1, 2, 3]
    assert found.mrr == pytest.approx((1 + 1 / 2 + 1 / 3) / 3)
    assert found.within(2) == pytest.approx(2 / 3)
    gain, error = found.gain(Found(torch.tensor([1, 1, 1]), similar))
    assert gain == pytest.approx(-(1 / 2 + 2 / 3) / 3) and error > 0


def _side(inputs: torch.Tensor) -> Any:
    from padp.demo.encoder import Side

    return Side(inputs, torch.ones(len(inputs), 1))


def test_the_halves_are_the_whole(encoder: Encoder, corpus: Corpus) -> None:
    model, tokenizer = encoder
    (batch,) = batches(tokenizer, corpus.held_out[:4], 4)
    with torch.no_grad():
        halves = upper(Upper(model).eval(), lowered(model, batch).code)
        torch.testing.assert_close(halves, whole(model, batch.code), rtol=0, atol=1e-5)


def test_every_adapter_has_a_recipe() -> None:
    assert sorted(recipe.name for recipe in RECIPES) == sorted(library())


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_every_recipe_runs(recipe: Recipe, encoder: Encoder, corpus: Corpus) -> None:
    """On one block: it trains, it is measured, and training changed what the block puts out."""
    model, tokenizer = encoder
    (batch,) = [lowered(model, each) for each in batches(tokenizer, corpus.training[:4], 4)]
    half = Upper(model).eval()
    half.layer = half.layer[:1]
    before = search(half, upper, [batch])
    run = run_recipe(recipe, half, [batch] * 2, [batch], before)
    assert run.scalars > 0 and 0 < run.mrr <= 1
    again = copy.deepcopy(half)
    padp.attach(again, padp.compile(recipe.name), **recipe.hyper)
    train(again, upper, [batch] * 2, 2, recipe.rate)
    assert not torch.equal(search(again, upper, [batch]).similar, before.similar)


def test_training_learns(encoder: Encoder, corpus: Corpus) -> None:
    """On the pairs that it sees, the loss falls; the frozen part stays as it is."""
    model, tokenizer = encoder
    (batch,) = [lowered(model, each) for each in batches(tokenizer, corpus.training[:8], 8)]
    half = Upper(model).eval()
    frozen = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    padp.attach(half, padp.compile("lora"))
    trained = train(half, upper, [batch] * 6, 6, 5e-3)
    assert trained.losses[-1] < 0.8 * trained.losses[0]
    padp.detach(half)
    assert all(torch.equal(tensor, frozen[name]) for name, tensor in model.state_dict().items())
    assert LOWER == 3


# ---------------------------------------------------------------- a new process


def test_a_new_process_puts_out_the_same(encoder: Encoder, corpus: Corpus, tmp_path: Path) -> None:
    model, tokenizer = copy.deepcopy(encoder[0]), encoder[1]
    (batch,) = batches(tokenizer, corpus.training[:4], 4)
    padp.attach(model, padp.compile("lora"), targets=["value"], r=2)
    train(model, whole, [batch] * 2, 2, 1e-2)
    with torch.no_grad():
        outputs = whole(model, batch.code)
    padp.save(model, tmp_path / "lora")
    kept = {"inputs": batch.code.inputs, "attention_mask": batch.code.attention_mask, "outputs": outputs}
    save_file(kept, tmp_path / "outputs.safetensors")
    loaded = compare_in_new_process(tmp_path / "lora", tmp_path / "outputs.safetensors")
    assert loaded["unmerged"] <= 1e-6 and loaded["merged"] <= 1e-4

    with torch.no_grad(), padp.disabled(model):  # and it would say so if it did not
        base = whole(model, batch.code)
    assert float((base - outputs).abs().max()) > 1e-4
    assert torch.equal(load_file(tmp_path / "outputs.safetensors")["outputs"], outputs)


def test_a_broken_checkpoint_is_said(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="the new process failed"):
        compare_in_new_process(tmp_path / "none", tmp_path / "none.safetensors")


# ---------------------------------------------------------------- the command


def test_plot(tmp_path: Path) -> None:
    run = Run("lora", "LoRA", "linear", "r=8", 1e-3, 1000, 0.1, 0.2, 0.4, 0.5, 0.01, 0.01)
    plot([run], 0.39, tmp_path / "adapters.png")
    assert (tmp_path / "adapters.png").read_bytes().startswith(b"\x89PNG")


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def without_matplotlib(name: str) -> object:
        return None if name == "matplotlib" else find_spec(name)

    monkeypatch.setattr("padp.cli.demo.find_spec", without_matplotlib)
    assert main(["demo"]) == USAGE
    said = capsys.readouterr().err
    assert "matplotlib" in said and "transformers" not in said and "pip install 'padp[demo]'" in said
