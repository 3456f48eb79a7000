"""Pairs of prompts that should be continued differently: translations, and minimal pairs of one language."""

from collections.abc import Sequence
from typing import NamedTuple

from transformers import PreTrainedTokenizerBase

from babelscope.corpus import Texts, begin_text, encode_texts, prefix_of
from babelscope.errors import CorpusError
from babelscope.probes.geometry.sentences import parallel_corpus


class PatchPair(NamedTuple):
    """Two prompts that should be continued differently."""

    clean: str
    """Continued by `answer`."""
    corrupt: str
    """Continued by `foil`."""
    answer: str
    """Its first token is scored."""
    foil: str


class TokenPair(NamedTuple):
    """The same as tokens, what begins a text included."""

    clean: tuple[int, ...]
    corrupt: tuple[int, ...]
    answer: int
    foil: int


def translation_pairs(
    tokenizer: PreTrainedTokenizerBase, texts: Texts, source: str, target: str, *, share: float = 0.5, pairs: int = 30
) -> list[TokenPair]:
    """Beginnings of the same sentences in two languages, and how each goes on.

    clean: the first `share` of a sentence's tokens in `source`, answered by its next token; corrupt: the same of its
    translation in `target`. Sentences shorter than four tokens, or with the same next token, are left out.
    Raises CorpusError for text that is not parallel, or where no pair is left.
    """
    corpus = parallel_corpus(texts)
    ids_by_side = [
        [encoding.ids for encoding in encode_texts(tokenizer, [document.text for document in corpus.only([tag])[tag]])]
        for tag in (source, target)
    ]
    prefix, token_pairs = prefix_of(tokenizer), []
    for clean, corrupt in zip(*ids_by_side, strict=True):
        cuts = [max(1, round(share * len(ids))) for ids in (clean, corrupt)]
        if min(len(clean), len(corrupt)) < 4 or clean[cuts[0]] == corrupt[cuts[1]]:
            continue
        prompts = [tuple(begin_text(prefix, ids[:cut])) for ids, cut in zip((clean, corrupt), cuts, strict=True)]
        token_pairs.append(TokenPair(prompts[0], prompts[1], clean[cuts[0]], corrupt[cuts[1]]))
    if not token_pairs:
        raise CorpusError(f"{corpus.name}: no sentence of four tokens goes on differently in {source} and {target}")
    return token_pairs[:pairs]


def read_pairs(tokenizer: PreTrainedTokenizerBase, pairs: Sequence[PatchPair | TokenPair]) -> list[TokenPair]:
    """Pairs as tokens; raises CorpusError for an empty prompt, and for an answer and foil that begin alike."""
    prefix, token_pairs = prefix_of(tokenizer), []
    for pair in pairs:
        if isinstance(pair, TokenPair):
            token_pairs.append(pair)
            continue
        clean, corrupt, answer, foil = (encoding.ids for encoding in encode_texts(tokenizer, pair))
        if not (clean and corrupt and answer and foil) or answer[0] == foil[0]:
            raise CorpusError(
                f"pair {pair.clean!r}, {pair.corrupt!r}: answer {pair.answer!r} and foil {pair.foil!r} begin with the "
                "same token, or a text is empty; expected two different continuations; change the pair"
            )
        clean, corrupt = (tuple(begin_text(prefix, ids)) for ids in (clean, corrupt))
        token_pairs.append(TokenPair(clean, corrupt, answer[0], foil[0]))
    if len(token_pairs) < 2:
        raise CorpusError(f"{len(token_pairs)} pair came; expected at least two, one is the other's control; add pairs")
    return token_pairs


def groups_of(pair: TokenPair) -> dict[str, tuple[list[int], list[int]]]:
    """Positions of each group in the clean and in the corrupt prompt; of prompts of unlike length, "last" alone."""
    last = {"last": ([len(pair.clean) - 1], [len(pair.corrupt) - 1])}
    if len(pair.clean) != len(pair.corrupt):
        return last
    differs = [place for place, (a, b) in enumerate(zip(pair.clean, pair.corrupt, strict=True)) if a != b]
    first, end = (differs[0], differs[-1]) if differs else (len(pair.clean) - 1, -1)
    inner = range(len(pair.clean) - 1)
    groups = {
        "before": [place for place in inner if place < first],
        "changed": [place for place in inner if place in differs],
        "between": [place for place in inner if place > first and place not in differs],
    }
    return {**{name: (places, places) for name, places in groups.items() if places}, **last}
