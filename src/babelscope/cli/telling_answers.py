"""Plain and steered answers beside each other, as fields for machines and as lines for a person."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from babelscope.cli.telling import Told
from babelscope.languages import Language
from babelscope.steering.sweeps import AnswerPair, Decoding

MEANING: dict[str | None, str] = {
    "short": "short, too short to tell its language; --new-tokens asks for a longer one",
    "broken": "broken, by damaged characters or one piece again and again",
}
"""Verdicts that say nothing of a language, in words."""
LOOP = 0.3
"""Share of an answer that it said before, from which on a person is told that it repeats itself."""


def told(
    pairs: Sequence[AnswerPair],
    target: Language | None,
    decoding: Decoding,
    chat: bool,
    overridden: Mapping[str, Any],
) -> Told:
    """The pairs as fields, and as lines for a person; overridden: see `overridden_settings`."""
    how = (
        "greedy"
        if decoding.temperature == 0
        else f"sampled at temperature {decoding.temperature}, seed {decoding.seed}"
    )
    rows = [
        {
            "prompt": pair.prompt.text,
            **({"messages": [message.as_dict() for message in pair.prompt.messages]} if chat else {}),
            "plain": {
                "text": pair.plain.text,
                "language": pair.plain_language,
                "ended": pair.plain.ended,
                "repeated": repeated_share(pair.plain.text),
            },
            "steered": {
                "text": pair.steered.text,
                "language": pair.steered_language,
                "ended": pair.steered.ended,
                "repeated": repeated_share(pair.steered.text),
            },
            "verdict": pair.verdict,
        }
        for pair in pairs
    ]
    fields = {
        "target": target,
        "decoding": how,
        "new_tokens": decoding.new_tokens,
        "chat": chat,
        "overridden_settings": dict(overridden),
        "answers": rows,
    }
    head = f"{how}, {'at most ' if chat else ''}{decoding.new_tokens} new tokens"
    asked_for = "" if target is None else f"; asked for {named(target)}"
    spoken = ", ".join(f"{name} {value}" for name, value in overridden.items())
    aside_lines = [f"the checkpoint's own settings are left aside: {spoken}"] if overridden else []
    return Told(
        fields, [head + asked_for, *aside_lines, *(line for pair in pairs for line in pair_lines(pair, target))]
    )


def pair_lines(pair: AnswerPair, target: Language | None) -> Iterator[str]:
    """A prompt, its two answers with their languages, and what is wrong with the second."""
    yield ""
    yield from labelled("prompt", "", pair.prompt.text)
    yield from labelled("plain", pair.plain_language or "?", pair.plain.text)
    yield from labelled("steered", pair.steered_language or "?", pair.steered.text)
    share, plain_share = (repeated_share(answer.text) for answer in (pair.steered, pair.plain))
    if share >= LOOP:
        cause = (
            "so does the plain one" if plain_share >= LOOP else "the plain one does not; a smaller --strength may help"
        )
        yield f"  {share:.0%} of the steered answer says again what it said ({cause}); its language alone is judged"
    if target is None or pair.verdict in (None, "right"):
        return
    other = pair.steered_language
    if other is not None and other != target:
        yield f"  the steered answer is in {named(other)}, not in {named(target)}"
    else:
        meaning = MEANING.get(pair.verdict, pair.verdict)
        yield f"  the steered answer is not in {named(target)} alone: {meaning}"


def repeated_share(text: str) -> float:
    """Share of a text's pieces of twelve characters that it had before, to three decimals: 0 where nothing repeats."""
    pieces = [text[start : start + 12] for start in range(len(text) - 11)]
    return round(1 - len(set(pieces)) / len(pieces), 3) if pieces else 0.0


def labelled(what: str, tag: str, text: str) -> Iterator[str]:
    """A text behind what it is; further lines stand below its first."""
    label = f"{what:8}{f'[{tag}]' if tag else '':7}"
    for number, line in enumerate(text.splitlines() or [""]):
        yield f"{label if number == 0 else ' ' * len(label)} {line}".rstrip()


def named(tag: Language) -> str:
    """A language's English name and tag."""
    return f"{tag.english_name} ({tag})"
