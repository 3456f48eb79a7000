"""The one place where text becomes token ids: what begins a text exactly once, and typed control tokens stay text."""

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from tokenizers import Encoding
from transformers import PreTrainedTokenizerBase

from babelscope.corpus.plain_backend import plain_backend
from babelscope.errors import CorpusError, PrerequisiteError, refuse_one_text
from babelscope.upstream.tokenizers import fast_backend

log = logging.getLogger(__name__)


class EncodedText(NamedTuple):
    """One text as tokens, nothing added before or after it."""

    ids: tuple[int, ...]
    controls: tuple[str, ...]
    """Control tokens that are spelt in the text and stayed text, such as "<eos>"; empty for rendered text."""
    encoding: Encoding | None
    """With the place of each token in the text; None where the tokenizer is not one of the `tokenizers` library."""


class Surround(NamedTuple):
    """What a tokenizer itself puts around the ids of a text."""

    prefix: tuple[int, ...]
    """Before them: BOS for most models, `</s>` for XGLM, `[gMASK]<sop>` for GLM, nothing for Qwen."""
    suffix: tuple[int, ...]
    """After them: the end token of T5, [SEP] of BERT. This library never adds it."""


def surround_of(tokenizer: PreTrainedTokenizerBase) -> Surround:
    """What the tokenizer puts around a text, read from its ids of "a" with and without it.

    The names in its configuration do not say it: `bos_token_id` may be set and not used, and another token may begin.
    Raises CorpusError where the ids with special tokens do not hold those without.
    """
    for text in probes(tokenizer):
        plain, surrounded = (_ids(tokenizer, text, add_special_tokens=added) for added in (False, True))
        if not plain:
            continue
        for start in range(len(surrounded) - len(plain) + 1):
            if surrounded[start : start + len(plain)] == plain:
                return Surround(surrounded[:start], surrounded[start + len(plain) :])
        raise CorpusError(
            f"this tokenizer ({type(tokenizer).__name__}) reads {text!r} as {list(plain)}, and as {list(surrounded)} "
            "with its special tokens; expected the first ids within the second; check its post-processor"
        )
    return Surround((), ())


def probes(tokenizer: PreTrainedTokenizerBase) -> Iterator[str]:
    """Texts to ask a tokenizer: "a", and the entries of its vocabulary for one that drops unknown letters."""
    yield "a"
    control_ids = named_ids(tokenizer)
    yield from (entry for entry, index in tokenizer.get_vocab().items() if index not in control_ids)


def prefix_of(tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """Ids that begin a text; empty where the tokenizer puts none."""
    return surround_of(tokenizer).prefix


def row_start(tokenizer: PreTrainedTokenizerBase) -> int:
    """Tokens at the start of each row that no autoencoder is put in the place of, and that none is measured on.

    What the tokenizer begins a text with; where it puts nothing, as Qwen's, the text's first token. Attention gathers
    there, its activation may be many times as long as others', and autoencoders are not trained on it.
    """
    return max(1, len(prefix_of(tokenizer)))


def _ids(tokenizer: PreTrainedTokenizerBase, text: str, *, add_special_tokens: bool) -> tuple[int, ...]:
    return _encode(tokenizer, [text], split=False, add_special_tokens=add_special_tokens)[0].ids


def check_tokenizer(tokenizer: Any) -> None:
    """Raise PrerequisiteError where no tokenizer came, or its name."""
    if tokenizer is None or isinstance(tokenizer, str):
        raise PrerequisiteError(
            f"tokenizer {tokenizer!r} came; expected the tokenizer itself; open_model gives it beside the model"
        )


def pad_of(tokenizer: PreTrainedTokenizerBase) -> int:
    """Id that fills rows; 0 where the tokenizer names none: a filled place is never read."""
    check_tokenizer(tokenizer)
    return int(tokenizer.pad_token_id or 0)  # pyright: ignore[reportArgumentType]


def unknown_of(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """Id for characters that the vocabulary lacks; None where the tokenizer has none."""
    index = tokenizer.unk_token_id
    return None if index is None else int(index)  # pyright: ignore[reportArgumentType]


def special_ids(tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Ids of all control tokens: the named ones (BOS, EOS, pad, unknown, …), every added token marked special, and what
    the tokenizer puts around a text.

    `tokenizer.all_special_ids` has the named ones alone: <|im_start|> of a chat model may not be among them.
    """
    around = surround_of(tokenizer)
    return named_ids(tokenizer).union(around.prefix, around.suffix)


def named_ids(tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Ids that the tokenizer's own lists call special."""
    added = (index for index, token in tokenizer.added_tokens_decoder.items() if token.special)
    return frozenset({*tokenizer.all_special_ids, *added})


def encode_texts(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], *, rendered: bool = False
) -> list[EncodedText]:
    """Texts as ids, without anything that the tokenizer would add around them.

    A control token that is spelt in a text, such as "<eos>" on a page about HTML, is cut into ordinary tokens, and
    named in `controls`. With `rendered=True` the texts come from a chat template: control tokens in them are meant.
    Raises CorpusError for half a surrogate pair, and for a tokenizer that cannot read control tokens as text.
    """
    refuse_one_text(texts, "texts", CorpusError)
    for number, text in enumerate(texts):
        check_unicode(text, f"text {number}")
    if not texts:
        return []
    as_it_is = _encode(tokenizer, texts, split=False)
    if rendered:
        return as_it_is
    special = special_ids(tokenizer)
    places = [place for place, encoded_text in enumerate(as_it_is) if not special.isdisjoint(encoded_text.ids)]
    if places:
        for place, plain in zip(places, _encode_as_text(tokenizer, [texts[p] for p in places], special), strict=True):
            spelt = Counter(as_it_is[place].ids) - Counter(plain.ids)
            words = (tokenizer.convert_ids_to_tokens(index) for index in spelt.elements() if index in special)
            as_it_is[place] = plain._replace(controls=tuple(str(word) for word in words))
    return as_it_is


def check_unicode(text: str, where: str) -> None:
    """Raise CorpusError for half a surrogate pair, which no tokenizer or file can hold, and for what is no text."""
    if not isinstance(text, str):
        raise CorpusError(f"{where}: {type(text).__name__} came; expected a text; hand over words")
    try:
        text.encode()
    except UnicodeEncodeError as err:
        raise CorpusError(
            f"{where}: half a surrogate pair at character {err.start}; expected Unicode text; read the file as UTF-8, "
            "or drop the character"
        ) from err


def _encode(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], *, split: bool, add_special_tokens: bool = False
) -> list[EncodedText]:
    """Through the tokenizer itself; its own settings for padding, cutting and splitting stay out and as they were."""
    check_tokenizer(tokenizer)
    settings: Any = {
        "add_special_tokens": add_special_tokens,
        "padding": False,
        "truncation": False,
        "split_special_tokens": split,
    }
    # transformers sets this on the backend and leaves it there, for callers that use the backend directly.
    backend: Any = fast_backend(tokenizer)
    before = None if backend is None else backend.encode_special_tokens
    try:
        encoded: Any = tokenizer(list(texts), **settings)
    finally:
        if backend is not None:
            backend.encode_special_tokens = before
    encodings: Sequence[Encoding | None] = encoded.encodings or [None] * len(texts)
    return [
        EncodedText(tuple(row), (), encoding) for row, encoding in zip(encoded["input_ids"], encodings, strict=True)
    ]


def _encode_as_text(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], special: frozenset[int]
) -> list[EncodedText]:
    """Without control tokens: by splitting them, or where that is not enough by a tokenizer that does not know them.

    A Unigram or WordLevel model has the spelling of a control token as an entry of its own, which splitting gives back.
    """
    # An unknown character is the unknown token in any text; it is no sign that a control token was read.
    control = special - {unknown_of(tokenizer)}
    try:
        plain = _encode(tokenizer, texts, split=True)
    except (ValueError, TypeError, NotImplementedError):
        plain = None
    if plain is None or any(not control.isdisjoint(encoded.ids) for encoded in plain):
        backend = plain_backend(tokenizer, special)
        if backend is not None:
            rows = backend.encode_batch(list(texts), add_special_tokens=False)
            plain = [EncodedText(tuple(row.ids), (), row) for row in rows]
    if plain is None or any(not control.isdisjoint(encoded.ids) for encoded in plain):
        raise CorpusError(
            f"a control token is spelt in a text, and this tokenizer ({type(tokenizer).__name__}) cannot read it as "
            "text; expected a tokenizer of the `tokenizers` library; take the spelling out of the text, or declare "
            "the text as rendered by a chat template"
        )
    return plain


def tokenize_prompts(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], *, rendered: bool = False
) -> list[list[int]]:
    """Ids of each prompt with what begins a text (`prefix_of`) exactly once in front, and nothing after it.

    rendered: the texts were written by the model's chat template, which also decides what begins them: ids are the
    template's own, but the prefix twice in front is once. Otherwise control tokens in a text stay text, and a line in
    the log says how many there were.
    Raises CorpusError for half a surrogate pair, a prompt without a token, and a tokenizer that cannot read control
    tokens as text.
    """
    encoded = encode_texts(tokenizer, texts, rendered=rendered)
    controls = tuple(encoded_text.controls for encoded_text in encoded)
    if any(controls):
        say_prompt_controls(controls, tuple(text for text, spelt in zip(texts, controls, strict=True) if spelt))
    prefix = prefix_of(tokenizer)
    rows = [begin_text(prefix, encoded_text.ids, rendered=rendered) for encoded_text in encoded]
    for number, row in enumerate(rows):
        if not row:
            raise CorpusError(
                f"prompt {number} is empty, and the tokenizer puts nothing before a text; expected at least one token; "
                "write a prompt"
            )
    return rows


def tokenize_prompt(tokenizer: PreTrainedTokenizerBase, text: str, *, rendered: bool = False) -> list[int]:
    """Ids of one prompt; see `tokenize_prompts`."""
    return tokenize_prompts(tokenizer, [text], rendered=rendered)[0]


def begin_text(prefix: Sequence[int], ids: Sequence[int], *, rendered: bool = False) -> list[int]:
    """The prefix before the ids of a text; before those of a rendered one, no more than the template wrote."""
    if not rendered:
        return [*prefix, *ids]
    remaining, twice = list(ids), [*prefix, *prefix]
    while prefix and remaining[: len(twice)] == twice:
        remaining = remaining[len(prefix) :]
    return remaining


@lru_cache(maxsize=1)
def say_prompt_controls(controls: tuple[tuple[str, ...], ...], texts: tuple[str, ...]) -> None:
    """As `say_controls`; not again for the prompts of the call before, which are answered without and with steering.

    texts: those in which some are spelt.
    """
    say_controls(controls, "prompts")


def say_controls(controls: Sequence[Sequence[str]], name: str) -> None:
    """One line in the log where control tokens are spelt in texts.

    controls: of each text. name: what the texts are, such as "prompts" or "fi".
    """
    spelt = Counter(word for words in controls for word in words)
    if spelt:
        counts = ", ".join(f"{word} {count}" for word, count in spelt.most_common(5))
        log.warning(
            "%s: %d control tokens are spelt in %d of %d texts and stay text (%s); declare text that a chat template "
            "rendered",
            name,
            sum(spelt.values()),
            sum(1 for words in controls if words),
            len(controls),
            counts,
        )
