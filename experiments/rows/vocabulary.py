"""Rows of vocabularies: training shares from merges, extension, trimming."""

import copy
import math
from collections import Counter

import torch
from tables.measured import read
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from babelscope import extend_vocabulary, infer_training_shares, load_corpus, open_model, trim_vocabulary
from babelscope.evaluation import bits_per_byte
from babelscope.vocabulary.token_tables import token_tables
from babelscope.vocabulary.word_alignment import word_links
from rows.carried_vocabulary import carried_rows
from rows.plain import largest
from rows.result import Headline, Inputs, Planted, RowResult, Witness
from rows.vector_files import rows_by_vectors

KEPT = ("en", "de", "fi")
UNDERSERVED = ("eu", "cy", "tt")
NEW = 100
OFTEN = 10
"""Times that a word comes for its translation to be looked for."""


def lines_of(inputs: Inputs, tags: tuple[str, ...], split: str, most: int) -> dict[str, list[str]]:
    """Lines of real text where there is some, else of the bundled sentences."""
    corpus = load_corpus(f"{inputs.corpora}/mono" if inputs.corpora else "reference", tags, split=split)
    return {str(tag): [document.text for document in documents][:most] for tag, documents in corpus.items()}


@torch.no_grad()
def measure_trim(inputs: Inputs) -> RowResult:
    """Logits of the model's own rows, chosen by hand, against those of the trimmed one; what a text loses."""
    model, tokenizer = open_model("reference", device="cpu")
    read_text, unseen = lines_of(inputs, KEPT, "train", 8000), lines_of(inputs, KEPT, "valid", 40)
    pack = trim_vocabulary(model, tokenizer, read_text)
    before, parameters = bits_per_byte(model, tokenizer, unseen), model.num_parameters()
    widest = 0.0
    cases = [(tag, line) for tag, lines in read_text.items() for line in lines[:10]]
    own = {}
    for case in cases:
        ids = torch.tensor([tokenizer(case[1])["input_ids"]])
        own[case] = model(input_ids=ids).logits[..., pack.source]
    with pack.applied(model):
        for case in cases:
            ids = torch.tensor([pack.tokenizer(case[1])["input_ids"]])
            widest = max(widest, largest(model(input_ids=ids).logits, own[case]))
        after, left = bits_per_byte(model, pack.tokenizer, unseen), model.num_parameters()
    rise = max(after[tag] - before[tag] for tag in after)
    used = {i for lines in read_text.values() for line in lines for i in tokenizer(line)["input_ids"]}
    kept = {*pack.source.tolist()}
    return RowResult(
        witnesses=[
            Witness(
                what="logits over kept entries against those of the whole model, 30 lines whose tokens all stay",
                difference=widest,
                bar=0.0,
            )
        ],
        planted=[
            Planted(
                what="every token of the text that was counted stays",
                recall=len(used & kept) / len(used),
                precision=1.0,
            )
        ],
        headlines=[
            Headline(
                paper="multilingual models become much smaller at no loss in their language (XLM-R, mT5)",
                ours=f"{len(tokenizer):,} entries become {len(kept):,}, {parameters:,} parameters {left:,}; unseen "
                f"text of the kept languages takes {rise:+.4f} bits per byte at most",
                control="a text whose tokens all stay loses nothing, bit for bit",
                model="bundled model",
                verdict="in shape" if rise <= 0.02 and left < parameters else "not",
            )
        ],
    )


def measure_extend(inputs: Inputs) -> RowResult:
    """New rows by numpy's means, and by maps and files of vectors; other languages' text as it was; tokens saved."""
    model, tokenizer = open_model("reference", device="cpu")
    table = token_tables(model).embedding.weight.detach().clone()
    saved, half, worst, moved = {}, {}, 0.0, 0
    for tag in UNDERSERVED:
        text, unseen = lines_of(inputs, (tag,), "train", 8000), lines_of(inputs, (tag,), "valid", 100)[tag]
        pack = extend_vocabulary(model, tokenizer, text, size=NEW, init="subword")
        new = (pack.source < 0).nonzero().flatten().tolist()
        for row, entry in zip(pack.rows, new, strict=True):
            parts = tokenizer(pack.tokenizer.decode([entry]), add_special_tokens=False)["input_ids"]
            if tokenizer.decode(parts) == pack.tokenizer.decode([entry]):
                worst = max(worst, largest(row, table[parts].mean(dim=0)))
        counts = [sum(len(t(line)["input_ids"]) for line in unseen) for t in (tokenizer, pack.tokenizer)]
        saved[tag] = 1 - counts[1] / counts[0]
        fewer = extend_vocabulary(model, tokenizer, text, size=NEW // 2).tokenizer
        half[tag] = 1 - sum(len(fewer(line)["input_ids"]) for line in unseen) / counts[0]
        english = lines_of(inputs, ("en",), "valid", 50)["en"]
        moved += sum(tokenizer(line)["input_ids"] != pack.tokenizer(line)["input_ids"] for line in english)
    carried_witnesses, carried_planted, carried_headlines = carried_rows(inputs)
    vector_witnesses, vector_headlines, absent = rows_by_vectors(inputs)
    said = ", ".join(f"{tag} {100 * half[tag]:.0f} and {100 * share:.0f} %" for tag, share in saved.items())
    return RowResult(
        witnesses=[
            Witness(
                what=f"rows of {len(UNDERSERVED)} × {NEW} entries against means of their parts",
                difference=worst,
                bar=1e-6,
            ),
            *carried_witnesses,
            *vector_witnesses,
        ],
        headlines=[
            Headline(
                paper="50 to 100 entries from 0.01 GB of text do most of what more would (Llama 2, ten languages)",
                ours=f"{NEW // 2} and {NEW} entries save of the tokens of unseen text: {said}",
                control=f"lines of English cut otherwise: {moved} of {50 * len(UNDERSERVED)}",
                model="bundled model",
                verdict="in shape" if all(half[tag] >= 0.6 * share > 0 for tag, share in saved.items()) else "not",
            ),
            *carried_headlines,
            *vector_headlines,
        ],
        planted=[planted_dictionary(inputs), *carried_planted],
        absent=absent,
    )


def planted_dictionary(inputs: Inputs) -> Planted:
    """English, and the same lines with their words and the letters of each in the reverse order."""
    lines = lines_of(inputs, ("en",), "train", 4000)["en"]
    source = [["".join(filter(str.isalpha, word)).lower() for word in line.split()] for line in lines]
    target = [[word[::-1] for word in reversed(sentence)] for sentence in source]
    flat = [[word for sentence in side for word in sentence] for side in (source, target)]
    often = {word for word, count in Counter(flat[0]).items() if count >= OFTEN and word}
    links = Counter((flat[0][first], flat[1][second]) for first, second in word_links(source, target).tolist())
    best: dict[str, tuple[int, str]] = {}
    for (word, other), count in links.items():
        best[word] = max(best.get(word, (0, "")), (count, other))
    right = sum(best.get(word, (0, ""))[1] == word[::-1] for word in often)
    return Planted(
        what=f"the dictionary of a language made from English by reversing: {len(often)} words that come {OFTEN} times",
        recall=right / len(often),
        precision=right / sum(word in best for word in often),
    )


def measure_shares(inputs: Inputs) -> RowResult:
    """A tokenizer trained on a mixture made by hand; and real ones, from what was measured."""
    texts = lines_of(inputs, ("en", "ru"), "train", 4000)
    wanted = {"en": 0.75, "ru": 0.25}
    size = min(sum(len(line.encode()) for line in texts[tag]) / share for tag, share in wanted.items())
    mixed = []
    for tag, share in wanted.items():
        room = share * size
        for line in texts[tag]:
            if (room := room - len(line.encode())) < 0:
                break
            mixed.append(line)
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer, trained.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trained.train_from_iterator(
        mixed, trainers.BpeTrainer(vocab_size=900, initial_alphabet=alphabet, show_progress=False)
    )
    found = infer_training_shares(PreTrainedTokenizerFast(tokenizer_object=copy.deepcopy(trained)), texts, merges=300)
    share = dict(zip(map(str, found.languages), found.share.tolist(), strict=True))
    gap = max(abs(share[tag] - part) for tag, part in wanted.items())
    known = [row for row in read("training_shares.jsonl")[1:] if row["tokenizer"].startswith("known mixture")]
    named = [row for row in known if row["identified"] == row["languages"]]
    return RowResult(
        witnesses=[Witness(what="share of a mixture of English and Russian made by hand", difference=gap, bar=0.1)],
        planted=[],
        headlines=[
            Headline(
                paper="mixtures of tokenizers trained for it are recovered with high precision",
                ours=f"known mixtures identified whole: {len(named)} of {len(known)}; here English {share['en']:.3f} "
                f"of {wanted['en']}",
                control=f"decoy text {found.decoy:.3f}" if math.isfinite(found.decoy) else "decoy text: not identified",
                model="tokenizers trained here",
                verdict="in shape" if gap <= 0.05 else "not",
            )
        ],
    )
