"""Extended vocabularies: which pieces come, what they save, and what their rows begin with."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
import torch
from conftest import tiny_tokenizer
from vocabulary_cases import KINDS, every_line, ids_of, lines, model_for, tokenizer_of

from babelscope import VocabularyPack, extend_vocabulary, load_corpus
from babelscope.corpus import as_corpus
from babelscope.errors import ArtifactError, CorpusError, MeasurementError, PrerequisiteError
from babelscope.vocabulary.extension import new_entries
from babelscope.vocabulary.initial_rows import INITS, RowMixture, RowPool, rows_of
from babelscope.vocabulary.new_pieces import cut_text, learn_pieces, tokens_saved, with_pieces
from babelscope.vocabulary.text_vectors import matching_pursuit, sparsemax, text_vectors
from babelscope.vocabulary.tokenizer_form import TokenizerForm

NEW = 60
TARGETS = ("cy", "tt")


def held_out(*languages):
    return as_corpus({tag: [d.text for d in load_corpus("reference")[tag][150:]] for tag in languages})


@pytest.fixture(scope="module", params=KINDS)
def case(request):
    tokenizer = tokenizer_of(request.param)
    model = model_for(tokenizer, padding=NEW // 2)
    return model, tokenizer, extend_vocabulary(model, tokenizer, lines(*TARGETS, count=150), size=NEW)


def naive_merges(words, count):
    """The same training, word by word and pair by pair."""
    words = {word: (list(word), number) for word, number in words.items()}
    made = []
    for _ in range(count):
        pairs = Counter()
        for parts, number in words.values():
            taken = -1
            for place, pair in enumerate(pairwise(parts)):
                # Overlapping pairs such as those of "aaa" are joined once, and counted as joined.
                if pair[0] == pair[1] and taken == place:
                    continue
                taken = place + 1
                pairs[pair] += number
        made.append(max(pairs.items(), key=lambda item: item[1]))
        left, right = made[-1][0]
        for parts, _ in words.values():
            place = 0
            while place < len(parts) - 1:
                if (parts[place], parts[place + 1]) == (left, right):
                    parts[place : place + 2] = [left + right]
                place += 1
    return made


def test_pieces_are_those_of_a_training_that_counts_anew_each_time():
    tokenizer, text = tokenizer_of("byte-level"), as_corpus(lines("tt", count=100))
    form = TokenizerForm.of(tokenizer)
    words = cut_text(tokenizer, form, text).words
    pieces = learn_pieces(form, words, most=40, min_count=2)
    expected = naive_merges(words, 40)
    assert [piece.occurrences for piece in pieces] == [count for _, count in expected]
    assert len({piece.entry for piece in pieces} & {"".join(pair) for pair, _ in expected}) >= 38  # ties


def test_text_is_read_and_written_back_and_old_tokens_keep_their_ids(case):
    _, tokenizer, pack = case
    old, new = tokenizer.get_vocab(), pack.tokenizer.get_vocab()
    assert len(new) == len(old) + NEW and all(new[entry] == index for entry, index in old.items())
    changed = 0
    for found in every_line().values():
        for line in [*found, "a\tb\n\n c  d", "🙂 Ω"]:
            before, after = (one(line, add_special_tokens=False).input_ids for one in (tokenizer, pack.tokenizer))
            assert pack.tokenizer.decode(after) == tokenizer.decode(before)
            assert before == after or max(after) >= len(old)
            changed += before != after
    assert changed


def test_what_pieces_save_is_known_before_they_are_used(case):
    _, tokenizer, pack = case
    form = TokenizerForm.of(tokenizer)
    pieces = learn_pieces(
        form, cut_text(tokenizer, form, as_corpus(lines(*TARGETS, count=150))).words, most=NEW, min_count=5
    )
    for text in (as_corpus(lines(*TARGETS, count=150)), held_out(*TARGETS)):
        before, after = cut_text(tokenizer, form, text), cut_text(pack.tokenizer, form, text)
        saved = tokens_saved(form, before.words, pieces)
        assert before.n_bytes == after.n_bytes and (np.diff(saved) >= 0).all()
        if form.model["type"] == "BPE":
            assert before.tokens - after.tokens == saved[-1] > 0
        else:
            assert before.tokens - after.tokens == pytest.approx(saved[-1], rel=0.01)
    half = with_pieces(form, pieces[:20]).open("test")
    assert before.tokens - cut_text(half, form, text).tokens == pytest.approx(saved[19], rel=0.01)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", ["gemma3_text", "phi"])
def test_no_new_entry_changes_no_bit(kind, family):
    tokenizer = tokenizer_of(kind)
    model = model_for(tokenizer, family)
    pack = extend_vocabulary(model, tokenizer, lines("cy", count=20), size=0)
    assert torch.equal(pack.source, torch.arange(len(tokenizer) + 5)) and not pack.n_new
    ids = ids_of(tokenizer, lines("cy", count=1)["cy"][0])
    expected = model(ids).logits
    with pack.applied(model):
        assert torch.equal(ids_of(pack.tokenizer, lines("cy", count=1)["cy"][0]), ids)
        assert torch.equal(model(ids).logits, expected)


@pytest.mark.parametrize("family", ["gemma3_text", "llama", "phi"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_old_rows_keep_their_bits_new_ones_are_there_and_all_go_back(family, dtype, tmp_path):
    tokenizer = tokenizer_of("byte-level")
    model = model_for(tokenizer, family, dtype=dtype)
    pack = extend_vocabulary(model, tokenizer, lines("tt", count=150), size=NEW)
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    n, line = len(tokenizer), lines("tt", count=1)["tt"][0]
    embedding = model.get_input_embeddings().weight.detach().clone()
    again = VocabularyPack.load(pack.save(tmp_path / "pack"))
    assert again.digest == pack.digest
    old = ids_of(tokenizer, line)
    logits = model(old).logits
    with again.applied(model):
        live = model.get_input_embeddings().weight
        assert len(live) == n + NEW == model.config.vocab_size
        assert torch.equal(live[:n], embedding[:n]) and torch.equal(live[n:], pack.rows.to(dtype))
        assert torch.equal(model(old).logits[..., :n], logits[..., :n])
        head = model.get_output_embeddings()
        if family == "gemma3_text":
            assert head.weight is live and pack.head_rows is None
        else:
            assert again.head_rows is not None and torch.equal(head.weight[n:], again.head_rows.to(dtype))
        if family == "phi":
            assert not head.bias[n:].any()
        ids = ids_of(again.tokenizer, line)
        assert int(ids.max()) >= n and torch.isfinite(model(ids, labels=ids).loss)
    assert all(torch.equal(model.state_dict()[name], value) for name, value in weights.items())


@pytest.fixture(scope="module")
def entries():
    tokenizer = tokenizer_of("byte-level")
    return new_entries(tokenizer, lines("cy", count=150), rows=len(tokenizer), size=NEW)


def test_subwords_are_the_cut_that_an_entry_had(entries):
    table = torch.randn(len(entries.tokenizer), 7, generator=torch.Generator().manual_seed(0))
    rows = rows_of(table, INITS["subword"](entries), torch.Generator())
    checked = 0
    for number in range(NEW):
        text = entries.successor.decode([len(entries.tokenizer) + number])
        if "\ufffd" not in text:
            cut = entries.tokenizer(text, add_special_tokens=False).input_ids
            np.testing.assert_allclose(rows[number].numpy(), table.double().numpy()[cut].mean(0), rtol=1e-6, atol=1e-7)
            checked += 1
    assert checked > NEW / 2


def test_merge_halves_at_each_step(entries):
    table = torch.randn(len(entries.tokenizer), 7, generator=torch.Generator().manual_seed(0)).double()
    rows, known = rows_of(table, INITS["merge"](entries), torch.Generator()), dict(entries.form.ids)
    all_rows = list(table)
    for number, (entry, (left, right)) in enumerate(entries.pairs.items()):
        expected = (all_rows[known[left]] + all_rows[known[right]]) / 2
        known[entry] = len(all_rows)
        all_rows.append(expected)
        torch.testing.assert_close(rows[number], expected.float())
    subword = rows_of(table, INITS["subword"](entries), torch.Generator())
    assert not torch.allclose(rows, subword)


def test_alignment_over_the_text_is_the_cut_of_each_entry(entries):
    by_cut = INITS["subword"](entries)
    for one, other in zip(INITS["align"](entries), by_cut, strict=True):
        assert isinstance(one, RowMixture) and isinstance(other, RowMixture)
        weights = [dict(zip(m.ids.tolist(), m.weights.tolist(), strict=True)) for m in (one, other)]
        assert weights[0] == pytest.approx(weights[1])


def test_weights_sum_to_one_and_draws_have_the_moments_of_their_rows(entries):
    for name in ("subword", "merge", "align", "focus"):
        for begin in INITS[name](entries):
            assert isinstance(begin, RowMixture) and float(begin.weights.sum()) == pytest.approx(1)
            assert int(begin.ids.max()) < len(entries.tokenizer)
    table = torch.randn(len(entries.tokenizer), 3, generator=torch.Generator().manual_seed(0)) * 2 + 5
    many = rows_of(table, [RowPool(entries.known, 1.0)] * 4000, torch.Generator().manual_seed(1))
    torch.testing.assert_close(many.mean(0), table.mean(0), atol=0.15, rtol=0)
    torch.testing.assert_close(many.std(0), table.std(0), atol=0.15, rtol=0)
    torch.testing.assert_close(rows_of(table, INITS["mean"](entries)[:1], torch.Generator())[0], table.mean(0))


def test_script_rows_are_drawn_from_the_script_and_place_of_the_entry():
    tokenizer = tokenizer_of("byte fallback")
    new = new_entries(tokenizer, lines("hi", "eu", count=200), rows=len(tokenizer), size=80, min_count=3)
    seen = Counter()
    for written, pool in zip(new.entries, INITS["script"](new), strict=True):
        if len(pool.ids) == len(new.known) or not any(letter.isalpha() for letter in written):
            continue
        texts = [new.form.entries[index] for index in pool.ids.tolist()]
        letters = [letter for entry in texts for letter in entry if letter.isalpha()]
        hindi = max(written.strip("▁")) >= "\u0900"
        assert sum((letter >= "\u0900") == hindi for letter in letters) > 0.95 * len(letters)
        seen[hindi] += 1
    assert seen[True] and seen[False]


def test_sparsemax_is_the_nearest_point_of_the_simplex():
    assert sparsemax(torch.tensor([0.5, 0.1, -1.0]).double()).tolist() == pytest.approx([0.7, 0.3, 0.0])
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        scores = torch.randn(9, generator=generator, dtype=torch.float64)
        found = sparsemax(scores)
        others = torch.distributions.Dirichlet(torch.ones(9).double()).sample((500,))
        assert found.sum() == pytest.approx(1) and (found >= 0).all()
        assert ((others - scores) ** 2).sum(1).min() >= ((found - scores) ** 2).sum() - 1e-12


def test_matching_pursuit_finds_planted_parts():
    generator = torch.Generator().manual_seed(0)
    others = torch.nn.functional.normalize(torch.randn(200, 64, generator=generator, dtype=torch.float64), dim=1)
    weights = matching_pursuit(2 * others[7] - 0.5 * others[90] + others[3], others, 8)
    expected = torch.zeros(200, dtype=torch.float64)
    expected[[7, 90, 3]] = torch.tensor([2, -0.5, 1], dtype=torch.float64)
    torch.testing.assert_close(weights, expected)


def test_vectors_put_words_with_the_same_neighbours_together():
    rng = np.random.default_rng(0)
    frames = [("red", "blue", "sky"), ("dog", "cat", "ran")]
    text = [" ".join(rng.choice(frames[i % 2], 8)) for i in range(300)]
    tokenizer = tiny_tokenizer()
    found = text_vectors(tokenizer, as_corpus({"en": text}))
    assert torch.allclose(found.values.norm(dim=1), torch.ones(1, dtype=torch.float64))
    again = text_vectors(tokenizer, as_corpus({"en": text}))
    assert torch.equal(found.values, again.values)
    vector = {tokenizer.decode([int(i)]): v for i, v in zip(found.ids, found.values, strict=True)}
    assert vector["u"] @ vector["b"] > vector["u"] @ vector["g"]


@pytest.mark.parametrize("init", list(INITS))
def test_every_way_to_begin_gives_finite_rows_and_again_the_same(init):
    tokenizer = tokenizer_of("unigram")
    model = model_for(tokenizer)
    packs = [
        extend_vocabulary(model, tokenizer, lines("cy", count=120), size=20, init=init, seed=seed) for seed in (0, 0, 1)
    ]
    assert packs[0].digest == packs[1].digest
    assert (packs[2].digest != packs[0].digest) == (init in ("random", "script"))
    assert packs[0].parameters["init"] == init and packs[0].head_rows is not None


def test_without_a_size_the_curve_of_other_text_chooses():
    tokenizer = tokenizer_of("byte-level")
    model = model_for(tokenizer)
    pack = extend_vocabulary(model, tokenizer, lines("tt", count=200), min_count=3)
    curve = pack.parameters["curve"]
    place = curve["sizes"].index(pack.n_new)
    assert curve["saved"][place] >= 0.75 * curve["saved"][-1] > (curve["saved"][place - 1] if place else 0)
    with_valid = extend_vocabulary(model, tokenizer, lines("tt", count=150), valid=held_out("tt"), min_count=3)
    assert (
        with_valid.parameters["curve"]["tokens"]
        == cut_text(tokenizer, TokenizerForm.of(tokenizer), held_out("tt")).tokens
    )
    learnt_from = extend_vocabulary(model, tokenizer, lines("tt", count=150), size=10, min_count=3)
    packs = (pack, with_valid, learnt_from)
    assert [made.parameters["curve"]["held_out"] for made in packs] == [True, True, False]


def test_entries_that_save_nothing_where_they_are_counted_are_said(caplog):
    tokenizer = tokenizer_of("byte-level")
    model = model_for(tokenizer)
    extend_vocabulary(model, tokenizer, lines("tt", count=60), size=3, valid={"tt": ["1 2 3 4 5 6"]}, min_count=3)
    assert "3 new entries save none of the" in caplog.text
    caplog.clear()
    extend_vocabulary(model, tokenizer, lines("tt", count=60), size=3, valid=held_out("tt"), min_count=3)
    assert "save none" not in caplog.text


@pytest.mark.parametrize(
    ("words", "error", "says"),
    [
        ({"init": "best"}, MeasurementError, "init 'best' came; expected one of random"),
        ({"size": -1}, MeasurementError, "size -1"),
        ({"min_count": 0}, MeasurementError, "min_count 0"),
        ({"size": 10**6}, MeasurementError, "size 1000000 came; the text gives"),
        ({"min_count": 10**6}, CorpusError, "gives no new token"),
        ({"texts": {"cy": ["bore da"]}}, CorpusError, "every tenth"),
        ({"texts": {"cy": [""]}, "size": 3}, CorpusError, "has no text"),
        ({"texts": {"cy": ["1 2 3 !"] * 20}, "size": 3}, CorpusError, "gives no new token"),
    ],
)
def test_bad_requests_are_refused_in_one_line(words, error, says):
    tokenizer = tokenizer_of("byte-level")
    with pytest.raises(error, match=says) as caught:
        extend_vocabulary(model_for(tokenizer), tokenizer, **{"texts": lines("cy", count=30), **words})
    assert "\n" not in str(caught.value)


def test_tokens_without_a_row_are_refused():
    tokenizer = tokenizer_of("byte-level")
    with pytest.raises(PrerequisiteError, match="expected a row for each"):
        extend_vocabulary(model_for(tokenizer, padding=-3), tokenizer, lines("cy", count=30), size=3)


@pytest.mark.parametrize("family", ["gemma3_text", "llama", "phi"])
def test_trained_rows_are_taken_along_and_nothing_else_may_have_moved(family):
    tokenizer = tokenizer_of("byte-level")
    model = model_for(tokenizer, family)
    pack = extend_vocabulary(model, tokenizer, lines("tt", count=150), size=NEW)
    with pytest.raises(ArtifactError, match="not applied"):
        pack.with_rows_of(model)
    with pack.applied(model):
        assert pack.with_rows_of(model).digest == pack.digest
        new = (pack.source < 0)[:, None]
        table = model.get_input_embeddings().weight
        model.requires_grad_(False)
        table.requires_grad_(True).register_hook(lambda grad: grad * new)
        step = torch.optim.AdamW([table], lr=0.1, weight_decay=0.0)
        ids = ids_of(pack.tokenizer, lines("tt", count=1)["tt"][0])
        before = model(ids, labels=ids).loss
        before.backward()
        step.step()
        after = model(ids, labels=ids).loss
        trained = pack.with_rows_of(model)
        assert after < before and not torch.equal(trained.rows, pack.rows)
    with trained.applied(model):
        torch.testing.assert_close(model(ids, labels=ids).loss, after)
        with torch.no_grad():
            model.get_input_embeddings().weight[0, 0] += 1
        with pytest.raises(MeasurementError, match="trained alone"):
            trained.with_rows_of(model)
