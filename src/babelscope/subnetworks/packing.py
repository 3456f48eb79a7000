"""Training text as rows of one length: the rows of any step are a pure function of its number.

Documents are laid end to end without pads, and do not see each other. Where a family takes its positions from the
attention mask (ALONE), a row holds one piece, padded; pads are never in the loss.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch.nn.functional import pad
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedTokenizerBase

from babelscope.axes import Bool, Int64, Tensor
from babelscope.corpus import Document, Texts, TokenDocument, as_corpus, prefix_of, say_cut, tokenize_documents
from babelscope.errors import CorpusError
from babelscope.languages import Language
from babelscope.models.module_map import ModuleMap

log = logging.getLogger(__name__)
ALONE = frozenset({"bloom", "opt"})
"""Model types that cannot be told by `position_ids` where a document starts."""
WHOLE = 10**9
"""Longer than any document: pieces are cut here, not by the tokenizer."""


class Rows(NamedTuple):
    """Rows for one forward pass."""

    input_ids: Int64[Tensor, "row token"]
    position_ids: Int64[Tensor, "row token"]
    """Place of each token in its own piece: 0 starts a new one, which does not see what stands before it."""
    scored: Bool[Tensor, "row token"]
    """True where the token is predicted in the loss: no special token, no first token of a piece, no pad."""
    real: Bool[Tensor, "row token"]
    """False at pads."""


@dataclass(frozen=True, eq=False)
class PackedText:
    """One language's documents as pieces of at most `length` tokens, in a new order in every epoch."""

    language: Language
    pieces: tuple[Int64[Tensor, " _"], ...]
    scored: tuple[Bool[Tensor, " _"], ...]
    length: int
    seed: int
    alone: bool
    """One piece a row, padded."""

    @classmethod
    def of(
        cls,
        tokenizer: PreTrainedTokenizerBase,
        language: Language,
        documents: Sequence[Document],
        *,
        length: int,
        seed: int = 0,
        alone: bool = False,
    ) -> "PackedText":
        """Cut documents into pieces, each after what begins a text (`prefix_of`).

        A conversation is one piece and has a row to itself: cut in two, an answer would be trained without what was
        asked. What of it is past `length` is left out, and said. Its loss is taken on the words that count and on the
        token that ends each answer.
        Raises CorpusError where a row has no room behind the prefix, where the text does not fill one row, and where no
        word that counts is within `length`.
        """
        prefix, pieces, scored = prefix_of(tokenizer), [], []
        room = length - len(prefix)
        if room < 1:
            raise CorpusError(
                f"length {length} came, and the tokenizer begins a text with {len(prefix)} tokens; expected room "
                "for one more; raise max_length"
            )
        tokenized = tokenize_documents(tokenizer, documents, 0, max_length=WHOLE)
        talks = [cut_conversation(document, length) for document in tokenized if document.taught is not None]
        if talks:
            say_cut(talks, str(language), length)
            alone = True
            for talk in talks:
                marks = torch.tensor([False, *(talk.taught or ())[1:]])
                if bool(marks.any()):
                    pieces.append(torch.tensor(talk.tokens))
                    scored.append(marks)
            if len(pieces) < len(talks):
                log.warning(
                    "%s: %d of %d conversations have no word that counts within %d tokens and are left out; raise "
                    "max_length to keep them",
                    language,
                    len(talks) - len(pieces),
                    len(talks),
                    length,
                )
            if not pieces:
                raise CorpusError(
                    f"language {language!r}: no conversation has a word that counts within {length} tokens; expected "
                    "an answer in some; raise max_length"
                )
        for document in tokenized:
            if document.taught is not None:
                continue
            body, is_scored = document.tokens[len(prefix) :], document.counted[len(prefix) :]
            for cut in range(0, len(body), room):
                piece = [*prefix, *body[cut : cut + room]]
                marks = [False for _ in prefix] + list(is_scored[cut : cut + room])
                if len(piece) > 1:
                    pieces.append(torch.tensor(piece))
                    scored.append(torch.tensor([False, *marks[1:]]))
        total = sum(len(piece) for piece in pieces)
        if total < length and not (alone and pieces):
            raise CorpusError(
                f"language {language!r}: {total} tokens of training text; expected at least one row of {length}; "
                "add text or lower max_length"
            )
        return cls(language, tuple(pieces), tuple(scored), length, seed, alone)

    @property
    def tokens(self) -> int:
        """Tokens of the text, those that begin each piece included."""
        return sum(len(piece) for piece in self.pieces)

    @property
    def longest(self) -> int:
        """Positions that its rows need: packed pieces begin at 0 each, and a piece alone is padded to `length`."""
        return self.length if self.alone else max(map(len, self.pieces))

    @property
    def rows_per_epoch(self) -> int:
        """Rows of one epoch; a packed row that would not be full is dropped, other tokens in every epoch."""
        return len(self.pieces) if self.alone else self.tokens // self.length

    def epoch(self, number: int) -> Rows:
        """All rows of an epoch, their pieces in a random order."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + number)
        order = torch.randperm(len(self.pieces), generator=generator).tolist()
        return self._padded(order) if self.alone else self._packed(order)

    def _padded(self, order: list[int]) -> Rows:
        pieces = pad_sequence([self.pieces[i] for i in order], batch_first=True)
        scored = pad_sequence([self.scored[i] for i in order], batch_first=True)
        real = pad_sequence([torch.ones_like(self.scored[i]) for i in order], batch_first=True)
        wide = (0, self.length - pieces.shape[1])
        pieces, scored, real = (pad(part, wide) for part in (pieces, scored, real))
        return Rows(pieces, torch.arange(self.length).expand_as(pieces), scored, real)

    def _packed(self, order: list[int]) -> Rows:
        """Pieces laid end to end, cut where a row is full."""
        ids = torch.cat([self.pieces[i] for i in order])
        scored = torch.cat([self.scored[i] for i in order])
        positions = torch.cat([torch.arange(len(self.pieces[i])) for i in order])
        shape = (self.rows_per_epoch, self.length)
        end = shape[0] * shape[1]
        ids, scored, positions = (flat[:end].view(shape).clone() for flat in (ids, scored, positions))
        starts = positions[:, :1].clone()
        running = torch.arange(self.length)[None]
        # A piece cut by the end of a row goes on in the next one from position 0, with nothing before it.
        first_piece = (positions == running + starts) & (starts > 0)
        first_piece = first_piece.cummin(dim=1).values
        positions = torch.where(first_piece, running, positions)
        scored[:, 0] = False
        return Rows(ids, positions, scored, torch.ones_like(scored))


def cut_conversation(document: TokenDocument, length: int) -> TokenDocument:
    """The first `length` tokens, the others counted in `truncated`."""
    return replace(
        document,
        tokens=document.tokens[:length],
        counted=document.counted[:length],
        taught=None if document.taught is None else document.taught[:length],
        truncated=max(0, len(document.tokens) - length),
    )


class Mixture:
    """Rows of the target language, with a share of replay rows from others, by number."""

    def __init__(self, target: PackedText, replay: Sequence[PackedText], share: float) -> None:
        if not 0 <= share < 1 or (share > 0) != bool(replay):
            raise CorpusError(
                f"replay share {share} came with text of {len(replay)} languages; expected a share from 0 to below 1, "
                "and text where it is above 0; give both or neither"
            )
        self.target, self.replay, self.share = target, tuple(replay), share
        self._held: dict[int, tuple[int, Rows]] = {}

    def check(self, layout: ModuleMap) -> None:
        """Raise PrerequisiteError for tokens that the model has no row for, and for rows past its positions."""
        for text in (self.target, *self.replay):
            last = max(int(piece.max()) for piece in text.pieces)
            layout.check_tokens(torch.full((1, text.longest), last))

    def row(self, number: int) -> tuple[Language, Rows]:
        """Language and row of the number-th row since the start of training."""
        before, after = int(number * self.share), int((number + 1) * self.share)
        if after > before:
            source = 1 + before % len(self.replay)
            place = before // len(self.replay)
        else:
            source, place = 0, number - before
        text = self.target if source == 0 else self.replay[source - 1]
        epoch, index = divmod(place, text.rows_per_epoch)
        if self._held.get(source, (-1, None))[0] != epoch:
            self._held[source] = (epoch, text.epoch(epoch))
        rows = self._held[source][1]
        return text.language, Rows(*(part[index : index + 1] for part in rows))

    def rows(self, start: int, count: int) -> Rows:
        """Consecutive rows."""
        parts_of_rows = [self.row(start + i)[1] for i in range(count)]
        return Rows(*(torch.cat(parts) for parts in zip(*parts_of_rows, strict=True)))

    def languages(self, start: int, count: int) -> tuple[Language, ...]:
        """Of the same rows."""
        return tuple(self.row(start + i)[0] for i in range(count))


def mix_texts(
    tokenizer: PreTrainedTokenizerBase,
    language: Language,
    documents: Sequence[str | Document],
    replay: Texts | None,
    *,
    share: float,
    length: int,
    seed: int,
    model_type: str = "",
) -> Mixture:
    """Pack the target's text and that of the replay languages.

    model_type: of the model's settings; for some (`ALONE`) each document has rows of its own.
    """
    alone = model_type in ALONE

    def packed() -> Iterator[PackedText]:
        for tag, texts in as_corpus({language: documents}).items():
            yield PackedText.of(tokenizer, tag, texts, length=length, seed=seed, alone=alone)
        for place, (tag, texts) in enumerate((as_corpus(replay) if replay else {}).items()):
            yield PackedText.of(tokenizer, tag, texts, length=length, seed=seed + 7919 * (place + 1), alone=alone)

    target, *replay_texts = packed()
    return Mixture(target, replay_texts, share)
