"""The verbs `vocabulary trim`, `vocabulary extend`, `vocabulary replace` and `vocabulary apply`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import Positional, arg

from babelscope.cli.argument_kinds import PlainFile, SavedAs, alone, free
from babelscope.cli.arguments import Device, Dtype, LanguageTag, Model, Out, Result, Split, Text
from babelscope.cli.flag_conditions import UsedWith
from babelscope.cli.quantities import Count, CountOrNone, Seed

if TYPE_CHECKING:
    from babelscope.corpus import Corpus
    from babelscope.vocabulary import VocabularyPack

Init = Literal[
    "random",
    "mean",
    "subword",
    "merge",
    "align",
    "script",
    "focus",
    "omp",
    "distill",
    "distill-shuffled",
    "translate",
    "translate-shuffled",
]
DRAWN = UsedWith(
    "with --init random, script, distill or translate-shuffled",
    lambda call: call["init"] in ("random", "script", "distill", "distill-shuffled", "translate-shuffled"),
)
TRANSLATED = UsedWith(
    "with --init translate or translate-shuffled",
    lambda call: call["init"] in ("translate", "translate-shuffled"),
)
BY_VECTORS = UsedWith("with --init focus or omp", lambda call: call["init"] in ("focus", "omp"))
ON_PAIRS = UsedWith("with --pairs, if it is translate", lambda call: not TRANSLATED.holds(call) or bool(call["pairs"]))


def parallel_text_of(name: str, against: str, texts: "Corpus") -> "Corpus | None":
    """Parallel text of `against` and the languages of a text, from its train split where it has some; None of none."""
    from babelscope.corpus import WHOLE, has_splits, load_corpus

    if not name:
        return None
    tags = dict.fromkeys((against, *texts))
    return load_corpus(name, tags, split="train" if has_splits(name) else WHOLE, parallel=True)


def placed_in(pack: "VocabularyPack") -> Result:
    """How many new entries parallel text aligns, or have a vector of a file; nothing for other ways to begin."""
    counts = {"aligned": ("alignment", "aligned"), "with_vector": ("vectors", "new")}
    facts = pack.parameters
    return {name: facts[part][count] for name, (part, count) in counts.items() if part in facts}


@alone
def run_trim(
    model: Model,
    corpus: Text,
    *,
    out: Out,
    languages: tuple[LanguageTag, ...] = (),
    split: Split = "train",
    min_count: Count = 1,
    size: CountOrNone = 0,
    device: Device = "auto",
    dtype: Dtype = "auto",
) -> Result:
    """Leave out the entries of a vocabulary that a text does not use, and save what stays as a pack.

    Args:
        corpus: folder of <tag>.txt or .jsonl, file of rows with language and text, hub id, or "reference":
            text of every language that is to be served.
        out: folder of the pack.
        languages: BCP-47 tags; none means every language of the text.
        split: the text whose tokens are counted.
        min_count: how often a token must come to stay.
        size: entries at most, the most frequent first; 0 sets no limit.
    """
    from babelscope.corpus import load_corpus
    from babelscope.models import open_model
    from babelscope.vocabulary import trim_vocabulary

    free(out)
    texts = load_corpus(corpus, languages or None, split=split)
    language_model, tokenizer = open_model(model, device=device, dtype=dtype)
    pack = trim_vocabulary(language_model, tokenizer, texts, min_count=min_count, size=size or None)
    parameters = language_model.num_parameters()
    with pack.applied(language_model):
        left = language_model.num_parameters()
    pack.save(out)
    return {
        "out": str(out),
        "languages": list(pack.languages),
        "entries": {"before": len(tokenizer), "after": len(pack.source)},
        "parameters": {"before": parameters, "after": left},
    }


@alone
def run_extend(
    model: Model,
    corpus: Text,
    *,
    out: Out,
    languages: tuple[LanguageTag, ...] = (),
    size: CountOrNone = 0,
    init: Annotated[Init, ON_PAIRS] = "subword",
    min_count: Count = 5,
    pairs: Annotated[str, TRANSLATED] = "",
    against: Annotated[LanguageTag, TRANSLATED] = "en",
    vectors: Annotated[Path | None, PlainFile(), BY_VECTORS] = None,
    seed: Annotated[Seed, DRAWN] = 0,
    device: Device = "auto",
    dtype: Dtype = "auto",
) -> Result:
    """Add entries to a vocabulary, so that a language is written in fewer tokens, and save them as a pack.

    They are learnt from the train split; what they save is counted in the valid split.

    Args:
        corpus: folder of <tag>.txt or .jsonl, file of rows with language and text, hub id, or "reference".
        out: folder of the pack.
        languages: BCP-47 tags; none means every language of the text.
        size: new entries; 0 chooses by what they save in the valid split.
        init: what new rows begin with: the mean of the tokens that an entry was cut into (subword), of the two that it
            joins (merge), of those that stood in its places (align), of all (mean); drawn from all rows (random) or
            those of its script (script); mixed from entries with near vectors (focus, omp), those of --vectors or of
            neighbours in the text; learnt, in minutes, from the model's states after the tokens that stood there
            (distill; its control is distill-shuffled); mixed from the tokens of a word's translations in --pairs
            (translate; its control is translate-shuffled).
        min_count: how often two tokens must stand side by side to be joined.
        pairs: folder of <tag>.txt whose lines are parallel, hub id, or "reference"; its train split where it has some.
        against: the language of it that the model knows.
        vectors: .vec file of word vectors of the language, as fastText and word2vec write it, plain or .gz.
    """
    from babelscope.corpus import load_corpus
    from babelscope.models import open_model
    from babelscope.vocabulary import extend_vocabulary

    free(out)
    train, valid = (load_corpus(corpus, languages or None, split=split) for split in ("train", "valid"))
    translations = parallel_text_of(pairs, against, train)
    language_model, tokenizer = open_model(model, device=device, dtype=dtype)
    pack = extend_vocabulary(
        language_model,
        tokenizer,
        train,
        size=size or None,
        init=init,
        valid=valid,
        min_count=min_count,
        pairs=translations,
        against=against,
        vectors=vectors,
        seed=seed,
        progress=True,
    )
    pack.save(out)
    curve = pack.parameters["curve"]
    saved = {str(at): count / curve["tokens"] for at, count in zip(curve["sizes"], curve["saved"], strict=True)}
    return {
        "out": str(out),
        "languages": list(pack.languages),
        "entries": {"before": len(tokenizer), "after": len(pack.tokenizer)},
        "new": pack.n_new,
        **placed_in(pack),
        "tokens_saved_by_size": {at: round(share, 4) for at, share in saved.items()},
    }


@alone
def run_replace(
    model: Model,
    corpus: Text,
    *,
    out: Out,
    languages: tuple[LanguageTag, ...] = (),
    split: Split = "train",
    size: CountOrNone = 0,
    init: Annotated[Init, ON_PAIRS] = "subword",
    min_count: Count = 5,
    pairs: Annotated[str, TRANSLATED] = "",
    against: Annotated[LanguageTag, TRANSLATED] = "en",
    vectors: Annotated[Path | None, PlainFile(), BY_VECTORS] = None,
    seed: Annotated[Seed, DRAWN] = 0,
    device: Device = "auto",
    dtype: Dtype = "auto",
) -> Result:
    """Train a tokenizer of the same kind on a text, for a model in the place of its own, and save it as a pack.

    Special, added and byte tokens stay, and entries that both have keep their rows.

    Args:
        corpus: folder of <tag>.txt or .jsonl, file of rows with language and text, hub id, or "reference".
        out: folder of the pack.
        languages: BCP-47 tags; none means every language of the text.
        split: the text that is learnt from.
        size: entries in all; 0 takes what the text gives, at most as many as the model has.
        init: what new rows begin with, as in `vocabulary extend`.
        min_count: how often a pair, or a letter, must come to be an entry.
        pairs: parallel text for translate, as in `vocabulary extend`.
        against: the language of it that the model knows.
        vectors: word vectors for focus and omp, as in `vocabulary extend`.
    """
    from babelscope.corpus import load_corpus
    from babelscope.models import open_model
    from babelscope.vocabulary import replace_vocabulary

    free(out)
    texts = load_corpus(corpus, languages or None, split=split)
    translations = parallel_text_of(pairs, against, texts)
    language_model, tokenizer = open_model(model, device=device, dtype=dtype)
    pack = replace_vocabulary(
        language_model,
        tokenizer,
        texts,
        size=size or None,
        init=init,
        min_count=min_count,
        pairs=translations,
        against=against,
        vectors=vectors,
        seed=seed,
        progress=True,
    )
    pack.save(out)
    before, after = pack.parameters["tokens"]
    return {
        "out": str(out),
        "languages": list(pack.languages),
        "entries": {"before": len(tokenizer), "after": pack.parameters["size"]},
        "shared": pack.parameters["shared"],
        "new": pack.n_new,
        **placed_in(pack),
        "tokens": {"before": before, "after": after},
    }


def run_apply(
    model: Model,
    pack: Annotated[Positional[Path], SavedAs(("VocabularyPack",)), arg(metavar="PACK")],
    *,
    out: Out,
    device: Device = "auto",
    dtype: Dtype = "auto",
) -> Result:
    """Write a model with a pack's vocabulary as a checkpoint with its tokenizer, for any tool.

    Args:
        pack: folder that `vocabulary trim`, `extend` or `replace` saved.
        out: folder of the checkpoint.
        dtype: of the weights that are written; auto is what the model's checkpoint has.
    """
    from babelscope.adapters.merged import export_vocabulary
    from babelscope.cli.exporting import dtype_written
    from babelscope.models import open_model
    from babelscope.vocabulary import VocabularyPack

    free(out)
    loaded = VocabularyPack.load(pack)
    language_model, _ = open_model(model, device=device, dtype=dtype)
    export_vocabulary(language_model, loaded, out, dtype=dtype_written(model, dtype))
    return {
        "out": str(out),
        "languages": list(loaded.languages),
        "entries": len(loaded.source),
        "new": loaded.n_new,
        "bytes": sum(file.stat().st_size for file in out.rglob("*") if file.is_file()),
    }
