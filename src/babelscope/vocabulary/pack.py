"""Another vocabulary for a model: a tokenizer, and where each of its entries takes its row from."""

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from babelscope.artifacts import Origin
from babelscope.artifacts.hub import HubArtifact
from babelscope.artifacts.shown import shown_by
from babelscope.artifacts.storage import open_folder, origin_config, save_folder, write_card
from babelscope.axes import Float32, Int64, Tensor
from babelscope.errors import ArtifactError
from babelscope.languages import Language
from babelscope.models import check_made_for
from babelscope.models.origin import hash_tokenizer, tokenizer_state
from babelscope.models.plain import CausalModel
from babelscope.vocabulary.merge_lists import backend_of
from babelscope.vocabulary.token_tables import (
    check_none_applied,
    exchange_tables,
    restore_tables,
    rows_now,
    token_tables,
)
from babelscope.vocabulary.tokenizer_form import FILE_NAME, TokenizerForm

NOUN = "VocabularyPack"
FILE = "tokenizer/"
"""Begins the names of the tensors that hold the bytes of the tokenizer's files."""


@dataclass(frozen=True, eq=False)
class VocabularyPack(HubArtifact):
    """A vocabulary that was made from a model's own: trimmed, extended or replaced.

    While it is applied, entry i of `tokenizer` has row `source[i]` of the model's own tables, bit for bit; where that
    is −1, the next of the new rows. Only the tables of embeddings and head change, and the ids that the model's
    settings name: the body stays as it is, and what was made for it (neurons, directions, deltas) stays of use.
    """

    __repr__ = shown_by("origin.model", "operation", "languages", "base_rows", "source")

    origin: Origin
    """The model and the tokenizer that it was made from."""
    languages: tuple[Language, ...]
    """Of the text that it was made with."""
    operation: str
    """What was done: "trim", "extend" or "replace"."""
    tokenizer: PreTrainedTokenizerBase
    base_rows: int
    """Rows of the model's own tables."""
    source: Int64[Tensor, " entry"]
    rows: Float32[Tensor, "new hidden"]
    """New rows of the embeddings, of the head too where it is tied to them."""
    head_rows: Float32[Tensor, "new hidden"] | None = None
    """New rows of an untied head."""
    head_bias: Float32[Tensor, " new"] | None = None
    """New elements of the head's bias, where it has one."""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    """How it was made, and figures of it; never text."""

    def __post_init__(self) -> None:
        source, new = self.source, int((self.source < 0).sum())
        if source.dtype != torch.int64 or source.ndim != 1 or not len(source):
            raise ArtifactError(f"sources {source.dtype} {list(source.shape)} came; expected one int64 per entry")
        if int(source.min()) < -1 or int(source.max()) >= self.base_rows:
            raise ArtifactError(f"a source is out of range; expected −1 for a new row, or 0–{self.base_rows - 1}")
        copied = source[source >= 0]
        if len(copied.unique()) < len(copied):
            raise ArtifactError("a row is the source of two entries; expected one at most; the pack is damaged")
        for name, rows in {"rows": self.rows, "head rows": self.head_rows, "head bias": self.head_bias}.items():
            if rows is None:
                continue
            if rows.dtype != torch.float32 or len(rows) != new or not bool(torch.isfinite(rows).all()):
                raise ArtifactError(
                    f"{name} are {rows.dtype} {list(rows.shape)}; expected finite float32, one each for {new} entries"
                )
        most = max(backend_of(self.tokenizer).get_vocab(with_added_tokens=True).values())
        if most >= len(source):
            raise ArtifactError(f"the tokenizer has id {most} and there are {len(source)} rows; the pack is damaged")

    @property
    def n_new(self) -> int:
        """Entries whose rows are new."""
        return len(self.rows)

    @property
    def title(self) -> str:
        """For messages."""
        return f"vocabulary of {' + '.join(self.languages)}"

    @cached_property
    def tokenizer_hash(self) -> str:
        """Hash of its tokenizer."""
        return hash_tokenizer(tokenizer_state(self.tokenizer))

    @cached_property
    def digest(self) -> str:
        """blake2b of the vocabulary and its rows; packs of equal digest make the same model."""
        digest = hashlib.blake2b(f"{self.origin.model_hash} {self.tokenizer_hash}".encode(), digest_size=8)
        for tensor in (self.source, self.rows, self.head_rows, self.head_bias):
            if tensor is not None:
                digest.update(tensor.contiguous().numpy().data)
        return digest.hexdigest()

    def moved(self, ids: Int64[Tensor, "..."]) -> Int64[Tensor, "..."]:
        """New ids of entries by their earlier ones; −1 for those that are there no more."""
        places = torch.full((self.base_rows,), -1)
        copied = self.source >= 0
        places[self.source[copied]] = copied.nonzero()[:, 0]
        return places[ids]

    def check(self, model: CausalModel) -> None:
        """Raise ArtifactError unless it was made from this model, and PrerequisiteError for tables of another kind."""
        check_made_for(self.origin, model, None, self.title)
        tables = token_tables(model)
        model_facts = (tables.rows, tables.embedding.weight.shape[1], tables.tied, tables.bias is not None)
        pack_facts = (self.base_rows, self.rows.shape[1], self.head_rows is None, self.head_bias is not None)
        if model_facts != pack_facts:
            names = ("rows", "width", "tied head", "bias of the head")
            differences = [
                f"{name} {pack_fact} against {model_fact}"
                for name, pack_fact, model_fact in zip(names, pack_facts, model_facts, strict=True)
                if pack_fact != model_fact
            ]
            raise ArtifactError(
                f"{self.title}: made for other tables ({', '.join(differences)}); open the model it was made with"
            )

    def apply(self, model: CausalModel) -> None:
        """Give the model this vocabulary in place; read text with `tokenizer` then. All or nothing.

        Raises ArtifactError if it is for another model, or the model holds another vocabulary or a change of its
        embeddings; PrerequisiteError for tables that are quantised, wrapped or offloaded; MeasurementError where a new
        row leaves the range of the model's dtype.
        """
        check_none_applied(model, self.title)
        self.check(model)
        exchange_tables(
            model,
            digest=self.digest,
            title=self.title,
            source=self.source,
            rows=self.rows,
            head_rows=self.head_rows,
            head_bias=self.head_bias,
            mark={"before": self.origin.tokenizer_hash, "after": self.tokenizer_hash},
        )

    def revert(self, model: CausalModel) -> None:
        """Give the model its own vocabulary back, bit for bit; raises ArtifactError if it does not hold this one.

        What was trained into the pack's rows meanwhile is lost, but for what `with_rows_of` took before.
        """
        restore_tables(model, self.digest, self.title)

    def with_rows_of(self, model: CausalModel) -> "VocabularyPack":
        """The pack with its new rows as the model, to which it is applied, has them now: after they were trained.

        Raises ArtifactError if it is not applied, MeasurementError where rows of the model's own entries were changed.
        """
        live_rows = rows_now(model, self.digest, self.title, self.source)
        names = ["rows", *(["head_rows"] if self.head_rows is not None else [])]
        names += ["head_bias"] if self.head_bias is not None else []
        return replace(self, **dict(zip(names, live_rows, strict=True)))

    @contextmanager
    def applied(self, model: CausalModel) -> Iterator[None]:
        """While open the model has this vocabulary."""
        self.apply(model)
        try:
            yield
        finally:
            self.revert(model)

    def save(self, path: str | Path) -> Path:
        """Write the folder atomically, with the bytes of the tokenizer's files; raises ArtifactError if it is taken."""
        files = TokenizerForm.of(self.tokenizer).files
        config = {
            "origin": origin_config(self.origin),
            "languages": list(self.languages),
            "operation": self.operation,
            "base_rows": self.base_rows,
            "files": sorted(files),
            "tokenizer_hash": self.tokenizer_hash,
            "parameters": dict(self.parameters),
        }
        tensors = {"source": self.source, "rows": self.rows}
        optional = {"head_rows": self.head_rows, "head_bias": self.head_bias}
        tensors |= {name: rows for name, rows in optional.items() if rows is not None}
        tensors |= {f"{FILE}{name}": _as_tensor(content) for name, content in files.items()}
        return save_folder(path, NOUN, config, tensors, write_card(NOUN, config, list(self._card())))

    def _card(self) -> Iterator[str]:
        yield f"{len(self.source)} entries, {self.n_new} of them new, for a model of {self.base_rows} rows."
        yield "Load with `babelscope.VocabularyPack.load(path)`; `with pack.applied(model):` the model has this "
        yield "vocabulary, and `pack.tokenizer` reads its text."

    @classmethod
    def load(cls, path: str | Path, *, verify: bool = True) -> "VocabularyPack":
        """Read a folder; raises ArtifactError for anything damaged or of another kind.

        verify: compare the tensors' bytes with their hash; False saves reading a huge file once more, and is logged.
        """
        with open_folder(path, NOUN, verify=verify) as saved:
            names = saved.texts("files")
            odd = [name for name in names if not FILE_NAME.fullmatch(name)]
            if odd:
                raise saved.fault(f"file {odd[0]!r} is none of a tokenizer")
            files = {name: saved.tensor(f"{FILE}{name}", torch.uint8, None).numpy().tobytes() for name in names}
            rows = saved.tensor("rows", torch.float32, None, None)
            pack = cls(
                origin=saved.origin(),
                languages=saved.languages(),
                operation=saved.text("operation"),
                tokenizer=TokenizerForm(files).open(str(path)),
                base_rows=saved.whole("base_rows", 1),
                source=saved.tensor("source", torch.int64, None),
                rows=rows,
                head_rows=saved.tensor("head_rows", torch.float32, *rows.shape) if saved.has("head_rows") else None,
                head_bias=saved.tensor("head_bias", torch.float32, len(rows)) if saved.has("head_bias") else None,
                parameters=saved.table("parameters"),
            )
            if pack.tokenizer_hash != saved.text("tokenizer_hash"):
                raise saved.fault(f"its tokenizer has the hash {pack.tokenizer_hash}, and not the one that was saved")
            return pack


def _as_tensor(content: bytes) -> Tensor:
    return torch.frombuffer(bytearray(content), dtype=torch.uint8) if content else torch.zeros(0, dtype=torch.uint8)
