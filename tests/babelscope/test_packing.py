"""Training rows: nothing lost, nothing seen across documents, no pad in the loss, each row by its number alone."""

import itertools
import math

import pytest
import torch
from conftest import CONFIGS, as_glm, tiny_model, tiny_tokenizer

from babelscope import layout_of
from babelscope.corpus import Document
from babelscope.errors import CorpusError
from babelscope.languages import Language
from babelscope.subnetworks.loss import head_loss, rows_loss
from babelscope.subnetworks.packing import ALONE, Mixture, PackedText, mix_texts

DOCUMENTS = [Document(str(i), f"the cat sat {i} on a mat " + "x" * (7 * i % 23)) for i in range(14)]


def packed(tag="en", length=32, **options):
    return PackedText.of(tiny_tokenizer(), Language(tag), DOCUMENTS, length=length, **options)


def pieces_of(rows):
    """(row, start, stop) of every piece in packed rows."""
    for row in range(len(rows.input_ids)):
        starts = (rows.position_ids[row] == 0).nonzero()[:, 0].tolist()
        stop = int(rows.real[row].sum())
        yield from ((row, a, b) for a, b in zip(starts, [*starts[1:], stop], strict=True))


@pytest.mark.parametrize("family", CONFIGS)
def test_a_row_gives_the_loss_of_its_pieces_alone(family):
    model = tiny_model(family)
    layout = layout_of(model)
    rows = packed(alone=family in ALONE).epoch(0)
    expected, count = 0.0, 0
    for row, start, stop in pieces_of(rows):
        ids = rows.input_ids[row : row + 1, start:stop]
        with torch.no_grad():
            log_p = model(ids).logits.log_softmax(dim=-1)[0, :-1].double()
        scored = rows.scored[row, start + 1 : stop]
        expected -= float(log_p[torch.arange(len(scored)), ids[0, 1:]][scored].sum())
        count += int(scored.sum())
    with torch.no_grad():
        loss = float(rows_loss(layout, rows, 1 / count))
    assert loss == pytest.approx(expected / count, rel=2e-6)
    assert count == int(rows.scored.sum()) > 100


def test_an_epoch_holds_the_text_but_for_its_last_unfull_row():
    text = packed()
    rows = text.epoch(3)
    whole = sorted(torch.cat(text.pieces).tolist())
    taken = rows.input_ids.flatten().tolist()
    left = list(whole)
    for token in taken:
        left.remove(token)
    assert len(left) == text.tokens % 32 and len(taken) == text.rows_per_epoch * 32


def test_epochs_differ_in_order_and_repeat_by_seed():
    assert not torch.equal(packed().epoch(0).input_ids, packed().epoch(1).input_ids)
    assert torch.equal(packed(seed=4).epoch(2).input_ids, packed(seed=4).epoch(2).input_ids)


def test_bos_and_the_first_token_of_a_piece_are_not_scored():
    rows = packed().epoch(0)
    assert not rows.scored[rows.position_ids == 0].any()
    assert not rows.scored[rows.input_ids == 1].any()


def test_pads_are_neither_real_nor_scored():
    rows = packed(alone=True).epoch(0)
    assert rows.input_ids.shape == (len(packed().pieces), 32)
    assert not rows.scored[~rows.real].any() and int((~rows.real).sum()) > 0


def test_the_share_of_replay_rows_is_exact_and_spread_over_languages():
    mixture = Mixture(packed("eu"), [packed("en", seed=1), packed("fi", seed=2)], 0.25)
    tags = [mixture.row(i)[0] for i in range(80)]
    assert [tags.count(tag) for tag in ("eu", "en", "fi")] == [60, 10, 10]
    places = [i for i, tag in enumerate(tags) if tag != "eu"]
    assert max(b - a for a, b in itertools.pairwise(places)) == 4


def test_a_row_depends_on_its_number_alone():
    straight = Mixture(packed("eu"), [packed("en")], 0.5)
    jumping = Mixture(packed("eu"), [packed("en")], 0.5)
    later = jumping.rows(40, 3)
    both = [torch.cat(parts) for parts in zip(jumping.rows(0, 40), later, strict=True)]
    assert all(torch.equal(a, b) for a, b in zip(straight.rows(0, 43), both, strict=True))


@pytest.mark.parametrize(
    ("share", "replay"), [(0.5, None), (0.0, {"en": ["text " * 40]}), (1.0, {"en": ["text " * 40]})]
)
def test_a_share_without_text_or_text_without_share_is_refused(share, replay):
    with pytest.raises(CorpusError, match="replay share"):
        mix_texts(tiny_tokenizer(), Language("eu"), DOCUMENTS, replay, share=share, length=32, seed=0)


def test_text_that_fills_no_row_is_refused():
    with pytest.raises(CorpusError, match="add text"):
        PackedText.of(tiny_tokenizer(), Language("eu"), DOCUMENTS[:1], length=64)


def test_the_head_in_chunks_gives_loss_and_gradients_of_the_whole():
    model = tiny_model("gemma2").double()
    layout = layout_of(model)
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(1100, 32, dtype=torch.float64, generator=generator).requires_grad_()
    targets = torch.randint(0, 300, (1100,), generator=generator)
    weight = model.get_output_embeddings().weight
    loss = head_loss(layout, hidden, targets, 1 / 1100)
    mine = torch.autograd.grad(loss, [hidden, weight])
    whole = torch.nn.functional.cross_entropy(layout.logits(hidden), targets)
    theirs = torch.autograd.grad(whole, [hidden, weight])
    assert math.isclose(float(loss.detach()), float(whole.detach()), rel_tol=1e-6)
    for one, other in zip(mine, theirs, strict=True):
        assert float((one - other).norm() / other.norm()) < 1e-6


def test_every_piece_begins_with_all_that_begins_a_text_and_has_room_for_more():
    tokenizer, language = as_glm(), Language("en")
    text = PackedText.of(tokenizer, language, DOCUMENTS, length=8)
    prefix = tokenizer.convert_tokens_to_ids(["[gMASK]", "<sop>"])
    assert all(piece[:2].tolist() == prefix and len(piece) <= 8 for piece in text.pieces)
    assert not any(bool(marks[:2].any()) or not bool(marks[2:].all()) for marks in text.scored)
    plain = [tokenizer(document.text, add_special_tokens=False)["input_ids"] for document in DOCUMENTS]
    assert [int(i) for piece in text.pieces for i in piece[2:]] == [i for ids in plain for i in ids]
    with pytest.raises(CorpusError, match="length 2 came.*begins a text with 2 tokens"):
        PackedText.of(tokenizer, language, DOCUMENTS, length=2)
