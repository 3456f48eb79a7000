"""The running text of an answer, without what is the same in every language: code, addresses, numbers, names."""

import re
from typing import NamedTuple
from unicodedata import category

import regex

from babelscope.evaluation.known_scripts import letter_weight
from babelscope.languages.scripts import COMMON, script_of_character, scripts_of_character

FENCE = re.compile(r"```.*?(?:```|\Z)|~~~.*?(?:~~~|\Z)|`[^`\n]*`", re.DOTALL)
ADDRESS = re.compile(r"(?:https?://|www\.)[^\s。、，）)】」]+|[\w.+-]+@[\w-]+\.[\w.-]+|<[A-Za-z/!][^<>\n]*>", re.ASCII)
COMMAND = re.compile(
    r"(?<![\w-])(?:sudo )?(?:pip3?|npm|yarn|apt|apt-get|brew|conda|cargo|docker|git) "
    r"(?:install|uninstall|add|run|build|clone|commit|push|pull|checkout|init|update|upgrade|remove|status|list)"
    r"(?![\w-])(?: -{1,2}[\w=-]+)*(?: [\w./=@:~<>\[\]-]+)?",
    re.ASCII,
)
"""A command line without backticks, as far as its first argument: no sentence begins so in any language."""
WORD = regex.compile(r"[\p{L}\p{M}\u200c\u200d]+(?:['’·][\p{L}\p{M}]+)*")
SENTENCE_END = '.!?:;…。！？：؟।"“”„»«(*#\n'
MARKS = {"\n", "\r", "\t", "\u200b", "\u200c", "\u200d", "\u200e", "\u200f", "\ufeff", "\u00ad"}
OPERATORS, BRACKETS = frozenset("=<>≤≥≠≈≡+−±×÷*^|_∈∉→⇒∞∑∏∫√∂°²³′"), frozenset("()[]{}-/%")
"""Signs of formulas; those of the second set stand in prose too, so that they count where no space parts them."""
FUNCTIONS = frozenset("sin cos tan tg cot ctg sec exp log ln lg lim max min arcsin arccos arctan".split())  # noqa: SIM905
ALPHABETS = frozenset({"Latn", "Grek", "Cyrl", "Armn", "Geor", "Hebr", "Arab"})
"""Scripts of which one letter may be the sign of a quantity; a kana, a Han character or a syllable is a word."""
LONGEST_SIGN = 2
"""Letters of a unit or a product (`km`, `mc`) in another script than the text's, beside an operator or a digit."""
REPEATED = re.compile(r"(.{1,40}?)\1{2,}", re.DOTALL)
LOOK_ALIKE = ("aceijopsxyABCEHIJKMOPSTXY", "асеіјорѕхуАВСЕНІЈКМОРЅТХУ")
"""Latin and Cyrillic letters of one shape, which keyboards and scanners put for each other (`снiг` with a Latin i)."""
TO_LATIN, TO_CYRILLIC_SHAPES = str.maketrans(*reversed(LOOK_ALIKE)), str.maketrans(*LOOK_ALIKE)
LONGEST_NAME = 3
"""Words of a name in Latin letters inside text of another script, at most."""


class Word(NamedTuple):
    """A run of letters of one script."""

    text: str
    script: str
    weight: float
    """Letters, each counted as so many Latin ones."""
    name: bool
    """Whether it looks like a name: a capital in mid-sentence, or nothing but capitals."""
    start: int
    """Where it begins in the text."""


def plain_prose(text: str) -> str:
    """The text with code, addresses and tags blanked; its length is unchanged, so that places stay what they were."""
    for pattern in (FENCE, ADDRESS, COMMAND):
        text = pattern.sub(lambda match: re.sub(r"[^\n]", " ", match.group()), text)
    return text


def visible(text: str) -> bool:
    """Whether anything of a text is seen: more than white space, and signs such as U+200B, U+2060 and U+FEFF."""
    return any(not character.isspace() and category(character) != "Cf" for character in text)


def damaged_share(text: str) -> float:
    """Share of characters other than spaces that no text has: U+FFFD, controls, private and unassigned ones.

    Up to three U+FFFD at the very end are left out: there an answer was cut inside a character.
    """
    body = re.sub("�{1,3}$", "", text.strip())
    signs = [c for c in body if not c.isspace()]
    bad = sum(c == "\ufffd" or (category(c) in ("Cc", "Cn", "Co", "Cs") and c not in MARKS) for c in signs)
    return bad / len(signs) if signs else 0.0


def without_repeats(text: str) -> str:
    """The text with what is repeated three times or more, unbroken, written once."""
    return REPEATED.sub(r"\1", " ".join(text.split()) + " ")


def words_of(text: str) -> list[Word]:
    """The words in order, cut where the script changes; letters that many scripts share go with their neighbours.

    What is written alike in formulas of every language is no word (`signs_of`).
    """
    words = [
        _word(text, match.start() + start, piece, script)
        for match in WORD.finditer(text)
        for start, piece, script in _pieces(_of_one_script(match.group()))
    ]
    signs = signs_of(words, text)
    return [word for place, word in enumerate(words) if place not in signs]


def signs_of(words: list[Word], text: str) -> set[int]:
    """Places of what is a sign and no word.

    Those are single letters beside an operator or a digit, or in another script than most of the text (`der Winkel α`);
    units and products in another script, beside such a sign; and `sin`, `log` and their like, there or before a letter.
    """
    weights: dict[str, float] = {}
    for word in [word for word in words if len(word.text) > 1 or word.script not in ALPHABETS] or words:
        weights[word.script] = weights.get(word.script, 0.0) + word.weight
    most = max(weights, key=weights.__getitem__, default=COMMON)
    signs = {place for place, word in enumerate(words) if _is_sign(word, most, text)}
    letters = {place for place in signs if len(words[place].text) == 1}
    before_letter = {place - 1 for place in letters if place and words[place - 1].text in FUNCTIONS}
    return signs | before_letter


def _is_sign(word: Word, most: str, text: str) -> bool:
    """Whether one word is a sign by itself; most: the script of most of the text."""
    foreign, length = word.script != most, len(word.text)
    if word.script not in ALPHABETS or not (length == 1 or length <= LONGEST_SIGN * foreign or word.text in FUNCTIONS):
        return False
    return (foreign and length == 1) or _beside_operator(word, text, digits_apart=foreign or length > 1)


def _beside_operator(word: Word, text: str, *, digits_apart: bool) -> bool:
    """Whether a word touches a digit or a bracket, or an operator (or a digit) stands beside it, spaces aside."""
    end = word.start + len(word.text)
    touching = text[max(0, word.start - 1) : word.start] + text[end : end + 1]
    across_spaces = text[max(0, word.start - 3) : word.start].rstrip(" ")[-1:] + text[end : end + 3].lstrip(" ")[:1]
    return any(sign.isdigit() or sign in BRACKETS for sign in touching) or any(
        sign in OPERATORS or (digits_apart and sign.isdigit()) for sign in across_spaces
    )


def _of_one_script(run: str) -> str:
    """A run of letters with its look-alikes of the other script put right, where that leaves one script."""
    latin, cyrillic = run.translate(TO_LATIN), run.translate(TO_CYRILLIC_SHAPES)
    scripts = {script_of_character(character) for character in run}
    if not scripts >= {"Latn", "Cyrl"}:
        return run
    candidates = (
        text for text in (cyrillic, latin) if len({"Latn", "Cyrl"} & set(map(script_of_character, text))) == 1
    )
    return next(candidates, run)


def _pieces(run: str) -> list[tuple[int, str, str]]:
    """A run of letters, cut at changes of script; kana and Han stay apart."""
    cuts: list[tuple[int, str]] = []
    for place, character in enumerate(run):
        script = script_of_character(character)
        if script == COMMON or category(character)[0] != "L":
            near = scripts_of_character(character)
            script = cuts[-1][1] if cuts else next(iter(sorted(near)), COMMON)
        if not cuts or cuts[-1][1] != script:
            cuts.append((place, script))
    ends = [place for place, _ in cuts[1:]] + [len(run)]
    return [(place, run[place:end], script) for (place, script), end in zip(cuts, ends, strict=True)]


def _word(text: str, start: int, piece: str, script: str) -> Word:
    weight = sum(letter_weight(c) for c in piece if category(c)[0] == "L")
    before = text[:start].rstrip(" \t")[-1:]
    # `(CEFIC)` and `NATO:` are names wherever they stand, unless all is in capitals.
    acronym = len(piece) > 1 and piece.isupper() and not text.isupper()
    name = acronym or (piece[0].isupper() and bool(before) and before not in SENTENCE_END)
    return Word(piece, script, weight, name, start)


def foreign_names(words: list[Word]) -> set[int]:
    """Places of words that may be names in Latin letters inside another script: at most three words with capitals."""
    names: set[int] = set()
    place = 0
    while place < len(words):
        end = place
        while end < len(words) and words[end].script == "Latn":
            end += 1
        run = words[place:end]
        if 0 < len(run) <= LONGEST_NAME and all(w.text != w.text.lower() for w in run):
            names.update(range(place, end))
        place = max(end, place + 1)
    return names
