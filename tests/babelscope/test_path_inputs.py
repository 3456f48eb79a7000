"""Queries, keys and values of a receiving head: each apart against plain hooks on the projections."""

import pytest
import torch
from circuit_cases import EN, FI, planted
from conftest import tiny_model, tiny_tokenizer

from babelscope.errors import SelectionError, SiteError
from babelscope.models import layout_of
from babelscope.probes.circuits.effect_maps import givers_of
from babelscope.probes.circuits.path_patching import HEAD_INPUTS, input_changes, moved_on_path, path_effects
from babelscope.probes.circuits.task_prompts import aligned_places, task_pairs
from babelscope.probes.circuits.unit_patching import PromptRuns, Swap


def by_hand_on_inputs(model, pairs, sender, receiver, names):
    """Moved differences where only some of the projections of one receiver see the sender: plain hooks alone."""
    attention, width = [layer.self_attn for layer in model.model.layers], 8
    groups = model.config.num_attention_heads // model.config.num_key_value_heads
    moved = []
    for pair in pairs:

        def run(prompt, before=None, after=None, pair=pair):
            """before: of what the output projections read; after: of what the receiver's projections give."""
            handles = [
                part.o_proj.register_forward_pre_hook(lambda _, x, n=n: (before(n, x[0].clone()), *x[1:]))
                for n, part in enumerate(attention)
                if before
            ] + [
                attention[receiver[0]]
                .get_submodule(f"{name[0]}_proj")
                .register_forward_hook(lambda _, __, y, name=name: after(name, y.clone()))
                for name in ("query", "key", "value")
                if after
            ]
            with torch.no_grad():
                logits = model(torch.tensor([prompt.ids])).logits[0, -1]
            for handle in handles:
                handle.remove()
            return float(logits[pair.answer] - logits[pair.foil])

        clean, corrupt, sent, seen = {}, {}, {}, {}

        def store(into):
            return lambda key, value: into.setdefault(key, value)

        run(pair.clean, store(clean))
        base = run(pair.corrupt, store(corrupt))

        def freeze(number, value, clean=clean, corrupt=corrupt, pair=pair):
            new = corrupt[number].clone()
            if number == sender[0]:
                columns = slice(sender[1] * width, (sender[1] + 1) * width)
                for to, of in aligned_places(pair.corrupt, pair.clean):
                    new[0, to, columns] = clean[number][0, of, columns]
            return new

        def some(name, value, sent=sent):
            head = receiver[1] // (1 if name == "query" else groups)
            columns = slice(head * width, (head + 1) * width)
            if name in names:
                value[..., columns] = sent[name][..., columns]
            return value

        def look(number, value, seen=seen, corrupt=corrupt):
            seen[number] = value
            return corrupt[number].clone()

        def receive(number, value, seen=seen):
            columns = slice(receiver[1] * width, (receiver[1] + 1) * width)
            if number == receiver[0]:
                value[..., columns] = seen[number][..., columns]
            return value

        run(pair.corrupt, freeze, store(sent))
        run(pair.corrupt, look, some)
        moved.append(run(pair.corrupt, receive) - base)
    return moved


@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma3_text"])  # gemma and qwen norm queries and keys
@pytest.mark.parametrize("names", [("query",), ("key",), ("value",), ("query", "value")])
def test_inputs_of_a_receiver_equal_plain_hooks_on_its_projections(family, names):
    model, tokenizer = tiny_model(family, dtype=torch.float64), tiny_tokenizer()
    sender, receiver = (0, 1), (2, 3)
    effects = path_effects(model, tokenizer, FI[:4], senders=[sender], receivers=[receiver], inputs=names)
    moved = by_hand_on_inputs(model, task_pairs(tokenizer, FI[:4]), sender, receiver, names)
    assert effects.shift[0].tolist() == pytest.approx(moved, abs=1e-10) and max(map(abs, moved)) > 1e-9
    assert f"on its way to the {' and '.join(names)} of 2.attn_heads[3]" in effects.rows(50)[0].claim


def test_all_inputs_are_the_whole_head_and_an_input_that_stays_changes_nothing():
    model, tokenizer = tiny_model("llama", dtype=torch.float64), tiny_tokenizer()
    runs = PromptRuns.record(layout_of(model), task_pairs(tokenizer, EN))
    sources = givers_of(len(EN), "denoise", "partner", 0)
    parts = [
        moved_on_path(runs, (0, 1), [(2, 3), (1, 0)], "denoise", sources, inputs)
        for inputs in (HEAD_INPUTS, ("value", "key", "query"), ("key", "value"))
    ]
    assert torch.equal(parts[0], parts[1]) and not torch.allclose(parts[0], parts[2], atol=1e-9)
    blind = planted()  # its queries are 0, whatever comes in
    of_queries = path_effects(blind, tokenizer, EN, senders=[(0, 0)], receivers=[(1, 2)], inputs=["query"])
    assert of_queries.shift.abs().max() < 1e-12  # runs of other batches differ in the last bits
    runs, takers = PromptRuns.record(layout_of(blind), task_pairs(tokenizer, EN)), [1, 3]
    held = runs.edits([Swap(1, 0, ((0, 0),)), Swap(3, 2, ((0, 0),))])
    changes = input_changes(runs, takers, held, {1}, ["query"])
    assert set(changes) == {1} and torch.equal(changes[1], torch.zeros_like(changes[1]))
    with pytest.raises(SelectionError, match="some of query, key, value, each once"):
        path_effects(model, tokenizer, EN, receivers=[(2, 3)], inputs=["query", "query"])
    with pytest.raises(SelectionError, match="without receivers"):
        path_effects(model, tokenizer, EN, inputs=["query"])
    with pytest.raises(SiteError, match="attention"):
        bloom = tiny_model("bloom", dtype=torch.float64)
        path_effects(bloom, tokenizer, EN, senders=[(0, 1)], receivers=[(2, 3)], inputs=["key"])
