"""Which tokens are the prompt's: every way to generate gives the same, a training step edits what generation will."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import padp.models as pm
from padp.models.hidden import HiddenSite
from padp.models.positions import Positions, marked, starts_of
from tests.models.test_hidden import by_hand, changed
from tests.support.families import Batch, Refused, cache_of, make_llama, make_opt, run, with_cache
from tests.support.programs import REFT

# ---------------------------------------------------------------- a literal reading


@contextmanager
def edited_by_hand(model: Any, places: Sequence[Sequence[int]]) -> Generator[None, None, None]:
    """The base, with the output of each block replaced at these tokens of each example."""
    handles = []
    for block in (m for m in model.modules() if isinstance(m._modules.get("padp_hidden"), HiddenSite)):
        site = cast(HiddenSite, block._modules["padp_hidden"])

        def edit(_m: nn.Module, _a: object, output: Any, site: HiddenSite = site) -> Any:
            h = output[0] if isinstance(output, tuple) else output
            new = h.clone()
            for b, tokens in enumerate(places):
                for t in tokens:
                    new[b, t] = site.only()(h[b, t], None)
            return (new, *output[1:]) if isinstance(output, tuple) else new

        handles.append(block.register_forward_hook(edit))
    try:
        with pm.disabled(model):
            yield
    finally:
        for handle in handles:
            handle.remove()


def make_gpt2() -> Any:
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    return GPT2LMHeadModel(GPT2Config(vocab_size=64, n_embd=32, n_layer=2, n_head=4, n_positions=64, bos_token_id=1,
                                      eos_token_id=2, pad_token_id=0)).eval()


def make_mistral() -> Any:
    from transformers import MistralConfig, MistralForCausalLM

    torch.manual_seed(0)
    return MistralForCausalLM(MistralConfig(
        vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, sliding_window=4, pad_token_id=0, eos_token_id=2)).eval()


def make_mamba() -> Any:
    from transformers import MambaConfig, MambaForCausalLM

    torch.manual_seed(0)
    return MambaForCausalLM(MambaConfig(vocab_size=64, hidden_size=32, num_hidden_layers=2, state_size=4,
                                        pad_token_id=0, eos_token_id=2)).eval()


def make_t5() -> Any:
    from transformers import T5Config, T5ForConditionalGeneration

    torch.manual_seed(0)
    config = T5Config(vocab_size=64, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4)
    config.decoder_start_token_id = 0
    return T5ForConditionalGeneration(config).eval()


FAMILIES = {"llama": make_llama, "gpt2": make_gpt2, "opt": make_opt, "mistral": make_mistral, "mamba": make_mamba}
IDS = torch.randint(3, 64, (2, 8), generator=torch.Generator().manual_seed(2))
MASK = torch.tensor([[1] * 8, [0] * 3 + [1] * 5])
SETTINGS: dict[str, Any] = {"max_new_tokens": 3, "min_new_tokens": 3, "do_sample": False, "eos_token_id": None,
                            "output_logits": True, "return_dict_in_generate": True, "pad_token_id": 0}


def generate(model: Any, rows: int = 2, **more: Any) -> tuple[Tensor, Tensor]:
    """The sequences, and the logits at every step (steps, rows, words)."""
    inputs = {"input_ids": (IDS * MASK)[:rows], "attention_mask": MASK[:rows]}
    out = model.generate(**{**inputs, **SETTINGS, **more})
    return out.sequences, torch.stack(out.logits)


def places_of(positions: str, mask: Tensor = MASK) -> list[list[int]]:
    f, last = {"f1+l1": (1, 1), "f2": (2, 0), "l2": (0, 2)}.get(positions, (99, 0))
    return [by_hand(Positions(f, last), [bool(x) for x in row]) for row in mask]


WAYS: dict[str, dict[str, Any]] = {
    "plain": {}, "without a cache": {"use_cache": False}, "chunks": {"prefill_chunk_size": 3},
    "chunks of one": {"prefill_chunk_size": 1}, "static cache": {"cache_implementation": "static"},
    "static cache, chunks": {"cache_implementation": "static", "prefill_chunk_size": 5}}


@pytest.mark.parametrize("positions", ["f1+l1", "f2", "l2", "all"])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_way_to_generate_edits_the_prompt(family: str, positions: str) -> None:
    """Against the base with the prompt's tokens edited by hand, over the whole text at each step."""
    model = FAMILIES[family]()
    pm.attach(model, REFT, positions=positions)
    for way, more in WAYS.items():
        if family == "mamba" and way not in ("plain", "without a cache"):
            continue  # transformers' own error
        sequences, logits = generate(model, **more)
        for step in range(3):
            text = sequences[:, :8 + step]
            mask = torch.cat([MASK, torch.ones(2, step, dtype=torch.long)], 1)
            batch = {"input_ids": text, "attention_mask": mask}
            if family in ("llama", "gpt2", "mistral"):
                batch["position_ids"] = (mask.cumsum(1) - 1).clamp(min=0)
            with edited_by_hand(model, places_of(positions)):
                wanted = run(model, batch)[:, -1]
            assert torch.allclose(logits[step], wanted, atol=1e-4), (way, step)


@pytest.mark.parametrize("more", [{"num_beams": 3, "use_cache": False}, {"num_beams": 2, "prefill_chunk_size": 3}],
                         ids=["without a cache", "chunks"])
def test_beams(llama: Any, more: dict[str, Any]) -> None:
    """Rows of one example stand together, each with its example's prompt."""
    pm.attach(llama, REFT, positions="f1+l1")
    plain, _ = generate(llama, num_beams=more["num_beams"])
    assert torch.equal(generate(llama, **more)[0], plain)


@pytest.mark.parametrize("how", ["drafts by another model", "drafts from the prompt", "drafts by a copy"])
def test_assisted_generation(how: str, llama: Any) -> None:
    """Several candidates come behind the prompt in one call."""
    pm.attach(llama, REFT, positions="f1+l1")
    more: dict[str, Any] = {"prompt_lookup_num_tokens": 2}
    if how != "drafts from the prompt":
        other = make_llama(num_hidden_layers=1)
        if how == "drafts by a copy":
            pm.attach(other, REFT, positions="l1")
        more = {"assistant_model": other}
    plain, logits = generate(llama, rows=1)
    again, theirs = generate(llama, rows=1, **more)
    assert torch.equal(again, plain) and torch.allclose(theirs, logits, atol=1e-5)


@pytest.mark.parametrize("positions", ["f1+l1", "all"])
def test_a_decoder_that_reads_an_encoder(positions: str) -> None:
    """Its prompt is what it is given to begin with; the encoder's is the whole input."""
    model = make_t5()
    pm.attach(model, REFT, r"(en|de)coder\.block\.1", positions=positions)
    begin = torch.tensor([[0, 9, 7], [0, 5, 4]])
    batch: Batch = {}
    ways: list[dict[str, Any]] = [{}, {"decoder_input_ids": begin}]
    for more in ways:
        length = 3 if more else 1
        plain, logits = generate(model, **more)
        uncached, theirs = generate(model, use_cache=False, **more)
        assert torch.equal(plain, uncached) and torch.allclose(logits, theirs, atol=1e-5)
        batch = {"input_ids": IDS * MASK, "attention_mask": MASK, "decoder_input_ids": plain[:, :-1]}
        labels = torch.cat([torch.full((2, length - 1), -100), torch.full((2, plain.shape[1] - length), 3)], 1)
        with pm.prompt(model, length=length):
            assert torch.allclose(run(model, batch)[:, length - 1:].movedim(0, 1), logits, atol=1e-5)
        assert torch.allclose(run(model, {**batch, "labels": labels})[:, length - 1:].movedim(0, 1), logits, atol=1e-5)
    assert changed(model, batch, "encoder.block.1")[1] == ([3, 7] if positions == "f1+l1" else [3, 4, 5, 6, 7])
    with Refused("E511", "does not say where"):
        model.train()(**batch)


def test_what_generate_cannot_say_is_refused(llama: Any) -> None:
    pm.attach(llama, REFT, positions="f1+l1")
    with Refused("E511", "no attention mask", "attention_mask="):
        generate(llama, attention_mask=None, prefill_chunk_size=3)
    generate(llama, attention_mask=None)  # the first call shows it whole
    with Refused("E511", "guidance_scale"):
        generate(llama, guidance_scale=1.5)
    with torch.no_grad():
        cache = cache_of(llama(IDS[:, :4], use_cache=True))
    with Refused("E511", "cache of 4 tokens", "leave the cache out"):
        generate(llama, attention_mask=None, input_ids=IDS, pad_token_id=None, **with_cache(llama, cache))
    pm.detach(llama)
    pm.attach(llama.model, REFT, positions="f1+l1")  # the model that generates is around the adapted one
    plain, _ = generate(llama)
    with Refused("E511", "without a cache", "use_cache=True"):
        generate(llama, use_cache=False)
    with Refused("E511", "3 tokens come behind a cache", "padp.prompt"):
        generate(llama, prefill_chunk_size=3)
    with pm.prompt(llama, mask=MASK):
        assert torch.equal(generate(llama, use_cache=False)[0], plain)
        assert torch.equal(generate(llama, prefill_chunk_size=3)[0], plain)


def test_a_cache_from_before_is_fine_for_first_tokens(llama: Any) -> None:
    pm.attach(llama, REFT, positions="f2")
    ids = IDS[:1]
    plain = generate(llama, 1, input_ids=ids, attention_mask=torch.ones_like(ids))[1]
    with torch.no_grad():
        cache = cache_of(llama(ids[:, :4], use_cache=True))
    again = generate(llama, 1, input_ids=ids, attention_mask=torch.ones_like(ids), **with_cache(llama, cache))[1]
    assert torch.allclose(plain, again, atol=1e-5)


# ---------------------------------------------------------------- a loop by hand


@pytest.mark.parametrize("positions", ["f1+l1", "f2", "l2", "all"])
@pytest.mark.parametrize("told", ["length", "lengths", "mask"])
def test_a_prompt_in_pieces(positions: str, told: str, llama: Any) -> None:
    pm.attach(llama, REFT, positions=positions)
    batch: Batch = {"input_ids": IDS * MASK, "attention_mask": MASK, "position_ids": (MASK.cumsum(1) - 1).clamp(min=0)}
    rows = slice(0, 1) if told == "length" else slice(None)
    batch = {name: t[rows] for name, t in batch.items()}
    whole = run(llama, batch)
    ways: dict[str, dict[str, Any]] = {"length": {"length": 8}, "lengths": {"length": [8, 5]}, "mask": {"mask": MASK}}
    say = ways[told]
    with torch.no_grad(), pm.prompt(llama, **say):
        cache, pieces = None, []
        for start, end in ((0, 3), (3, 7), (7, 8)):
            out = llama(batch["input_ids"][:, start:end], attention_mask=batch["attention_mask"][:, :end],
                        position_ids=batch["position_ids"][:, start:end], use_cache=True,
                        **({} if cache is None else with_cache(llama, cache)))
            cache = cache_of(out)
            pieces.append(out.logits)
    real = batch["attention_mask"].bool()
    assert torch.allclose(torch.cat(pieces, 1)[real], whole[real], atol=1e-5)
    with torch.no_grad():
        cache = cache_of(llama(batch["input_ids"][:, :3], use_cache=True))
        with Refused("E511", "5 tokens come behind a cache of 3", "padp.prompt"):
            llama(batch["input_ids"][:, 3:], **with_cache(llama, cache))


def test_what_is_no_prompt_is_refused(llama: Any) -> None:
    with Refused("E510", "no adapter"), pm.prompt(llama, length=3):
        pass
    pm.attach(llama, REFT, positions="l1")
    mistakes: list[dict[str, Any]] = [
        {}, {"length": 3, "mask": MASK}, {"length": -1}, {"length": 2.5}, {"length": "3"}, {"length": []},
        {"length": True}, {"mask": MASK[0]}, {"mask": [1, 1]}, {"length": torch.ones(2, 2)}]
    for wrong in mistakes:
        with Refused("E511", "prompt"), pm.prompt(llama, **wrong):
            pass
    with Refused("E511", "3 examples", "2"), pm.prompt(llama, length=[1, 2, 3]):
        run(llama, {"input_ids": IDS})
    with pm.prompt(llama, length=0):
        assert changed(llama, {"input_ids": IDS}) == [[], []]
    with pm.prompt(llama, length=3), pm.prompt(llama, length=2):
        assert changed(llama, {"input_ids": IDS}, "model.layers.0") == [[1], [1]]
    pm.detach(llama)
    pm.attach(llama, pm_lora())
    with Refused("E511", "hidden states"), pm.prompt(llama, length=3):
        pass


def pm_lora() -> Any:
    from tests.support.programs import LORA

    return LORA


# ---------------------------------------------------------------- training: prompt and answer


def answered(ids: Tensor, mask: Tensor, prompts: Sequence[int]) -> Tensor:
    """Labels of −100 at padding and at each example's prompt."""
    labels = ids.masked_fill(mask == 0, -100)
    for row, real, length in zip(labels, mask, prompts, strict=True):
        row[real.nonzero().flatten()[:length]] = -100
    return labels


@pytest.mark.parametrize("positions", ["f1+l1", "f2", "l2", "all"])
@pytest.mark.parametrize("padding", ["left", "right"])
@pytest.mark.parametrize("how", ["labels", "length", "mask"])
def test_a_training_step_edits_what_generation_edits(positions: str, padding: str, how: str) -> None:
    model = make_llama().train()
    pm.attach(model, REFT, layers=[0], positions=positions)
    mask = MASK if padding == "left" else MASK.flip(1)
    ids = IDS * mask
    lengths = [5, 3]
    labels = answered(ids, mask, lengths)
    prompt = (mask == 1) & (labels == -100)
    batch: Batch = {"input_ids": ids, "attention_mask": mask}
    match how:
        case "labels":
            found = changed(model, {**batch, "labels": labels}, "model.layers.0")
        case "length":
            with pm.prompt(model, length=torch.tensor(lengths)):
                found = changed(model, batch, "model.layers.0")
        case _:
            with pm.prompt(model, mask=prompt):
                found = changed(model, {**batch, "labels": ids}, "model.layers.0")
    assert found == [sorted(row) for row in places_of(positions, prompt)]


@pytest.mark.parametrize("positions", ["f1+l1", "l2", "all"])
def test_a_training_step_that_does_not_say_its_prompt_is_refused(positions: str) -> None:
    model = make_llama().train()
    pm.attach(model, REFT, positions=positions)
    with Refused("E511", "prompt's end", "does not say where", "-100", "padp.prompt"):
        model(IDS)
    with Refused("E511", "begin at an example's first token", "-100"):
        model(IDS, labels=IDS)
    labels = answered(IDS, torch.ones_like(IDS), [5, 0])
    with Refused("E511", "begin at an example's first token"):
        model(IDS, labels=labels)
    model(IDS, labels=answered(IDS, torch.ones_like(IDS), [5, 8])).loss.backward()  # an example without an answer
    with torch.no_grad():
        model(IDS)  # no training step: all of it is the prompt, as in generation
    with pm.prompt(model, mask=torch.ones_like(IDS)):
        model(IDS).logits.sum().backward()


def test_first_tokens_need_no_end() -> None:
    model = make_llama().train()
    pm.attach(model, REFT, layers=[0], positions="f2")
    model(IDS).logits.sum().backward()
    assert changed(model, {"input_ids": IDS, "labels": IDS}, "model.layers.0") == [[0, 1], [0, 1]]


@pytest.mark.filterwarnings("ignore:the output head classifier looks untrained")
def test_models_that_do_not_generate_take_the_whole_text() -> None:
    """Labels of −100 at special tokens are no prompt there."""
    from transformers import BertConfig, BertForTokenClassification

    torch.manual_seed(0)
    bert = BertForTokenClassification(BertConfig(vocab_size=64, hidden_size=32, num_hidden_layers=2,
                                                 num_attention_heads=4, intermediate_size=48)).train()
    for module in bert.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    pm.attach(bert, REFT, positions="l1")
    labels = torch.zeros_like(IDS)
    labels[:, 0] = -100
    bert(IDS, labels=labels).loss.backward()
    assert changed(bert, {"input_ids": IDS, "labels": labels}, "bert.encoder.layer.0") == [[7], [7]]


# ---------------------------------------------------------------- packed rows


@given(st.integers(0, 3), st.integers(0, 3), st.lists(st.tuples(st.integers(1, 6), st.integers(0, 3)), min_size=1,
                                                      max_size=5))
def test_examples_packed_into_a_row(first: int, last: int, examples: list[tuple[int, int]]) -> None:
    """Each (prompt, answer) as alone."""
    if first + last == 0:
        return
    positions = Positions(first, last)
    prompt = torch.tensor([[p < a for a, b in examples for p in range(a + b)]])
    ids = torch.tensor([[p for a, b in examples for p in range(a + b)]])
    wanted, at = [], 0
    for a, b in examples:
        wanted += [at + t for t in by_hand(positions, [True] * a + [False] * b)]
        at += a + b
    starts = starts_of(ids, torch.ones_like(prompt))
    assert marked(positions, prompt, starts)[0].nonzero().flatten().tolist() == sorted(wanted)


@pytest.mark.parametrize("positions", ["f1+l1", "f2", "l2", "all"])
@pytest.mark.parametrize("how", ["position_ids", "cu_seq_lens_q"])
@pytest.mark.parametrize("answers", [True, False])
def test_packed_rows_are_edited_by_example(positions: str, how: str, answers: bool) -> None:
    model = make_llama(num_hidden_layers=1)
    pm.attach(model, REFT, positions=positions)
    examples = [(3, 2), (1, 1), (4, 3)] if answers else [(3, 0), (1, 0), (6, 0)]
    length = sum(a + b for a, b in examples)
    ids = torch.randint(3, 64, (1, length), generator=torch.Generator().manual_seed(4))
    batch: Batch = {"input_ids": ids, "position_ids": torch.tensor([[p for a, b in examples for p in range(a + b)]])}
    if how == "cu_seq_lens_q":
        ends = torch.tensor([0, *[a + b for a, b in examples]]).cumsum(0).to(torch.int32)
        batch = {"input_ids": ids, "cu_seq_lens_q": ends, "cu_seq_lens_k": ends}
    wanted, at = [], 0
    prompt = torch.zeros(1, length, dtype=torch.bool)
    for a, b in examples:
        wanted += [at + t for t in places_of(positions, torch.ones(1, a))[0]]
        prompt[0, at:at + a] = True
        at += a + b
    if answers:
        with pm.prompt(model, mask=prompt):
            assert changed(model, batch, "model.layers.0") == [sorted(wanted)]
        if how == "position_ids":
            with Refused("E511", "packed"), pm.prompt(model, length=3):
                run(model, batch)
        batch["labels"] = ids.masked_fill(prompt, -100)
    assert changed(model, batch, "model.layers.0") == [sorted(wanted)]


def test_padding_is_no_packing(llama: Any) -> None:
    """Positions of padding, as models fill them in, begin no example."""
    pm.attach(llama, REFT, layers=[0], positions="f1+l1")
    for fill in (0, 1):
        ids = (MASK.cumsum(1) - 1).masked_fill(MASK == 0, fill)
        batch = {"input_ids": IDS, "attention_mask": MASK, "position_ids": ids}
        assert changed(llama, batch, "model.layers.0") == [[0, 7], [3, 7]]
        holes = torch.tensor([[1, 1, 0, 0, 1, 1, 1, 1], [1] * 8])
        ids = (holes.cumsum(1) - 1).masked_fill(holes == 0, fill)
        assert changed(llama, {"input_ids": IDS, "attention_mask": holes, "position_ids": ids},
                       "model.layers.0") == [[0, 7], [0, 7]]
