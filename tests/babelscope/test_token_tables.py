"""A model's tables by token, by hand: ids that move with their rows, settings that name them, and the way back."""

from types import SimpleNamespace

import pytest
import torch
from conftest import tiny_model
from vocabulary_cases import lines, model_for, tokenizer_of

from babelscope.errors import ArtifactError, PrerequisiteError
from babelscope.vocabulary.extension import new_entries
from babelscope.vocabulary.row_packs import pack_of
from babelscope.vocabulary.token_tables import (
    Exchange,
    exchange_tables,
    id_settings,
    ids_named_by,
    moved_ids,
    restore_tables,
    rows_now,
    token_tables,
)


def test_ids_follow_their_rows_in_lists_of_lists_and_what_has_no_row_stays():
    moved = {2: 0, 5: 1}
    assert moved_ids([[2, 5], 5, -1, 300], moved, 300, "bad_words_ids") == [[0, 1], 1, -1, 300]
    assert moved_ids("text", moved, 300, "x") == "text" and moved_ids(None, moved, 300, "x") is None
    with pytest.raises(
        ArtifactError, match="eos_token_id: id 7, which the model's settings name, is in the vocabulary"
    ):
        moved_ids([2, 7], moved, 300, "eos_token_id")


def test_an_exchange_puts_back_what_was_there_and_takes_out_what_was_not():
    owner = SimpleNamespace(size=3)
    change = Exchange("digest", "title", values=[(owner, "size", 5), (owner, "mark", "new")])
    change.write()
    assert vars(owner) == {"size": 5, "mark": "new"}
    change.undo()
    assert vars(owner) == {"size": 3}


def test_an_exchange_that_fails_half_way_changes_nothing():
    class Stubborn:
        __slots__ = ("__dict__",)

        def __setattr__(self, name, value):
            raise ArtifactError("refused")

    owner = SimpleNamespace(size=3)
    with pytest.raises(ArtifactError, match="refused"):
        Exchange("digest", "title", values=[(owner, "size", 5), (Stubborn(), "size", 5)]).write()
    assert vars(owner) == {"size": 3}


def test_ids_that_settings_name_are_those_with_a_row():
    model = tiny_model("llama")
    model.config.eos_token_id = [2, 9]
    model.generation_config.suppress_tokens = [11, 300, -1]
    assert {0, 1, 2, 9, 11} == ids_named_by(model)
    assert ("suppress_tokens", [11, 300, -1]) in [(name, value) for _, name, value in id_settings(model)]


def test_rows_are_taken_in_the_order_asked_for_and_come_back_the_very_same():
    model = tiny_model("llama")
    tables = token_tables(model)
    embedding, head, total = tables.embedding.weight, tables.head.weight, tables.rows
    assert total == 300 and not tables.tied and tables.bias is None
    source = torch.cat([torch.arange(3), torch.tensor([40, -1, 7])])
    new = torch.full((1, 32), 0.25)
    exchange_tables(
        model, digest="d", title="pack", source=source, rows=new, head_rows=2 * new, head_bias=None,
        mark={"after": {}},
    )  # fmt: skip
    for weight, before, row in ((tables.embedding.weight, embedding, 0.25), (tables.head.weight, head, 0.5)):
        assert torch.equal(weight[[0, 1, 2, 3, 5]], before[[0, 1, 2, 40, 7]]) and bool((weight[4] == row).all())
    assert model.config.vocab_size == token_tables(model).rows == 6
    assert [rows.tolist() for rows in rows_now(model, "d", "pack", source)] == [[[0.25] * 32], [[0.5] * 32]]
    with pytest.raises(ArtifactError, match="other is not applied to this model"):
        restore_tables(model, "e", "other")
    restore_tables(model, "d", "pack")
    assert token_tables(model).embedding.weight is embedding and token_tables(model).head.weight is head
    assert model.config.vocab_size == 300


def test_a_table_by_token_that_surgery_would_leave_as_it_is_is_refused():
    model = tiny_model("llama")
    model.config.vocab_size_per_layer_input = 300
    with pytest.raises(PrerequisiteError, match="'vocab_size_per_layer_input': it has another table by token"):
        token_tables(model)


def test_a_pack_of_other_entries_has_their_mean_rows_in_both_tables_and_the_models_own():
    tokenizer = tokenizer_of("byte-level")
    model = model_for(tokenizer)
    new = new_entries(tokenizer, lines("cy", count=60), rows=token_tables(model).rows, size=3)
    pack = pack_of(model, new, "extend", "mean", seed=7)
    assert pack.n_new == 3 and pack.parameters["init"] == "mean" and pack.parameters["seed"] == 7
    for rows, table in ((pack.rows, model.model.embed_tokens.weight), (pack.head_rows, model.lm_head.weight)):
        mean = table.detach().double()[: len(tokenizer)].mean(dim=0)
        assert torch.allclose(rows.double(), mean.expand(3, -1), atol=1e-5)
    assert pack.source[: len(tokenizer)].tolist() == list(range(len(tokenizer))) and pack.head_bias is None
