"""What a pass over labelled text reads, and what is made of its totals."""

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from babelscope.artifacts import Observation, SiteRecord, hash_text
from babelscope.corpus import Corpus, TokenDocument, expected_tokens, shard_of, token_windows
from babelscope.errors import MeasurementError
from babelscope.files.state_folder import StateFolder, state_folder
from babelscope.languages import Language
from babelscope.models import Layout, origin_of, positions_note
from babelscope.recording.pass_settings import PassSettings
from babelscope.recording.tally import Tally
from babelscope.recording.walk import Progress

log = logging.getLogger(__name__)
EVERYTHING = ((0, 1), (0, 1))
"""The part and the turns of a pass that reads everything."""


@dataclass(frozen=True, eq=False)
class PassPlan:
    """A model, the text that it is to read, and how."""

    layout: Layout
    tokenizer: PreTrainedTokenizerBase
    corpus: Corpus
    settings: PassSettings
    details: Mapping[str, Any] = field(default_factory=dict)
    """Further parameters that decide the totals, as JSON."""

    @property
    def languages(self) -> tuple[Language, ...]:
        """Order of the language axes."""
        return tuple(self.corpus)

    def parameters(self) -> dict[str, Any]:
        """Every parameter of the pass as JSON."""
        values = {**asdict(self.settings), "part": list(self.settings.part)}
        turns = values.pop("turns")
        values |= {} if turns == (0, 1) else {"turns": list(turns)}
        sites = {at: list(layers) for at, layers in self.settings.sites.items()}
        return {**values, "sites": sites, **positions_note(self.layout.model), **self.details}

    def documents(self) -> Iterator[list[TokenDocument]]:
        """The documents of this pass's part of the text, one language after the other."""
        index, parts = self.settings.part
        shards = self.settings.shards or parts
        for window in token_windows(
            self.tokenizer,
            self.corpus,
            tokens_per_language=self.settings.tokens_per_language,
            max_length=self.settings.max_length,
            name=None,
        ):
            yield [document for document in window if shard_of(document.id, shards) % parts == index]

    def progress(self) -> Progress:
        """How much there is to read: tokens, about, where they are limited, else documents."""
        limit, parts = self.settings.tokens_per_language, self.settings.part[1] * self.settings.turns[1]
        if limit is not None:
            expected = expected_tokens(self.tokenizer, self.corpus, max_length=self.settings.max_length, most=limit)
            return Progress(self.languages, sum(expected.values()) // parts)
        return Progress(self.languages, sum(map(len, self.corpus.values())) // parts, "documents")

    def state(self, folder: str | Path | None) -> AbstractContextManager[StateFolder | None]:
        """The folder in which this pass is kept when it is interrupted; no other run may use it while it is open."""
        return nullcontext() if folder is None else state_folder(folder, self.fingerprint)

    @property
    def fingerprint(self) -> str:
        """Hash of everything that decides the pass."""
        origin = origin_of(self.layout.model, self.tokenizer)
        deciding = {
            **self.parameters(),
            **origin.hashes,
            "revision": origin.revision,
            "corpus": self.corpus.hash,
            "languages": list(self.languages),
        }
        return hash_text(json.dumps(deciding, sort_keys=True))

    def controls(self, tally: Tally) -> dict[str, int]:
        """Control tokens that are spelt in the text and stayed text, by language that has some."""
        counts = zip(self.languages, tally.controls.tolist(), strict=True)
        return {tag: count for tag, count in counts if count}

    def report_shortfall(self, tally: Tally) -> None:
        """Log languages with too little text, tokens past max_length, and control tokens that were read as text."""
        if controls := self.controls(tally):
            counts = ", ".join(f"{tag} {count}" for tag, count in controls.items())
            log.warning("control tokens spelt in the text stay text: %s; read chats as conversations", counts)
        limit = self.settings.tokens_per_language
        short = {
            tag: int(count)
            for tag, count in zip(self.languages, tally.tokens, strict=True)
            if limit is not None and (self.settings.part, self.settings.turns) == EVERYTHING and int(count) < limit
        }
        if short:
            log.warning("fewer than %s tokens: %s", limit, ", ".join(f"{tag} {count}" for tag, count in short.items()))
        cut = int(tally.truncated.sum())
        if cut:
            log.warning("%d tokens past max_length %d were left out", cut, self.settings.max_length)

    def observation(self, tally: Tally, records: dict[str, SiteRecord]) -> Observation:
        """The totals as an Observation; raises MeasurementError where no token was counted."""
        if not bool(tally.tokens.any()):
            raise MeasurementError(
                "no token was counted; expected text in this part; check the corpus and the part, or start fewer "
                "processes"
            )
        self.report_shortfall(tally)
        (i, n), (turn, turns), text = self.settings.part, self.settings.turns, self.corpus.facts()
        part = f"{self.corpus.hash}:{i}/{n}" + ("" if turns == 1 else f" batches {turn}/{turns}")
        return Observation(
            origin=origin_of(self.layout.model, self.tokenizer),
            languages=self.languages,
            records=records,
            token_counts=tally.tokens,
            shard_tokens=tally.shard_tokens,
            documents=tally.documents,
            truncated=tally.truncated,
            parts=(part,),
            settings={
                **self.parameters(),
                "corpus": text["name"],
                "corpus_hash": text["hash"],
                "text": text,
                "controls": self.controls(tally),
            },
        )
