"""A fast tokenizer as the files it is saved in: read for surgery, changed as JSON, and opened again."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from tokenizers import Tokenizer
from tokenizers.pre_tokenizers import ByteLevel
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from babelscope.corpus import Corpus, EncodedText, encode_texts
from babelscope.corpus.encoding import named_ids
from babelscope.errors import ArtifactError, PrerequisiteError, first_line
from babelscope.files.foreign_writers import scratch_folder
from babelscope.files.writing import write_bytes
from babelscope.models.checkpoints import NO_OWN_CODE
from babelscope.models.origin import hash_tokenizer, tokenizer_state
from babelscope.vocabulary.merge_lists import Pair, backend_of, is_byte_level, pairs_of

STATE, SETTINGS = "tokenizer.json", "tokenizer_config.json"
FILE_NAME = re.compile(r"(additional_chat_templates/)?\w[\w-]*\.(json|jinja)")
"""Names of files that a tokenizer may be saved in."""
PART = 500
"""Documents that are encoded at a time."""
FALLBACK = [f"<0x{value:02X}>" for value in range(256)]
"""Entries for the bytes of characters that the vocabulary lacks, as SentencePiece names them."""
FALLBACK_SET = frozenset(FALLBACK)


@dataclass(frozen=True, eq=False)
class TokenizerForm:
    """The files of a fast tokenizer, of BPE or Unigram."""

    files: Mapping[str, bytes]
    """By name, as `save_pretrained` writes them."""

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase) -> "TokenizerForm":
        """The form of an opened tokenizer.

        Raises PrerequisiteError for a slow tokenizer, for one that is neither BPE nor Unigram, and for a vocabulary
        that lacks some of the bytes that it is built on.
        """
        backend = backend_of(tokenizer)
        with scratch_folder() as folder:
            tokenizer.save_pretrained(folder)
            found = [path for path in folder.rglob("*") if path.is_file()]
            files = {str(path.relative_to(folder)): path.read_bytes() for path in found}
        odd = [name for name in files if not FILE_NAME.fullmatch(name)]
        if odd or STATE not in files:
            raise PrerequisiteError(
                f"{type(tokenizer).__name__} is saved in {', '.join(sorted(files))}; expected {STATE} and settings "
                "beside it; convert it to a fast tokenizer"
            )
        # The files leave out what a call sets, padding and truncation; all else is the tokenizer as it is now.
        state = {**json.loads(backend.to_str()), "padding": None, "truncation": None}
        form = cls({**files, STATE: _packed(state)})
        form.check()
        return form

    @cached_property
    def state(self) -> dict[str, Any]:
        """What tokenizer.json holds."""
        return json.loads(self.files[STATE])

    @property
    def model(self) -> dict[str, Any]:
        """The part that cuts words: its kind, entries and merges."""
        return self.state["model"]

    @cached_property
    def byte_level(self) -> bool:
        """Whether entries are written in the signs of bytes, as GPT-2's are."""
        return is_byte_level(self.state)

    @property
    def byte_fallback(self) -> bool:
        """Whether a character that the vocabulary lacks is written as its bytes."""
        return bool(self.model.get("byte_fallback"))

    @cached_property
    def ids(self) -> dict[str, int]:
        """The id of every entry, added tokens among them."""
        entries = self.model["vocab"]
        ids = dict(entries) if isinstance(entries, dict) else {entry: i for i, (entry, _) in enumerate(entries)}
        return ids | {token["content"]: token["id"] for token in self.state["added_tokens"]}

    @cached_property
    def entries(self) -> dict[int, str]:
        """Entries by id."""
        return {index: entry for entry, index in self.ids.items()}

    @cached_property
    def merges(self) -> list[Pair]:
        """The merges of BPE in their order; none for Unigram."""
        return pairs_of(self.model.get("merges") or [])

    def check(self) -> None:
        """Raise PrerequisiteError for a kind of tokenizer that surgery does not know."""
        kind, marks = self.model["type"], [self.model.get(key) for key in WORD_MARKS]
        if kind not in ("BPE", "Unigram") or any(marks):
            what = f"{kind} with word marks {marks}" if any(marks) else str(kind)
            raise PrerequisiteError(
                f"a tokenizer of the kind {what} came; expected BPE (byte-level or SentencePiece-style) or Unigram, "
                "whose entries can be cut and added; choose another model"
            )
        lacking = [entry for entry in self.bytes if entry not in self.ids]
        if lacking:
            raise PrerequisiteError(
                f"a vocabulary of {len(self.ids)} entries came, smaller than its bytes: {len(lacking)} of the 256 have "
                f"none ({lacking[0]!r} first), so that some text cannot be written; expected all; use a whole tokenizer"
            )

    @property
    def bytes(self) -> Sequence[str]:
        """The entries that stand for bytes; none where the tokenizer does not know bytes."""
        return sorted(ByteLevel.alphabet()) if self.byte_level else FALLBACK if self.byte_fallback else ()

    def indispensable(self, tokenizer: PreTrainedTokenizerBase) -> set[int]:
        """Ids that every vocabulary made from this one keeps.

        These are special and added tokens, the unknown token, and the bytes; single characters where there are no
        bytes; of Unigram also the least likely entry, since the cost of an unknown character is reckoned from it.
        """
        fixed_ids = {token["id"] for token in self.state["added_tokens"]} | named_ids(tokenizer)
        fixed_ids |= {self.ids[entry] for entry in self.bytes}
        if not self.bytes:
            fixed_ids |= {index for entry, index in self.ids.items() if len(entry) == 1}
        if self.model["type"] == "Unigram":
            scores = [score for _, score in self.model["vocab"]]
            fixed_ids.add(scores.index(min(scores)))
            fixed_ids |= {self.model["unk_id"]} - {None}
        elif self.model.get("unk_token"):
            fixed_ids.add(self.ids[self.model["unk_token"]])
        return fixed_ids

    def with_state(self, state: Mapping[str, Any], new_ids: Mapping[int, int]) -> "TokenizerForm":
        """The same tokenizer with other entries; new_ids: the new id by the old one."""
        text = _packed({**state, "post_processor": _moved(state["post_processor"], new_ids)})
        files = {**self.files, STATE: text if self.model["type"] == "BPE" else _settled(text)}
        settings = json.loads(self.files[SETTINGS]) if SETTINGS in self.files else {}
        if "added_tokens_decoder" in settings:  # written by earlier releases of transformers
            by_id = settings["added_tokens_decoder"].items()
            settings["added_tokens_decoder"] = {
                str(new_ids[int(i)]): token_facts for i, token_facts in by_id if int(i) in new_ids
            }
            files[SETTINGS] = _packed(settings)
        return replace(self, files=files)

    def open(self, what: str) -> PreTrainedTokenizerBase:
        """The tokenizer, by the class that its settings name; what: where the files come from, for messages.

        Raises ArtifactError where the files cannot be read, or where that class makes another tokenizer of them.
        """
        with scratch_folder() as folder:
            for name, content in self.files.items():
                write_bytes(folder / name, content)
            try:
                tokenizer = AutoTokenizer.from_pretrained(folder, **NO_OWN_CODE)
            except Exception as err:  # The tokenizers library raises plain Exception for whatever is damaged.
                raise ArtifactError(
                    f"{what}: its tokenizer could not be read ({first_line(err)}); expected a whole one; make it again"
                ) from err
        expected = {key: value for key, value in self.state.items() if key not in ("padding", "truncation")}
        if hash_tokenizer(tokenizer_state(tokenizer)) != hash_tokenizer(expected):
            raise ArtifactError(
                f"{what}: {type(tokenizer).__name__} makes another tokenizer of these files; expected the one that was "
                "saved; open the model's tokenizer as transformers.PreTrainedTokenizerFast first"
            )
        return tokenizer


def encoded_in_parts(tokenizer: PreTrainedTokenizerBase, corpus: Corpus) -> Iterator[EncodedText]:
    """Each document's text as tokens, language after language: few at a time, since an encoding is far larger."""
    for documents in corpus.values():
        for start in range(0, len(documents), PART):
            yield from encode_texts(tokenizer, [document.text for document in documents[start : start + PART]])


WORD_MARKS = ("end_of_word_suffix", "continuing_subword_prefix")


def _packed(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8")


def _settled(text: bytes) -> bytes:
    """A tokenizer's JSON with scores that are read as they are written.

    The library reads some numbers one step of float64 beside what it wrote, so that a tokenizer would not be the one
    that was saved.
    """
    for _ in range(9):
        reread = json.loads(Tokenizer.from_buffer(text).to_str())
        if (settled := _packed(reread)) == text:
            break
        text = settled
    return text


def _moved(value: Any, new_ids: Mapping[int, int]) -> Any:
    """A post-processor with new ids: it names tokens with their ids as "ids", or as pairs under "sep" and "cls"."""
    if isinstance(value, list):
        return [_moved(part, new_ids) for part in value]
    if not isinstance(value, dict):
        return value
    changed = {}
    for name, part in value.items():
        if name == "ids":
            part = [new_ids[index] for index in part]
        elif name in ("sep", "cls"):
            part = [part[0], new_ids[part[1]]]
        else:
            part = _moved(part, new_ids)
        changed[name] = part
    return changed
