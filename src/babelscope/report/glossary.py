"""Words of the field, explained where they stand and once more at the end of the page."""

import re

from babelscope.report.markup import Markup, element, escape

WORDS = {
    "negative log-likelihood": "how surprised the model is by a text: minus the logarithm of the probability it gave "
    "it, in nats",
    "Jaccard index": "how alike two sets are: the size of what they share over the size of both together, 0 to 1",
    "bootstrap interval": "the range in which an estimate falls in 95 % of draws from the same text with replacement",
    "layer-matched": "random neurons, as many in each layer as the set has there",
    "contribution-matched": "random neurons of the same layers that write about as much into the residual stream",
    "residual stream": "the vector of each token that every layer reads from and adds to",
    "corrected p": "a p-value that allows for many tests at once: how often chance alone gives any as strong",
    "half-splits": "the text dealt into two halves at random, many times",
    "shards": "parts into which the documents are dealt, which are drawn as wholes",
    "lift": "how many times as many as chance gives",
    "perplexity": "how many equally likely tokens the model hesitates between, on average: e to the loss per token",
    "distinct 4-grams": "share of runs of four tokens that are there once; low where text repeats itself",
    "bits per byte": "loss per byte of text, which does not depend on the tokenizer",
    "Wilson interval": "a 95 % interval of a share that is right for few cases and near 0 and 100 %",
    "neuron arithmetic": "steering by raising the neurons of the target and lowering those of the prompt's language",
    "false discovery rate": "share of the selected that chance alone would have put there",
    "unembedding": "the last matrix, which turns the stream into scores of tokens",
}
"""What each word means, in one line."""
PLACES = re.compile(r"(<[^>]*>)")
NAME = re.compile(r"</?([a-zA-Z0-9]+)")
VOID = ("br", "hr", "img", "input", "meta")
CLOSED = ("svg", "a", "summary", "script", "style", "h3", "h4", "th", "article", "dt")
"""Elements in whose text no word is explained."""


def explained(body: Markup, used: set[str]) -> Markup:
    """The markup with the first place of each word linked to its meaning; adds the words that are there to `used`."""
    todo = dict(WORDS)
    parts: list[str] = []
    names: list[str] = []
    quiet_from: int | None = None
    for part in PLACES.split(body):
        found = NAME.match(part)
        if found is None:
            parts.append(part if quiet_from is not None else _linked(part, todo, used))
            continue
        parts.append(part)
        if part.startswith("</"):
            names.pop()
            quiet_from = None if quiet_from == len(names) else quiet_from
        elif found[1] not in VOID:
            if quiet_from is None and (found[1] in CLOSED or 'aria-hidden="true"' in part):
                quiet_from = len(names)
            names.append(found[1])
    return Markup("".join(parts))


def _linked(text: str, todo: dict[str, str], used: set[str]) -> str:
    for word in list(todo):
        place = re.search(rf"(?<![\w-]){re.escape(word)}(?![\w-])", text)
        if place is None:
            continue
        link = element("a", word, class_="term", href=f"#{_anchor(word)}", title=todo.pop(word))
        used.add(word)
        before, after = text[: place.start()], text[place.end() :]
        return _linked(before, todo, used) + link + _linked(after, todo, used)
    return text


def glossary(used: set[str]) -> Markup:
    """The words of the page with their meanings; nothing where there is none."""
    if not used:
        return Markup("")
    pairs = [
        escape(part)
        for word in sorted(used, key=str.lower)
        for part in (element("dt", word, id=_anchor(word)), element("dd", WORDS[word]))
    ]
    return element("section", element("h2", "Words"), element("dl", *pairs), id="words", class_="group")


def _anchor(word: str) -> str:
    return f"word-{word.lower().replace(' ', '-')}"
