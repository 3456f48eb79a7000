"""Training shares: known mixtures, whitespace runs, lists from SentencePiece, and what is said where nothing can be."""

import json
import math

import numpy as np
import pytest
from scipy.optimize import linprog
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

import babelscope as bs
from babelscope.corpus import as_corpus
from babelscope.figures.probes_units import Estimate, training_shares
from babelscope.vocabulary import fit_shares, replay_merges
from babelscope.vocabulary.merge_lists import is_whitespace, merges_of_training
from babelscope.vocabulary.program import PairTally, pairs_ahead
from babelscope.vocabulary.words import cut, cuts_of, kinds_of

SHARES = {"en": 0.5, "fi": 0.3, "eu": 0.15, "zxx": 0.05}


def lines_of(seed, n, code=False):
    """Lines of an invented language: 300 words of its own, used by Zipf's law; code is indented and has signs."""
    rng = np.random.default_rng(seed)
    words = ["".join(rng.choice(list("abcdefghijklmnop"), rng.integers(2, 8))) for _ in range(300)]
    odds = 1 / np.arange(1, 301)
    rows = rng.choice(words, size=(n, 8), p=odds / odds.sum())
    if not code:
        return [" ".join(row) for row in rows]
    return [
        " " * int(rng.choice([4, 8, 12])) + "(".join(row[:3]) + ");\n" + " " * 8 + "".join(row[3:5]) for row in rows
    ]


TEXTS = {tag: lines_of(seed, 5000, code=tag == "zxx") for seed, tag in enumerate(SHARES)}
SEEN = {tag: lines[::2] for tag, lines in TEXTS.items()}
OTHER = {tag: lines[1::2] for tag, lines in TEXTS.items()}


def mixed(shares, room=120_000):
    """Lines by these shares of bytes."""
    picked = []
    for tag, share in shares.items():
        left = room * share
        for line in SEEN[tag]:
            left -= len(line)
            if left < 0:
                break
            picked.append(line)
    return picked


def byte_level(lines, size=900):
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    backend.train_from_iterator(
        lines, trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False)
    )
    return backend


def edited(backend, change):
    """The tokenizer with its model's state changed."""
    state = json.loads(backend.to_str())
    change(state["model"])
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(state)))


def with_runs(space, most=12):
    """Put every run of spaces in every spelling in front of the merges, as in Gemma's list."""

    def change(model):
        for size in range(2, most + 1):
            model["vocab"].setdefault(space * size, len(model["vocab"]))
        runs = [[space * left, space * (size - left)] for size in range(2, most + 1) for left in range(size - 1, 0, -1)]
        model["merges"] = runs + [pair for pair in model["merges"] if set("".join(pair)) != {space}]

    return change


def every_spelling(model):
    """Name each token by every pair that spells it, as lists converted from SentencePiece do."""
    rank = {"".join(pair): place for place, pair in enumerate(model["merges"])}
    merges = []
    for pair in model["merges"]:
        token = "".join(pair)
        splits = [[token[:i], token[i:]] for i in range(1, len(token))]
        merges += [one for one in splits if all(part in model["vocab"] for part in one)]
    assert len(merges) > len(rank)
    model["merges"] = merges


def wrong_by(found, shares):
    return max(abs(float(value) - shares[tag]) for tag, value in zip(found.languages, found.share, strict=True))


@pytest.mark.parametrize("seed", range(5))
def test_known_mixtures_with_code_and_runs_of_whitespace_are_read(seed):
    drawn = np.random.default_rng(seed).dirichlet(np.ones(len(SHARES)))
    shares = dict(zip(SHARES, drawn.tolist(), strict=True))
    found = bs.infer_training_shares(edited(byte_level(mixed(shares)), with_runs("Ġ")), OTHER, merges=300)
    assert found.identified and found.fit.converged and found.decoy < 0.03
    assert wrong_by(found, shares) < 0.03


def test_one_merge_a_token_is_left_of_a_list_that_spells_each_in_every_way():
    """A character-level tokenizer whose merges stay inside words, then listed as SentencePiece's are."""
    backend = Tokenizer(models.BPE())
    backend.normalizer = normalizers.Replace(" ", "▁")
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    backend.train_from_iterator(mixed(SHARES), trainers.BpeTrainer(vocab_size=600, show_progress=False))
    backend.pre_tokenizer = None
    plain = edited(backend, lambda model: None)
    listed = edited(backend, every_spelling)
    first = json.loads(plain.backend_tokenizer.to_str())["model"]["merges"]
    later = json.loads(listed.backend_tokenizer.to_str())["model"]["merges"]
    chosen = merges_of_training([tuple(pair) for pair in later], byte_level=False, most=1000)
    wanted = merges_of_training([tuple(pair) for pair in first], byte_level=False, most=1000)
    same = [a == b for a, b in zip(chosen.pairs, wanted.pairs, strict=True)]
    assert chosen.once and not wanted.once and np.mean(same) > 0.97
    found = bs.infer_training_shares(listed, OTHER, merges=300)
    assert found.identified and wrong_by(found, SHARES) < 0.03


def test_runs_of_whitespace_are_no_evidence():
    pairs = [("Ġ", "Ġ"), ("Ċ", "Ċ"), ("a", "b"), ("Ġ", "a")]
    assert merges_of_training(pairs, byte_level=True, most=9).explained == [False, False, True, True]
    assert merges_of_training(pairs, byte_level=True, most=1).pairs == pairs[:3]
    assert is_whitespace("▁▁", byte_level=False) and is_whitespace("ĉĠ", byte_level=True)
    assert not is_whitespace("▁a", byte_level=False) and not is_whitespace("Ġa", byte_level=True)
    assert not is_whitespace("Ġ", byte_level=False)


def test_sentencepiece_cuts_are_read_from_what_no_merge_joins():
    assert kinds_of("▁▁a1.") == ["space", "run", "letter", "number", "sign"]
    cuts = cuts_of([("▁", "a"), ("a", "b"), ("▁", "▁"), (".", ".")])
    assert list(cut("▁▁ab1..▁a", cuts)) == ["▁▁", "ab", "1", "..", "▁a"]


def witness(history):
    """The whole program as published, every constraint written out, by scipy."""
    k, rows = len(history.languages), []
    counts = history.start * 1e6 / history.n_bytes
    steps, pairs = len(history.merged), len(history.start)
    for step, (merged, change) in enumerate(zip(history.merged, history.changes, strict=True)):
        if history.explained[step]:
            for pair in range(pairs):
                if pair != merged and pair not in history.never and counts[pair].max() > 0:
                    row = np.zeros(k + steps + pairs)
                    row[:k] = counts[pair] - counts[merged]
                    row[k + step] = row[k + steps + pair] = -1
                    rows.append(row)
        np.add.at(counts, (change.pair, change.language), change.delta * 1e6 / history.n_bytes[change.language])
    goal = np.r_[np.zeros(k), np.ones(steps + pairs)]
    total = np.r_[np.ones(k), np.zeros(steps + pairs)][None]
    return (
        linprog(goal, A_ub=np.array(rows), b_ub=np.zeros(len(rows)), A_eq=total, b_eq=[1.0]).fun
        / 1e6
        / history.explained.sum()
    )


def test_the_slacks_are_those_of_the_whole_program():
    tokenizer = edited(byte_level(mixed(SHARES), 290), lambda model: None)
    history = replay_merges(tokenizer, as_corpus({tag: lines[:150] for tag, lines in OTHER.items()}), merges=20)
    fit, least = fit_shares(history), witness(history)
    assert fit.converged and least > 0
    assert least * (1 - 1e-6) <= fit.violation <= least * 1.0101
    assert (fit.low <= fit.share + 0.02).all() and (fit.share - 0.02 <= fit.high).all()


def test_leads_are_those_of_the_counts():
    tokenizer = edited(byte_level(mixed(SHARES), 290), lambda model: None)
    history = replay_merges(tokenizer, as_corpus({tag: lines[:80] for tag, lines in OTHER.items()}), merges=15)
    share, counts = np.array([0.1, 0.2, 0.3, 0.4]), history.start * 1e6 / history.n_bytes
    for step, rivals, lead in pairs_ahead(PairTally.of(history), share, 10**6):
        score = counts @ share
        over = {pair for pair in range(len(score)) if score[pair] > score[history.merged[step]] + 1e-6}
        assert set(rivals.tolist()) == over - set(history.never.tolist())
        assert lead == pytest.approx(score[rivals] - score[history.merged[step]], abs=2e-6)
        change = history.changes[step]
        np.add.at(counts, (change.pair, change.language), change.delta * 1e6 / history.n_bytes[change.language])


def test_a_missing_language_is_said_in_place_of_a_number():
    tokenizer = edited(byte_level(mixed(SHARES)), with_runs("Ġ"))
    found = bs.infer_training_shares(tokenizer, {tag: OTHER[tag] for tag in ("fi", "eu", "zxx")}, merges=300)
    assert not found.identified and np.isnan(found.share).all()
    assert found.text("fi") == "not identified"
    for row in found.rows():
        assert np.isnan(row.estimate) and np.isnan(row.low) and row.note.startswith("not identified: ")


def test_shares_that_are_not_identified_are_written_so_in_the_figure():
    figure = training_shares(inferred={tag: Estimate(math.nan, math.nan, math.nan) for tag in ("en", "fi")}, floor=0.1)
    assert [note.text for note in figure.layout.annotations].count("not identified") == 2
    mixed_figure = training_shares(
        inferred={"en": Estimate(0.4, 0.3, 0.5), "fi": Estimate(math.nan, math.nan, math.nan)}
    )
    assert [note.text for note in mixed_figure.layout.annotations].count("not identified") == 1


def test_the_same_text_under_two_names_is_not_identified():
    tokenizer = edited(byte_level(mixed(SHARES)), lambda model: None)
    found = bs.infer_training_shares(tokenizer, {**OTHER, "de": OTHER["fi"]}, merges=300, decoy=False)
    said = dict(zip(found.languages, found.unidentified, strict=True))
    assert "fi" in said["de"] and "de" in said["fi"] and not said["en"]
    assert found.share[0] == pytest.approx(SHARES["en"], abs=0.03) and np.isnan(found.share[[1, 4]]).all()


def test_a_program_stopped_early_is_not_identified():
    tokenizer = edited(byte_level(mixed(SHARES)), lambda model: None)
    assert not fit_shares(replay_merges(tokenizer, as_corpus(OTHER), merges=300), rounds=3).converged
