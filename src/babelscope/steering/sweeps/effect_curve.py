"""Side effects at every strength: other languages, numbers, names and code, and prompts that are not steered."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from transformers import PreTrainedTokenizerBase

from babelscope.artifacts import Direction
from babelscope.corpus import Texts, as_corpus
from babelscope.languages import Language
from babelscope.models.plain import CausalModel
from babelscope.steering.sweeps.side_effects import LanguageEffect, Untouched, language_effects, untouched_prompts

COPIED_TEXT: Mapping[str, tuple[str, ...]] = {
    "en-x-numbers": (
        "12, 24, 36, 48, 60, 72, 84, 96, 108, 120",
        "1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024",
        "3 + 4 = 7; 5 + 8 = 13; 9 + 6 = 15; 20 + 22 = 42",
        "0.5, 0.25, 0.125, 0.0625, 0.03125",
        "1990, 1994, 1998, 2002, 2006, 2010, 2014, 2018",
        "10:00, 10:30, 11:00, 11:30, 12:00, 12:30, 13:00",
        "7 × 8 = 56; 6 × 9 = 54; 12 × 12 = 144; 15 × 4 = 60",
        "100 %, 90 %, 80 %, 70 %, 60 %, 50 %, 40 %, 30 %",
    ),
    "en-x-names": (
        "Anna Kowalska, Tom Becker, Maria Rossi, John Smith, Li Wei, Fatima Hassan",
        "Paris, London, Berlin, Madrid, Rome, Vienna, Prague, Warsaw, Helsinki",
        "Amazon, Nile, Danube, Rhine, Volga, Ganges, Mekong, Mississippi",
        "Dr. Elena Petrova, Prof. James Miller, Dr. Aiko Tanaka, Prof. Carlos Garcia",
        "Mercury, Venus, Earth, Mars, Jupiter, Saturn, Uranus, Neptune",
        "Bach, Mozart, Beethoven, Chopin, Verdi, Sibelius, Dvorak",
        "Peter and Susan, David and Laura, Michael and Julia, Robert and Emma",
        "Kilimanjaro, Everest, Fuji, Vesuvius, Olympus, Elbrus, Denali",
    ),
    "en-x-code": (
        "for i in range(10):\n    total += i\nprint(total)",
        "def add(a, b):\n    return a + b\n\nassert add(2, 3) == 5",
        "if (x > 0) {\n    return x;\n} else {\n    return -x;\n}",
        "SELECT name, age FROM users WHERE age > 30 ORDER BY name;",
        'import json\nwith open("data.json") as file:\n    rows = json.load(file)',
        "<ul>\n  <li>one</li>\n  <li>two</li>\n  <li>three</li>\n</ul>",
        "const names = users.map((user) => user.name).filter(Boolean);",
        "git add . && git commit -m 'fix' && git push origin main",
    ),
}
"""What a change of language should leave alone, under tags of their own; written for this library."""


class SideEffectPoint(NamedTuple):
    """What one direction does at one strength besides steering."""

    target: Language
    strength: float
    """In multiples of the direction."""
    effects: Mapping[Language, LanguageEffect]
    """By text: held-out text of each language, and the texts of COPIED_TEXT, with the direction left on."""
    untouched: Untouched
    """Prompts in rows that are not steered, beside steered ones."""

    def rows(self) -> list[dict[str, Any]]:
        """One mapping for each text: bits per byte off and on, the change with its interval over documents."""
        return [
            {
                "target": self.target,
                "strength": self.strength,
                "text": tag,
                "off": effect.off,
                "on": effect.on,
                "change": effect.change.estimate,
                "low": effect.change.low,
                "high": effect.change.high,
                "n": effect.change.n,
            }
            for tag, effect in self.effects.items()
        ]


def side_effect_curve(
    model: CausalModel,
    tokenizer: PreTrainedTokenizerBase,
    directions: Mapping[Language, Direction],
    strengths: Sequence[float],
    texts: Texts,
    *,
    max_tokens: int | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> list[SideEffectPoint]:
    """Loss on text with each direction left on at each strength, and whether unsteered prompts stay as they are.

    directions: by target, added at every token, at strength times their length; 0 is the model as it is, bit for bit.
    texts: held-out text of any languages; numbers, names and code (COPIED_TEXT) are read beside them.
    max_tokens: of each text at most.
    Raises what `language_effects` and `untouched_prompts` raise.
    """
    corpus = {tag: [document.text for document in documents] for tag, documents in as_corpus(texts).items()}
    read = {**corpus, **COPIED_TEXT}
    prompts = [line for lines in corpus.values() for line in lines[:1]]
    drawing = {"max_tokens": max_tokens, "resamples": resamples, "seed": seed}
    points = []
    for target, direction in directions.items():
        for strength in strengths:
            recipe = direction.recipe(strength, "raw")
            effects = language_effects(model, tokenizer, recipe, read, **drawing)
            untouched = untouched_prompts(model, tokenizer, recipe, prompts)
            points.append(SideEffectPoint(target, strength, effects, untouched))
    return points
