"""The romanised control: how much of a set is about the script?"""

from typing import NamedTuple

from transformers import PreTrainedTokenizerBase

from babelscope.artifacts import NeuronSet, Observation
from babelscope.controls import ScriptShare, script_share
from babelscope.corpus import Corpus, romanise, shuffle_words
from babelscope.errors import LanguageError
from babelscope.evaluation import bits_per_byte
from babelscope.languages import Language
from babelscope.models.plain import CausalModel
from babelscope.recording import observe

SHARDS = 64


class ScriptControl(NamedTuple):
    """The script share of each language that has one."""

    shares: dict[Language, ScriptShare]
    bits_per_byte: dict[Language, float]
    """Of the romanised text: how far out of distribution it is."""
    not_applicable: dict[Language, str]
    """Why the others have none."""


def romanised_control(
    model: CausalModel,
    tokenizer: PreTrainedTokenizerBase,
    sets: NeuronSet,
    texts: Corpus,
    *,
    seed: int = 0,
) -> ScriptControl:
    """Retention of each set on held-out text as it is, romanised, with its words shuffled, and on English.

    The sets and their bar stay fixed; romanised text never becomes a language of the selection.
    texts: held-out text of the sets' languages, English among them.
    Raises LanguageError without English, CorpusError if no language can be romanised.
    """
    if "en" not in texts:
        raise LanguageError(
            "the romanised control needs English text as its floor; expected 'en' in the corpus; add it"
        )
    tags = [tag for tag in sets.languages if tag in texts]
    latin = romanise(texts.only(tags))
    native = texts.only(latin)

    def look(corpus: Corpus) -> Observation:
        return observe(model, tokenizer, corpus, sites=[sets.at], tokens_per_language=None, shards=SHARDS)

    shares = script_share(
        sets,
        threshold=float(sets.parameters["threshold_bar"]),
        native=look(native),
        romanised=look(latin),
        shuffled=look(shuffle_words(native, seed=seed)),
        english=look(texts.only(["en"])),
        seed=seed,
    )
    reason = {"Latn": "written in Latin letters", "Jpan": "kanji cannot be romanised letter by letter"}
    return ScriptControl(
        shares,
        bits_per_byte(model, tokenizer, latin),
        {tag: reason.get(tag.script, "no romanisation") for tag in sets.languages if tag not in shares},
    )
