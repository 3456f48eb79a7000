"""Plain and steered answers to the same prompts beside each other, each with its language."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from transformers import PreTrainedTokenizerBase

from babelscope.artifacts import Direction, SteeringRecipe
from babelscope.corpus import Message, Messages
from babelscope.errors import LanguageError, MeasurementError, refuse_one_text
from babelscope.evaluation import detect_languages, judge_answers, known_languages
from babelscope.languages import Language
from babelscope.models.modes import refuse_steered
from babelscope.models.plain import CausalModel
from babelscope.steering.engine import Operations, flat_operations
from babelscope.steering.sweeps.decoding import Decoding
from babelscope.steering.sweeps.steered_answers import Answer, Steerer, generate_answers
from babelscope.steering.sweeps.steering_prompts import Prompt
from babelscope.subnetworks import Delta

AnySteering = Direction | Delta | Operations
"""Whatever changes how a model answers: a Direction is added once, as it is long; a Delta is in the weights."""
GREEDY = Decoding(new_tokens=64, temperature=0.0)
"""The likeliest token each time: two answers differ by the steering alone."""


class AnswerPair(NamedTuple):
    """One prompt's answers without and with steering."""

    prompt: Prompt
    plain: Answer
    steered: Answer
    plain_language: Language | None
    """What it was recognised as; None where nothing was."""
    steered_language: Language | None
    verdict: str | None
    """Of the steered answer, for the language asked for; None where none was, or where it cannot be recognised."""


def meant_language(steering: AnySteering) -> Language | None:
    """The language a Direction, a recipe made from one, or a Delta of one language stands for; else None."""
    if isinstance(steering, Direction):
        return Language.parse(steering.target)
    if isinstance(steering, Delta):
        return steering.languages[0] if len(steering.languages) == 1 else None
    target = steering.parameters.get("target") if isinstance(steering, SteeringRecipe) else None
    return None if target is None else Language.parse(target)


def compare_answers(
    model: CausalModel,
    tokenizer: PreTrainedTokenizerBase,
    steering: AnySteering,
    texts: Sequence[str | Prompt] = (),
    *,
    messages: Messages | Sequence[Messages] = (),
    system: str | None = None,
    target: str | None = None,
    strength: float = 1.0,
    decoding: Decoding | None = None,
) -> list[AnswerPair]:
    """Answer every prompt twice, as the model is and steered, and name the language of both answers.

    steering: a Direction, a SteeringRecipe, a trained Delta, or operations.
    texts: plain texts to continue, or Prompts. messages: in their place, one conversation or a list of them (a text is
    a user's message), rendered by the model's own chat template after the `system` prompt.
    target: the language the steered answer should be in; None means the one that the steering was made for, if it says.
    strength: of a Direction in its own length; scale of a Delta. decoding: None takes the likeliest token, 64 of them.
    Raises ChatError for messages that the template refuses, MeasurementError without a prompt, ArtifactError for
    steering of another model.
    """
    refuse_one_text(texts, "texts", MeasurementError)
    prompts = [
        *(text if isinstance(text, Prompt) else Prompt(str(i), Language("und"), text) for i, text in enumerate(texts)),
        *(Prompt.chat(str(i), Language("und"), talk, system=system) for i, talk in enumerate(conversations(messages))),
    ]
    if not prompts:
        raise MeasurementError("no prompt came; expected texts or messages; add one")
    if system is not None and not messages:
        raise MeasurementError("a system prompt came without messages; expected messages to put it before; give both")
    target_tag = meant_language(steering) if target is None else Language.parse(target)
    if target is not None and target_tag not in known_languages():
        raise LanguageError(
            f"{target_tag} cannot be recognised in answers; expected a known language; leave target out"
        )
    refuse_steered(model)
    decoding = decoding or GREEDY
    requests = [(prompt, target_tag or Language("und")) for prompt in prompts]
    with changed(model, steering, strength) as steerer:
        steered = generate_answers(model, tokenizer, requests, steerer, decoding=decoding)
    plain = generate_answers(model, tokenizer, requests, decoding=decoding)
    return pair_answers(plain, steered, target_tag)


def conversations(messages: Messages | Sequence[Messages]) -> list[Messages]:
    """One conversation or many as a list of them: a list of turns is one."""
    if isinstance(messages, str | Mapping):
        return [messages]
    turns = [turn for turn in messages if isinstance(turn, Message) or (isinstance(turn, Mapping) and "role" in turn)]
    return [messages] if turns else list(messages)


@contextmanager
def changed(model: CausalModel, steering: AnySteering, strength: float) -> Iterator[Steerer | None]:
    """The model with a Delta in its weights, or what steers each of its rows."""
    if isinstance(steering, Delta):
        with steering.applied(model, strength):
            yield None
        return
    if isinstance(steering, SteeringRecipe):
        steering.check(model)
    operations = [steering.add(strength, "raw")] if isinstance(steering, Direction) else flat_operations(steering)
    yield lambda target, source: operations


def pair_answers(plain: Sequence[Answer], steered: Sequence[Answer], target: Language | None) -> list[AnswerPair]:
    """Answers in pairs, with their languages and, where one was wanted, the verdict on the steered one.

    A steered answer that is right is in the target: by a guess among all languages, a few words may be in a neighbour.
    """
    before, after = (detect_languages([answer.text for answer in group]) for group in (plain, steered))
    verdicts: list[str | None] = [None] * len(steered)
    if target is not None and target in known_languages():
        judged = judge_answers([answer.text for answer in steered], [target] * len(steered))
        verdicts = [recognition.verdict for recognition in judged]
        after = [target if verdict == "right" else tag for tag, verdict in zip(after, verdicts, strict=True)]
    rows = zip(plain, steered, before, after, verdicts, strict=True)
    return [
        AnswerPair(first_answer.prompt, first_answer, second_answer, first, second, verdict)
        for first_answer, second_answer, first, second, verdict in rows
    ]
