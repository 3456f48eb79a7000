"""Model, neurons and text of one adaptation, read and checked together."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from transformers import PreTrainedTokenizerBase

from babelscope.adaptation.material import Material
from babelscope.adaptation.methods import OF_NEURONS, OF_PARAMETERS
from babelscope.adaptation.source_shield import SourceShield
from babelscope.artifacts import NeuronSet
from babelscope.corpus import (
    SPLITS,
    WHOLE,
    Corpus,
    Document,
    as_corpus,
    check_apart,
    check_conversations,
    check_unseen,
    has_splits,
    load_corpus,
    mix_languages,
)
from babelscope.corpus.messages import Counted
from babelscope.corpus.mixed import MixUnit
from babelscope.errors import CorpusError
from babelscope.evaluation import check_labels
from babelscope.files.state_folder import hash_json
from babelscope.files.work_log import hash_of
from babelscope.languages import Language
from babelscope.models import check_made_for, open_model
from babelscope.models.origin import plan_of_model
from babelscope.models.plain import CausalModel
from babelscope.subnetworks import prepare_training


class Mixing(NamedTuple):
    """How the train text of several languages is mixed, see `mix_languages`."""

    unit: MixUnit
    lines: int
    seed: int


class SplitTexts(NamedTuple):
    """What a training reads."""

    train: Corpus
    replay: Corpus | None
    valid: tuple[Document, ...]
    """Of the trained language."""
    test: Corpus
    facts: dict[str, Any]
    """Of every split, for results."""


def read_splits(
    corpus: str,
    tag: Language,
    replay: Sequence[str],
    *,
    check_language: bool,
    same_text: bool,
    conversation: Counted | None,
    mix: Mixing | None = None,
) -> SplitTexts:
    """Train text of a language and those replayed, its valid text, and test text of all; no text in two splits."""
    split = {name: name if has_splits(corpus) or not same_text else WHOLE for name in SPLITS}
    train = load_corpus(
        corpus,
        dict.fromkeys((tag, *replay)),
        split=split["train"],
        conversation=conversation,
        parallel=mix is not None,
    )
    if check_language:
        check_labels(train)
    replay_tags = [other for other in train if other != tag]
    valid = load_corpus(corpus, [tag], split=split["valid"], conversation=conversation)
    test = load_corpus(corpus, split=split["test"], conversation=conversation)
    check_apart({"train": train, "valid": valid, "test": test}, name=corpus, same_text=same_text)
    facts = {name: part.facts() for name, part in (("train", train), ("valid", valid), ("test", test))}
    if mix is not None:
        train = mix_languages(train, **mix._asdict())
        facts["train"] |= {"mixed": mix._asdict()}
    only_replay = train.only(replay_tags) if replay_tags else None
    return SplitTexts(train, only_replay, valid[tag], test, {**facts, "same_text": same_text})


@dataclass(frozen=True)
class AdaptInputs:
    """The model, the neurons and the text."""

    model: CausalModel
    tokenizer: PreTrainedTokenizerBase
    neurons: NeuronSet
    language: Language
    train: Corpus
    replay: Corpus | None
    valid: tuple[Document, ...]
    test: Corpus
    conversation: Counted | None
    """Whose words of conversations count; None for plain text."""
    text: Mapping[str, Any]
    """What the result says of the text: facts of every split, and whether one text for several was asked for."""
    corpus: str
    """Where the text was read."""
    source: Corpus | None = None
    """Text of the languages whose columns are shielded; None where none are."""

    def material(self, *, valid: Corpus | None = None, **packing: Any) -> Material:
        """For the library's comparisons; with the valid text of all languages, for a choice on it."""
        return Material.prepare(
            self.model,
            self.tokenizer,
            language=self.language,
            documents=self.train[self.language],
            dev=self.valid,
            test=self.test if valid is None else valid,
            replay=self.replay if packing["replay_share"] else None,
            # To choose on, the target's valid text is both what the step and what the share is chosen by.
            same_text=self.text["same_text"] or valid is not None,
            **packing,
        )

    def shield(self, *, share: float, tokens: int, max_length: int) -> SourceShield | None:
        """What source-shielded updates hold still; None where no language was named."""
        if self.source is None:
            return None
        return SourceShield.of(
            self.model, self.tokenizer, self.source, share=share, tokens=tokens, max_length=max_length
        )

    def fingerprint(self, settings: Mapping[str, Any]) -> str:
        """Hash of everything that decides the run."""
        texts = {"train": self.train, "test": self.test}
        texts |= {} if self.replay is None else {"replay": self.replay}
        texts |= {} if self.source is None else {"source": self.source}
        plan = {
            **plan_of_model(self.model, self.tokenizer),
            "neurons": hash_of(self.neurons.mask()),
            "language": self.language,
            "text": {name: part.hash for name, part in texts.items()},
            "valid": hash_of(*(document.text for document in self.valid)),
            "settings": dict(settings),
        }
        return hash_json(plan)

    def valid_of_all(self) -> Corpus:
        """Valid text of every measured language."""
        split = "valid" if has_splits(self.corpus) or not self.text["same_text"] else WHOLE
        return load_corpus(self.corpus, list(self.test), split=split, conversation=self.conversation)

    def check_fit(self, method: str, *, replay_share: float, max_length: int, seed: int) -> None:
        """Raise what the training would raise where model, neurons and text do not fit, before anything is measured."""
        if self.language not in self.test:
            raise CorpusError(f"no test text of {self.language}; expected it among the others'; add it")
        check_made_for(self.neurons.origin, self.model, None, "neurons")
        if method in OF_NEURONS:
            prepare_training(
                self.model,
                self.tokenizer,
                self.neurons,
                self.train[self.language],
                replay=self.replay,
                replay_share=replay_share,
                max_length=max_length,
                seed=seed,
            )

    def trained_layers(self, method: str) -> tuple[int, ...]:
        """Layers of the neurons that are trained; none where parameters or adapters of all layers are."""
        if method not in OF_NEURONS:
            return ()
        return tuple(self.neurons.mask().any(dim=2).any(dim=0).nonzero()[:, 0].tolist())


def training_dtype(dtype: str, method: str) -> str:
    """What to open a model in: "auto" is float32 for methods that move its own values: 16 bits lose small steps."""
    return "float32" if dtype == "auto" and method in OF_PARAMETERS else dtype


def open_inputs(
    model: str,
    neurons: str | Path,
    corpus: str,
    language: str,
    replay: tuple[str, ...] = (),
    *,
    check_language: bool = True,
    device: str = "auto",
    dtype: str = "auto",
    same_text: bool = False,
    conversation: Counted | None = None,
    mix: Mixing | None = None,
    shield: tuple[str, ...] = (),
) -> AdaptInputs:
    """Read everything, the small things first.

    neurons: folder of a NeuronSet that has the language. corpus: folder with train, valid and test text, hub id, or
    "reference"; every language of it is measured. replay: other languages of it that are trained along. shield: those
    whose text says what source-shielded updates hold still.
    Raises LanguageError, CorpusError, ArtifactError or PrerequisiteError for what is not there or does not fit.
    """
    tag = Language.parse(language)
    chosen = NeuronSet.load(neurons)[tag]
    texts = read_splits(
        corpus, tag, replay, check_language=check_language, same_text=same_text, conversation=conversation, mix=mix
    )
    for part in (as_corpus({tag: texts.valid}), texts.test):
        check_unseen(part, chosen.parameters.get("text"), what="these neurons", same_text=same_text)
    split = "train" if has_splits(corpus) or not same_text else WHOLE
    source = load_corpus(corpus, shield, split=split, conversation=conversation) if shield else None
    language_model, tokenizer = open_model(model, device=device, dtype=dtype)
    if conversation is not None:
        for part in (texts.train, as_corpus({tag: texts.valid}), texts.test):
            check_conversations(tokenizer, part)
    return AdaptInputs(
        language_model,
        tokenizer,
        chosen,
        tag,
        texts.train,
        texts.replay,
        texts.valid,
        texts.test,
        conversation,
        texts.facts,
        corpus,
        source,
    )
