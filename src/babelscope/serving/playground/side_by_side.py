"""Plain and steered answers to one prompt with all that the page shows of them, computed without a page."""

import math
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from transformers import PreTrainedTokenizerBase

from babelscope.artifacts import Operation, SteeringRecipe
from babelscope.corpus import check_template, check_unicode
from babelscope.errors import ChatError, CorpusError, LanguageError, UsageError
from babelscope.evaluation import detect_languages, judge_answer, known_languages
from babelscope.languages import Language
from babelscope.models import check_made_for, layout_of, run_pass
from babelscope.models.plain import CausalModel
from babelscope.serving.playground.offered_steering import (
    NO_STEERING,
    Artifact,
    SteeringChoice,
    neuron_switches,
    steering_choices,
)
from babelscope.steering.engine import flat_operations
from babelscope.steering.sweeps import Answer, Decoding, Prompt, generate_answers
from babelscope.steering.sweeps.beside import AnySteering, changed
from babelscope.steering.sweeps.steered_answers import steered_rows
from babelscope.steering.sweeps.steering_prompts import left_pad
from babelscope.vocabulary import scripts_of_entries

WEAKEST, STRONGEST = -4.0, 4.0
"""Ends of the slider; 1 is the strength an artifact was saved with."""
LONGEST_ANSWER = 512
NOBODY = Language("und")


@dataclass(frozen=True, kw_only=True)
class PlaygroundQuestion:
    """One press of the button; a field that was emptied comes as None, which only `target` and `layer` may be."""

    text: str
    chat: bool = False
    """Whether the text is a user's message for the model's own template, or the beginning of a text."""
    system: str = ""
    choice: str | None = NO_STEERING
    """A name of `Playground.choices`, or "no steering"."""
    target: str | None = ""
    """The language that is wanted, as a tag; empty for the one that the steering was made for."""
    strength: float | int | None = 1.0
    layer: int | None = None
    """For a choice that has layers; None takes the one at a quarter of the depth."""
    switched_off: Sequence[str] = ()
    """Names of `Playground.switches`."""
    new_tokens: float | int | None = 64


@dataclass(frozen=True, kw_only=True)
class ShownAnswer:
    """One answer with its languages, and what the model would say next after the prompt."""

    answer: Answer
    segments: tuple[tuple[str, Language | None], ...]
    """The whole text in runs of one language; None for what stands before the first word and in no known language."""
    language: Language | None
    """Of most of its letters."""
    shares: Mapping[str, float]
    """Share of the letters by language."""
    verdict: str | None
    """Whether it is in the target language; None without a target."""
    next_tokens: tuple[tuple[str, float], ...]
    """The likeliest tokens after the prompt, with their probability."""
    next_scripts: Mapping[str, float]
    """Probability of the next token by the script it is written in, most first; together 1."""


@dataclass(frozen=True, kw_only=True)
class AnswersSideBySide:
    """The two answers, and what was asked."""

    plain: ShownAnswer
    steered: ShownAnswer
    target: Language | None
    decoding: Decoding


@dataclass(frozen=True, eq=False, kw_only=True)
class Playground:
    """A model with artifacts, one question at a time.

    Raises ArtifactError for an artifact of another model, and where none of them can be used.
    """

    model: CausalModel
    tokenizer: PreTrainedTokenizerBase
    artifacts: Mapping[str, Artifact]
    seed: int = 0
    temperature: float | int = 0.0
    _one_at_a_time: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def __post_init__(self) -> None:
        for name, artifact in self.artifacts.items():
            check_made_for(artifact.origin, self.model, self.tokenizer, name)
        _ = self.choices, self.switches

    @cached_property
    def choices(self) -> dict[str, SteeringChoice]:
        """Ways of steering by name."""
        return steering_choices(self.artifacts)

    @cached_property
    def switches(self) -> dict[str, SteeringRecipe]:
        """Neurons that can be switched off by name."""
        return neuron_switches(self.artifacts)

    @cached_property
    def has_chat(self) -> bool:
        """Whether the model has a chat template of its own."""
        try:
            check_template(self.tokenizer)
        except ChatError:
            return False
        return True

    @cached_property
    def targets(self) -> tuple[Language, ...]:
        """Languages that can be wanted: those of the choices, and all known ones where a choice leaves it open."""
        said = {tag for choice in self.choices.values() for tag in (*choice.targets, *filter(None, [choice.target]))}
        open_ended = not said or any(not choice.targets and not choice.target for choice in self.choices.values())
        return tuple(sorted(said | (known_languages() if open_ended else set())))

    @cached_property
    def token_scripts(self) -> dict[str, list[int]]:
        """Ids of the vocabulary by script; rows of the head that the tokenizer has no entry for are "no entry"."""
        scripts = scripts_of_entries(self.tokenizer)
        ids: dict[str, list[int]] = {}
        for token in range(layout_of(self.model).width("logits")):
            ids.setdefault(scripts.get(token, "no entry"), []).append(token)
        return ids

    def answer(self, question: PlaygroundQuestion) -> AnswersSideBySide:
        """Both answers to a question; with the same seed they are the same each time.

        Raises UsageError, CorpusError, LanguageError or ChatError for a question that cannot be answered, in one line,
        before anything is generated.
        """
        choice, target = self._check(question)
        prompt = _prompt(question)
        off = [operation for name in question.switched_off for operation in self.switches[name]]
        decoding = Decoding(new_tokens=int(question.new_tokens or 0), temperature=self.temperature, seed=self.seed)
        with self._one_at_a_time:
            plain = self._shown(prompt, target, None, decoding)
            steering = self._steering(choice, target, question) if choice else []
            with changed(self.model, steering, 1.0) as steerer:
                added = flat_operations(steerer(target or NOBODY, NOBODY) if steerer else ())
                steered = self._shown(prompt, target, [*off, *added], decoding)
        return AnswersSideBySide(plain=plain, steered=steered, target=target, decoding=decoding)

    def _check(self, question: PlaygroundQuestion) -> tuple[SteeringChoice | None, Language | None]:
        """The choice and the target of a question; raises as `answer`."""
        if not question.text.strip():
            raise CorpusError("no prompt came; expected a text; write one")
        check_unicode(question.text, "the prompt")
        if question.system and not question.chat:
            raise ChatError("a system prompt came without chat; expected both; switch chat on, or empty it")
        if question.chat:
            check_template(self.tokenizer)
        _check_number("strength", question.strength, WEAKEST, STRONGEST)
        _check_number("new tokens", question.new_tokens, 1, LONGEST_ANSWER, whole=True)
        _check_names("switched off", question.switched_off, self.switches)
        _check_names("steering", [question.choice], [NO_STEERING, *self.choices])
        choice = self.choices.get(question.choice or "")
        target = Language.parse(question.target) if question.target else choice and choice.target
        if choice and choice.targets and target not in choice.targets:
            raise LanguageError(
                f"target {target or 'none'} came; expected one of {', '.join(choice.targets)} for "
                f"{question.choice!r}; choose one"
            )
        if choice and choice.layers and question.layer is not None and question.layer not in choice.layers:
            raise UsageError(
                f"layer {question.layer} came; expected one of {', '.join(map(str, choice.layers))} for "
                f"{question.choice!r}; choose one"
            )
        if target is not None and target not in known_languages():
            raise LanguageError(f"{target} cannot be recognised in answers; expected a known language; choose another")
        return choice, target

    def _steering(self, choice: SteeringChoice, target: Language | None, question: PlaygroundQuestion) -> AnySteering:
        layer = choice.layers[len(choice.layers) // 4] if choice.layers and question.layer is None else question.layer
        return choice.build(target, float(question.strength or 0), layer or 0)

    def _shown(
        self, prompt: Prompt, target: Language | None, operations: Sequence[Operation] | None, decoding: Decoding
    ) -> ShownAnswer:
        """An answer with its languages, under some operations; None of them is the model as it is."""
        steerer = None if operations is None else lambda wanted, source: operations
        requests = [(prompt, target or NOBODY)]
        (answer,) = generate_answers(self.model, self.tokenizer, requests, steerer, decoding=decoding)
        (language,) = detect_languages([answer.text])
        judged = judge_answer(answer.text, target or language or "en")
        probabilities = self._next_probabilities(prompt, operations)
        return ShownAnswer(
            answer=answer,
            segments=whole_text(answer.text, judged.segments),
            language=language,
            shares=judged.languages,
            verdict=judged.verdict if target else None,
            next_tokens=self._likeliest(probabilities),
            next_scripts=self._by_script(probabilities),
        )

    def _next_probabilities(self, prompt: Prompt, operations: Sequence[Operation] | None) -> torch.Tensor:
        """Probability of every token right after the prompt, in float64."""
        ids, mask = left_pad(self.tokenizer, [prompt])
        with steered_rows(self.model, self.tokenizer, None if operations is None else [operations]):
            logits = run_pass(layout_of(self.model), ids, mask, head=True)
        return logits[0, -1].double().cpu().softmax(dim=0)

    def _likeliest(self, probabilities: torch.Tensor, count: int = 5) -> tuple[tuple[str, float], ...]:
        values, ids = probabilities.topk(min(count, len(probabilities)))
        words = [str(self.tokenizer.decode([token])) for token in ids.tolist()]
        return tuple(zip(words, values.tolist(), strict=True))

    def _by_script(self, probabilities: torch.Tensor) -> dict[str, float]:
        shares = {script: float(probabilities[ids].sum()) for script, ids in self.token_scripts.items()}
        return dict(sorted(shares.items(), key=lambda entry: -entry[1]))


def whole_text(text: str, segments: Iterable[tuple[str, Language | None]]) -> tuple[tuple[str, Language | None], ...]:
    """The judge's segments with the white space between them and what stands before the first; together the text."""
    pieces: list[tuple[str, Language | None]] = []
    end = 0
    for segment, language in segments:
        start = text.index(segment, end)
        if pieces:
            pieces[-1] = (pieces[-1][0] + text[end:start], pieces[-1][1])
        elif start:
            pieces.append((text[:start], None))
        pieces.append((segment, language))
        end = start + len(segment)
    if not pieces:
        return ((text, None),) if text else ()
    return (*pieces[:-1], (pieces[-1][0] + text[end:], pieces[-1][1]))


def _prompt(question: PlaygroundQuestion) -> Prompt:
    if question.chat:
        return Prompt.chat("0", NOBODY, question.text, system=question.system or None)
    return Prompt("0", NOBODY, question.text)


def _check_number(what: str, value: object, low: float | int, high: float | int, whole: bool = False) -> None:
    """Raise UsageError for what is no number between two ends, such as an emptied field."""
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not number or not low <= value <= high or (whole and value != int(value)):  # pyright: ignore
        kind = "a whole number" if whole else "a number"
        raise UsageError(f"{what} {value!r} came; expected {kind} from {low:g} to {high:g}; correct it")


def _check_names(what: str, names: Iterable[str | None], offered: Iterable[str]) -> None:
    """Raise UsageError for a name that is not on the page."""
    for name in names:
        if name is None or name not in offered:
            names_offered = ", ".join(map(repr, offered)) or "none, for no NeuronSet was given"
            raise UsageError(f"{what} {name!r} came; expected one of {names_offered}; choose one")
