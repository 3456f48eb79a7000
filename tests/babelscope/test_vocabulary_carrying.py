"""Packs of a base for a model tuned from it: planted maps and shifts, numpy's least squares, the control, refusals."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from vocabulary_cases import KINDS, ids_of, lines, model_for, tokenizer_of

from babelscope import VocabularyPack, carry_vocabulary, extend_vocabulary, replace_vocabulary, trim_vocabulary
from babelscope.cli import main
from babelscope.cli.carrying import run_carry
from babelscope.errors import ArtifactError, MeasurementError
from babelscope.vocabulary.carried_rows import (
    CARRIES,
    RowMap,
    carried,
    check_same_shapes,
    check_same_source,
    fit_row_map,
)
from babelscope.vocabulary.tokenizer_form import TokenizerForm

NEW = 40


def tables_of(model):
    """Embeddings, and the head where it is not tied to them."""
    tables = [model.get_input_embeddings().weight, model.get_output_embeddings().weight]
    return tables[:1] if tables[0] is tables[1] else tables


def tuned_by(model, tokenizer, family, change):
    """The same model, whose tables are changed by a function of table and number."""
    tuned = model_for(tokenizer, family)
    with torch.no_grad():
        for number, table in enumerate(tables_of(tuned)):
            table.copy_(change(table.double(), number).float())
    return tuned


def rotation(width, seed):
    return torch.linalg.qr(torch.randn(width, width, generator=torch.Generator().manual_seed(seed)).double())[0]


def trained(pack, seed=5):
    """The pack with rows that training might have given: its own, moved at random."""
    noise = [torch.randn(pack.rows.shape, generator=torch.Generator().manual_seed(seed + k)) for k in (0, 1)]
    head = None if pack.head_rows is None else pack.head_rows + noise[1]
    return replace(pack, rows=pack.rows + noise[0], head_rows=head)


@pytest.fixture(scope="module", params=["gemma3_text", "llama", "phi"])
def case(request):
    """A tied head, an untied one, and one with a bias."""
    tokenizer = tokenizer_of("byte-level")
    model = model_for(tokenizer, request.param)
    pack = trained(extend_vocabulary(model, tokenizer, lines("cy", count=150), size=NEW))
    return request.param, model, tokenizer, pack


def rows_in(pack):
    return [pack.rows] if pack.head_rows is None else [pack.rows, pack.head_rows]


@pytest.mark.parametrize("way", ["overlap", "conversion"])
def test_a_planted_rotation_is_found_and_the_rows_are_those_of_the_truth(case, way):
    family, model, tokenizer, pack = case
    width = pack.rows.shape[1]
    tuned = tuned_by(model, tokenizer, family, lambda table, number: table @ rotation(width, number))
    made = carry_vocabulary(pack, model, tokenizer, tuned, tokenizer, way=way)
    control = carry_vocabulary(pack, model, tokenizer, tuned, tokenizer, way=way, shuffled=True)
    swap = carry_vocabulary(pack, model, tokenizer, tuned, tokenizer, way="swap")
    for number, (before, after, shuffled, plain) in enumerate(
        zip(*map(rows_in, (pack, made, control, swap)), strict=True)
    ):
        truth = before.double().numpy() @ rotation(width, number).numpy()
        np.testing.assert_allclose(after.numpy(), truth, rtol=0, atol=1e-5 * np.abs(truth).max())
        assert all(np.abs(wrong.numpy() - truth).max() > 0.5 for wrong in (shuffled, plain))
        assert torch.equal(plain, before)
    for facts in made.parameters["carried"]["tables"].values():
        assert facts["explained"] == pytest.approx(1) and facts["moved"] > 1
    assert all(facts["explained"] < 0.5 for facts in control.parameters["carried"]["tables"].values())


def test_a_planted_shift_is_found_and_the_rows_are_those_of_the_truth(case):
    family, model, tokenizer, pack = case
    step = torch.linspace(-2, 2, pack.rows.shape[1])
    tuned = tuned_by(model, tokenizer, family, lambda table, number: table + (number + 1) * step)
    made = carry_vocabulary(pack, model, tokenizer, tuned, tokenizer, way="shift")
    for number, (before, after) in enumerate(zip(rows_in(pack), rows_in(made), strict=True)):
        torch.testing.assert_close(after, before + (number + 1) * step, rtol=0, atol=1e-5)


def test_a_shift_of_each_row_is_that_of_its_own_sub_words():
    tokenizer = tokenizer_of("byte-level")
    model = model_for(tokenizer)
    pack = trained(extend_vocabulary(model, tokenizer, lines("cy", count=150), size=NEW))
    noise = torch.randn(model.get_input_embeddings().weight.shape, generator=torch.Generator().manual_seed(1))
    tuned = tuned_by(model, tokenizer, "llama", lambda table, _: table + noise)
    made, control = (
        carry_vocabulary(pack, model, tokenizer, tuned, tokenizer, way="shift", shuffled=shuffled)
        for shuffled in (False, True)
    )
    new, checked = (pack.source < 0).nonzero()[:, 0].tolist(), 0
    for place, index in enumerate(new):
        text = pack.tokenizer.decode([index])
        if "\ufffd" not in text:
            cut = tokenizer(text, add_special_tokens=False).input_ids
            truth = pack.rows[place].numpy() + noise.double().numpy()[cut].mean(0)
            np.testing.assert_allclose(made.rows[place].numpy(), truth, atol=1e-5)
            checked += 1
    assert checked > NEW / 2 and not torch.allclose(control.rows, made.rows)


@pytest.mark.parametrize("kind", KINDS)
def test_maps_are_numpys_least_squares(kind):
    tokenizer = tokenizer_of(kind)
    model, tuned = model_for(tokenizer), model_for(tokenizer, seed=1)
    pack = trained(extend_vocabulary(model, tokenizer, lines("cy", count=150), size=NEW))
    vocabulary, new = tokenizer.get_vocab(), (pack.source < 0).nonzero()[:, 0].tolist()
    written = {index: entry for entry, index in pack.tokenizer.get_vocab().items()}
    cuts = [[token.id for token in tokenizer.backend_tokenizer.model.tokenize(written[index])] for index in new]
    shared = sorted(vocabulary.values())
    for name, tables in zip(("rows", "head_rows"), zip(*map(tables_of, (model, tuned)), strict=True), strict=True):
        before, after = (table.detach().double().numpy() for table in tables)
        means = [np.stack([table[cut].mean(0) for cut in cuts]) for table in (before, after)]
        stacks = {"overlap": (before[shared], after[shared])}
        stacks["conversion"] = (np.vstack([before[shared], means[0]]), np.vstack([after[shared], means[1]]))
        for way, (x, y) in stacks.items():
            made = carry_vocabulary(pack, model, tokenizer, tuned, tokenizer, way=way)
            rows = getattr(pack, name).double().numpy() @ np.linalg.lstsq(x, y, rcond=None)[0]
            np.testing.assert_allclose(getattr(made, name).numpy(), rows, rtol=0, atol=1e-4 * np.abs(rows).max())


def test_what_a_map_explains_is_said_of_rows_that_it_was_not_fitted_on():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(500, 6)), rng.normal(size=(500, 6))
    y += x @ rng.normal(size=(6, 6))
    found = fit_row_map([(torch.from_numpy(x), torch.from_numpy(y))], 6)
    tenth = np.arange(500) % 10 == 9
    change = np.linalg.lstsq(x[~tenth], (y - x)[~tenth], rcond=None)[0]
    missed = ((y - x - x @ change)[tenth] ** 2).sum() / ((y - x)[tenth] ** 2).sum()
    assert found.explained == pytest.approx(1 - missed) and found.moved == pytest.approx(
        (((y - x) ** 2).sum() / (x**2).sum()) ** 0.5
    )
    np.testing.assert_allclose(found.change.numpy(), np.linalg.lstsq(x, y - x, rcond=None)[0], atol=1e-10)
    # A direction that no row has stays as it is.
    flat = torch.from_numpy(x * [1, 1, 1, 0, 1, 1])
    same = fit_row_map([(flat, 2 * flat)], 6)
    rows = torch.eye(6)
    assert isinstance(same, RowMap)
    expected = torch.diag(torch.tensor([2.0, 2, 2, 1, 2, 2]))
    torch.testing.assert_close(carried(rows, "overlap", same, (rows, rows)), expected)


@pytest.mark.parametrize("way", CARRIES)
def test_to_an_equal_model_rows_are_carried_bit_for_bit(case, way):
    _, model, tokenizer, pack = case
    made = carry_vocabulary(pack, model, tokenizer, model, tokenizer, way=way)
    assert made.digest == pack.digest and made.origin == pack.origin
    assert all(facts == {"moved": 0.0, "explained": None} for facts in made.parameters["carried"]["tables"].values())


def test_own_rows_are_the_tuned_models_bit_for_bit_and_it_goes_back(case, tmp_path):
    family, model, tokenizer, pack = case
    tuned = tuned_by(model, tokenizer, family, lambda table, _: 1.5 * table + 0.1)
    made = carry_vocabulary(pack, model, tokenizer, tuned, tokenizer, way="conversion")
    again = VocabularyPack.load(made.save(tmp_path / "pack"))
    assert again.parameters == made.parameters and again.digest == made.digest
    tables = [table.detach().clone() for table in tables_of(tuned)]
    line = lines("cy", count=1)["cy"][0]
    logits, n = tuned(ids_of(tokenizer, line)).logits, len(tokenizer)
    with again.applied(tuned):
        for table, before, rows in zip(tables_of(tuned), tables, rows_in(made), strict=True):
            assert torch.equal(table[:n], before[:n]) and torch.equal(table[n : n + NEW], rows)
        assert torch.equal(tuned(ids_of(tokenizer, line)).logits[..., :n], logits[..., :n])
    assert all(torch.equal(table, before) for table, before in zip(tables_of(tuned), tables, strict=True))
    with pytest.raises(ArtifactError, match="other weights"):
        again.apply(model)


def test_other_kinds_of_packs_are_carried_too():
    tokenizer = tokenizer_of("byte-level")
    model = model_for(tokenizer)
    tuned = tuned_by(model, tokenizer, "llama", lambda table, _: 2 * table)
    trim = trim_vocabulary(model, tokenizer, lines("en", count=10))
    other = replace_vocabulary(model, tokenizer, lines("cy", count=150), size=500, min_count=2)
    for pack in (trim, other):
        made = carry_vocabulary(pack, model, tokenizer, tuned, tokenizer, way="overlap")
        torch.testing.assert_close(made.rows, 2 * pack.rows)
        with made.applied(tuned):
            assert torch.equal(tuned.get_input_embeddings().weight[0], 2 * model.get_input_embeddings().weight[0])


def test_the_tuned_models_template_and_special_tokens_come_along(case):
    _, model, tokenizer, pack = case
    other = tokenizer_of("byte-level")
    other.chat_template = "{% for message in messages %}[{{ message['content'] }}]{% endfor %}"
    other.eos_token = "<|turn|>"
    made = carry_vocabulary(pack, model, tokenizer, model, other)
    assert made.tokenizer.chat_template == other.chat_template and made.tokenizer.eos_token == "<|turn|>"
    line = lines("cy", count=1)["cy"][0]
    assert made.tokenizer(line).input_ids == pack.tokenizer(line).input_ids


def refused(says, call, *args, **words):
    with pytest.raises((ArtifactError, MeasurementError), match=says) as error:
        call(*args, **words)
    assert "\n" not in str(error.value) and len(str(error.value)) < 700


def test_what_does_not_fit_is_refused_in_one_line():
    tokenizer = tokenizer_of("byte-level")
    model, other = model_for(tokenizer), model_for(tokenizer, seed=1)
    pack = extend_vocabulary(model, tokenizer, lines("cy", count=100), size=5)
    refused("way 'best' came", carry_vocabulary, pack, model, tokenizer, other, tokenizer, way="best")
    refused("other weights", carry_vocabulary, pack, other, tokenizer, model, tokenizer)
    refused("another tokenizer", carry_vocabulary, pack, model, tokenizer_of("unigram"), other, tokenizer)
    refused(
        "parameters differ, model.embed_tokens",
        carry_vocabulary,
        pack,
        model,
        tokenizer,
        model_for(tokenizer, padding=6),
        tokenizer,
    )
    refused("of other shapes", check_same_shapes, model, model_for(tokenizer, "phi"))
    unlike = tokenizer_of("byte-level")
    unlike.add_tokens(["<|more|>"])
    refused("1 entries differ", carry_vocabulary, pack, model, tokenizer, other, unlike)
    forms = TokenizerForm.of(tokenizer), TokenizerForm.of(tokenizer_of("unigram"))
    refused("model and pre_tokenizer differ", check_same_source, *forms)
    with pack.applied(model):
        refused("revert that first", carry_vocabulary, pack, model, tokenizer, other, tokenizer)


def test_a_pack_is_carried_from_the_shell(tmp_path, capsys):
    tokenizer = tokenizer_of("byte-level")
    model = model_for(tokenizer)
    tuned = tuned_by(model, tokenizer, "llama", lambda table, _: 2 * table)
    pack = extend_vocabulary(model, tokenizer, lines("cy", count=100), size=5)
    pack.save(tmp_path / "pack")
    for name, one in (("base", model), ("tuned", tuned)):
        one.save_pretrained(tmp_path / name)
        tokenizer.save_pretrained(tmp_path / name)
    words = [str(tmp_path / name) for name in ("pack", "base", "tuned")]
    flags = ["--way", "overlap", "--out", str(tmp_path / "carried")]
    assert main(["--json", "vocabulary", "carry", *words, *flags]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["new"] == 5 and said["tables"]["embedding"]["moved"] == pytest.approx(1)
    torch.testing.assert_close(VocabularyPack.load(tmp_path / "carried").rows, 2 * pack.rows)
    again = run_carry(Path(words[0]), *words[1:], out=tmp_path / "again", way="overlap")
    assert again["tables"] == said["tables"]
    swapped = [words[0], *reversed(words[1:]), "--out", str(tmp_path / "wrong")]
    assert main(["vocabulary", "carry", *swapped]) == 1
    assert "other weights" in capsys.readouterr().err and not (tmp_path / "wrong").exists()
