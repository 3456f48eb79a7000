"""Model, neurons and text of the verb `adapt`, and what is written of a training."""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import PreTrainedTokenizerBase

from babelscope.adaptation import Adaptation, BeforeAfter, Material, Method
from babelscope.adaptation.forgetting import choose_replay
from babelscope.adaptation.methods import OF_PARAMETERS
from babelscope.adaptation.result_file import RESULT
from babelscope.artifacts import NeuronSet
from babelscope.cli.alignment_job import AlignmentJob, alignment_facts, bits_of_test, save_shift, shift_facts
from babelscope.cli.arguments import Result
from babelscope.corpus import (
    SPLITS,
    WHOLE,
    Corpus,
    Document,
    as_corpus,
    check_apart,
    check_conversations,
    has_splits,
    load_corpus,
    mix_languages,
)
from babelscope.corpus.messages import Counted
from babelscope.corpus.mixed import MixUnit
from babelscope.errors import CorpusError, MeasurementError
from babelscope.evaluation import check_labels
from babelscope.figures import FORGETTING_CAPTION, forgetting_lines, write_figure
from babelscope.files.state_folder import hash_json
from babelscope.files.work_log import hash_of
from babelscope.files.writing import discard, new_folder, write_text
from babelscope.languages import Language
from babelscope.models import check_made_for, open_model
from babelscope.models.plain import CausalModel
from babelscope.runs import nan_as_null
from babelscope.study.plan import plan_of_model
from babelscope.subnetworks import Delta, prepare_training

log = logging.getLogger(__name__)


def refuse_untouched(
    result: Mapping[str, Any], learning_rate: float, out: Path, checkpoint: Path, *, otherwise: str
) -> None:
    """Raise MeasurementError where no step was better than the model as it was: such a result would change nothing.

    The course of the training is written beside `out`, and the checkpoint, which holds nothing better, is removed.
    otherwise: what may be done in the place of a lower learning rate.
    """
    if result["best_step"]:
        return
    log = out.with_name(f"{out.name}.training.json")
    write_text(log, json.dumps({"learning_rate": learning_rate, **result}, indent=1))
    discard(checkpoint)
    after = min(score for step, score in result["bits_per_byte"] if step)
    raise MeasurementError(
        f"no step at learning rate {learning_rate:g} was better on valid text than the untouched model "
        f"({after:.4f} bits per byte at best, {result['untouched']:.4f} before); expected a gain; nothing is saved, "
        f"the training log is in {log}; lower --learning-rate, such as to {learning_rate / 10:g}, or {otherwise}"
    )


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
    """The model, the neurons and the text of one call."""

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

    def fingerprint(self, settings: Mapping[str, Any]) -> str:
        """Hash of everything that decides the run."""
        texts = {"train": self.train, "test": self.test, **({} if self.replay is None else {"replay": self.replay})}
        plan = {
            **plan_of_model(self.model, self.tokenizer),
            "neurons": hash_of(self.neurons.mask()),
            "language": self.language,
            "text": {name: part.hash for name, part in texts.items()},
            "valid": hash_of(*(document.text for document in self.valid)),
            "settings": dict(settings),
        }
        return hash_json(plan)

    def check_fit(self, baseline: str, *, replay_share: float, max_length: int, seed: int) -> None:
        """Raise what the training would raise where model, neurons and text do not fit, before anything is measured."""
        if self.language not in self.test:
            raise CorpusError(f"no test text of {self.language}; expected it among the others'; add it")
        check_made_for(self.neurons.origin, self.model, None, "neurons")
        if baseline in ("none", "random"):
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

    def trained_layers(self, baseline: str) -> tuple[int, ...]:
        """Layers of the neurons that are trained; none where parameters or adapters of all layers are."""
        if baseline not in ("none", "random"):
            return ()
        return tuple(self.neurons.mask().any(dim=2).any(dim=0).nonzero()[:, 0].tolist())


def training_dtype(dtype: str, method: str) -> str:
    """What to open a model in: "auto" is float32 for methods that move its own values: 16 bits lose small steps."""
    return "float32" if dtype == "auto" and method in OF_PARAMETERS else dtype


def cast_costs(
    job: AdaptInputs, delta: Delta, before: float, after: float, alignment: AlignmentJob | None = None
) -> dict[str, Any]:
    """What bfloat16 weights would take of the change and its gain, bits per byte; in 16 bits, what they took."""
    loss = delta.cast_loss(job.model)
    if loss.dtype in ("bfloat16", "float16"):
        return asdict(loss)
    left = delta.rounded(job.model, torch.bfloat16)
    with left.applied(job.model):
        cast_bits = bits_of_test(job.model, job.tokenizer, job.test.only([job.language]), alignment)[job.language]
    cast_facts = {
        **asdict(delta.cast_loss(job.model, dtype=torch.bfloat16)),
        "gain": before - cast_bits,
        "gain_lost": cast_bits - after,
    }
    return cast_facts


def open_job(
    model: str,
    neurons: Path,
    corpus: str,
    language: str,
    replay: tuple[str, ...],
    *,
    check_language: bool,
    device: str,
    dtype: str,
    same_text: bool,
    conversation: Counted | None,
    mix: Mixing | None = None,
) -> AdaptInputs:
    """Read everything, the small things first."""
    tag = Language.parse(language)
    chosen = NeuronSet.load(neurons)[tag]
    texts = read_splits(
        corpus, tag, replay, check_language=check_language, same_text=same_text, conversation=conversation, mix=mix
    )
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
    )


def choose_share(
    job: AdaptInputs,
    corpus: str,
    shares: Sequence[float],
    bound: float,
    method: Method,
    packing: Mapping[str, Any],
    options: Mapping[str, Any],
) -> tuple[AdaptInputs, dict[str, Any]]:
    """The job with the replay text that keeps the harm on valid text within a bound, and what the result says of it."""
    split = "valid" if has_splits(corpus) or not job.text["same_text"] else WHOLE
    valid = load_corpus(corpus, list(job.test), split=split, conversation=job.conversation)

    def prepare(share: float) -> Material:
        return job.material(valid=valid, **{**packing, "replay_share": share})

    choice = choose_replay(prepare, method, shares, bound, **options)
    costs = {f"{share:g}": [choice.gains[share], harm] for share, harm in choice.harms.items()}
    account = [row._asdict() | {"recovered": nan_as_null(row.recovered)} for row in choice.account]
    log.info("replaying a share of %g: harm %.4f on valid text", choice.share, choice.harms[choice.share])
    facts = {"share": choice.share, "bound": bound, "gain_and_harm_by_share": costs, "forgetting": account}
    facts["course"] = [[tokens, rises] for tokens, rises in choice.course]
    return job if choice.share else replace(job, replay=None), {"replay": facts}


def write_course(folder: Path, replayed: Mapping[str, Any]) -> None:
    """The figure of what other languages lost on the way, where a share was chosen."""
    if replayed:
        facts = replayed["replay"]
        course = [(tokens, rises) for tokens, rises in facts["course"]]
        figure = forgetting_lines(course=course, bound=facts["bound"])
        write_figure(figure, folder / "forgetting.html", FORGETTING_CAPTION)


def write_baseline(
    result: Adaptation,
    out: Path,
    job: AdaptInputs,
    scores: dict[float, float],
    alignment: AlignmentJob | None,
    replayed: Mapping[str, Any],
) -> Result:
    """result.json of a baseline, and what it trained where some step was better than none.

    A Delta for methods of neurons, an ElementDelta for others that move weights, and an adapter of peft for LoRA.
    """
    result_fields = summary(job.language, result.scores, result.trained, result.learning_rate, scores)
    result_fields |= replayed
    if alignment is not None and result.aligned_after is not None:
        result_fields["alignment"] = alignment_facts(alignment.before, result.aligned_after, alignment.steps)
        result_fields |= shift_facts(alignment)
    curve = [[point.step, point.bits_per_byte] for point in result.history if point.bits_per_byte is not None]
    facts = {**result_fields, "method": result.method, "bits_per_byte": curve, "text": job.text}
    with new_folder(out) as folder:
        if result.delta is not None and result.delta.changes_values:
            result.delta.save(folder)
        if result.adapter is not None and result.adapter.changes_values:
            result.adapter.save(folder)
        save_shift(folder, alignment)
        write_course(folder, replayed)
        write_text(folder / RESULT, json.dumps(facts, indent=1))
    return {"out": str(out), "method": result.method, **result_fields}


def saying_no_gain(language: Language, gain: float, before: str) -> dict[str, str]:
    """A field that says so where test text takes no fewer bits per byte than `before`; it is logged too."""
    if gain > 0:
        return {}
    line = f"no gain: test text of {language} takes {0.0 - gain:.4f} bits per byte more than with {before}"
    field = {"no_gain": f"{line}; lower --learning-rate, or give more text"}
    log.warning(field["no_gain"])
    return field


def summary(
    language: Language, scores: BeforeAfter, trained: int, learning_rate: float, rates: dict[float, float]
) -> dict[str, Any]:
    """Bits per byte of the test text: the target's gain, the others' mean rise; a run that did not help says so."""
    gain = scores.gain(language)
    return {
        **saying_no_gain(language, gain, "the untouched model"),
        "language": language,
        "trained": trained,
        "learning_rate": learning_rate,
        "rates_on_valid": {str(rate): score for rate, score in rates.items()},
        "gain": gain,
        "harm": nan_as_null(scores.harm(language)),
        **scores._asdict(),
    }
