"""Rows that are learnt from the model's own states: what the loss is, what changes, and what the control does."""

from contextlib import nullcontext

import numpy as np
import pytest
import torch
from vocabulary_cases import KINDS, lines, model_for, tokenizer_of

from babelscope import extend_vocabulary
from babelscope.errors import CorpusError
from babelscope.vocabulary.distilled_rows import distillation_loss, passages_of, states_of
from babelscope.vocabulary.extension import new_entries
from babelscope.vocabulary.row_packs import pack_of
from babelscope.vocabulary.token_tables import token_tables

NEW = 30


def case(kind):
    tokenizer = tokenizer_of(kind)
    model = model_for(tokenizer, family="phi")
    new = new_entries(tokenizer, lines("cy", count=60), rows=token_tables(model).rows, size=NEW)
    return model, tokenizer, new


@pytest.mark.parametrize("kind", KINDS)
def test_passages_hold_the_same_text_in_both_cuts(kind):
    _, tokenizer, new = case(kind)
    passages = list(passages_of(new))
    assert passages
    for passage in passages:
        assert set(passage.after) & set(new.ids)
        for before, after in passage.ends:
            texts = [
                cutter.decode(ids[: place + 1], skip_special_tokens=True)
                for cutter, ids, place in (
                    (tokenizer, passage.before, before),
                    (new.successor, passage.after, after),
                )
            ]
            assert texts[0] == texts[1]
        first = min(place for place, index in enumerate(passage.after) if index in new.ids)
        assert [after for _, after in passage.ends][0] == first


def test_the_loss_is_that_of_plain_transformers_in_float64():
    model, _, new = case("byte-level")
    passages = list(passages_of(new))[:3]
    pairs = [(passage, states_of(model, passage)) for passage in passages]
    with torch.no_grad():
        plain = [
            model.model(torch.tensor([passage.before])).last_hidden_state[0].double().numpy() for passage in passages
        ]
        distance = size = nats = 0.0
        tokens = 0
        with pack_of(model, new, "extend", "subword").applied(model):
            loss = distillation_loss(model, pairs)
            for passage, before in zip(passages, plain, strict=True):
                output = model(torch.tensor([passage.after]), output_hidden_states=True)
                after = output.hidden_states[-1][0].double().numpy()
                for i, j in passage.ends:
                    distance += float(np.square(after[j] - before[i]).sum())
                    size += float(np.square(before[i]).sum())
                log = output.logits[0].double().log_softmax(dim=-1)
                nats -= float(sum(log[place, index] for place, index in enumerate(passage.after[1:])))
                tokens += len(passage.after) - 1
    assert float(loss.states) == pytest.approx(distance / size, rel=1e-5)
    assert float(loss.following) == pytest.approx(nats / tokens, rel=1e-5)


def test_only_new_rows_are_learnt_and_the_control_learns_others():
    model, tokenizer, _ = case("unigram")
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    kinds = [("distill", 0), ("distill", 0), ("distill", 1), ("distill-shuffled", 0), ("subword", 0)]
    packs = []
    for number, (init, seed) in enumerate(kinds):
        with torch.inference_mode() if number == 1 else nullcontext():  # whatever the caller has switched off
            packs.append(
                extend_vocabulary(model, tokenizer, lines("cy", count=24), size=10, min_count=3, init=init, seed=seed)
            )
    assert all(torch.equal(before[name], value) for name, value in model.named_parameters())
    assert not any(
        name for name, value in model.named_parameters() if not value.requires_grad or value.grad is not None
    )
    learnt, again, *others, subword = packs
    assert learnt.digest == again.digest
    assert len({pack.digest for pack in (learnt, *others, subword)}) == 4
    account = learnt.parameters["distillation"]
    assert account["unseen_loss"][0] == 1 and min(account["unseen_loss"]) < 0.95
    assert account["passages"] >= 10
    assert learnt.head_rows is not None and subword.head_rows is not None
    assert not torch.equal(learnt.rows, subword.rows) and not torch.equal(learnt.head_rows, subword.head_rows)
    with learnt.applied(model):
        assert torch.equal(
            model.get_input_embeddings().weight[: len(tokenizer)], before["model.embed_tokens.weight"][: len(tokenizer)]
        )


def test_learnt_rows_lower_both_terms():
    model, tokenizer, new = case("byte-level")
    pack = pack_of(model, new, "extend", "subword")
    learnt = pack_of(model, new, "extend", "distill")
    passages = list(passages_of(new))[:8]
    pairs = [(passage, states_of(model, passage)) for passage in passages]
    losses = []
    for rows in (pack, learnt):
        with torch.no_grad(), rows.applied(model):
            losses.append(distillation_loss(model, pairs))
    assert losses[1].states < losses[0].states and losses[1].following < losses[0].following


def test_too_little_text_is_refused_in_one_line():
    model, tokenizer, _ = case("byte-level")
    with pytest.raises(CorpusError, match="passages with a new token came; expected 10 or more") as caught:
        extend_vocabulary(model, tokenizer, {"cy": ["bore da i chi bore da"] * 3}, size=2, min_count=2, init="distill")
    assert "\n" not in str(caught.value)
