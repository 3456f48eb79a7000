"""A tokenizer that does not know control tokens, for models that have their spelling as an entry of the vocabulary."""

import json
from typing import Any

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase

from babelscope.upstream.tokenizers import fast_backend

UNREACHABLE = "\U0010fffe{}\U0010ffff"
"""What control tokens are renamed to: noncharacters, which Unicode keeps out of text."""


def plain_backend(tokenizer: PreTrainedTokenizerBase, special: frozenset[int]) -> Tokenizer | None:
    """A copy of the backend in which no text gives a control token; None for a tokenizer without a backend.

    Control tokens keep their ids and get other spellings, so that all other ids stay what they are. Padding, cutting
    and what is added around texts are left out.
    """
    backend: Any = fast_backend(tokenizer)
    if backend is None:
        return None
    form = json.loads(backend.to_str())
    renamed = {token: UNREACHABLE.format(index) for token, index in tokenizer.get_vocab().items() if index in special}
    form |= {"truncation": None, "padding": None, "post_processor": None}
    form["added_tokens"] = [
        entry | {"content": renamed.get(entry["content"], entry["content"])} for entry in form["added_tokens"]
    ]
    form["model"] = _renamed(form["model"], renamed)
    return Tokenizer.from_str(json.dumps(form))


def _renamed(model: dict[str, Any], renamed: dict[str, str]) -> dict[str, Any]:
    """The model with other spellings, and without the merges that would build the old ones."""
    vocabulary = model["vocab"]
    if isinstance(vocabulary, dict):
        changed: Any = {renamed.get(token, token): index for token, index in vocabulary.items()}
    else:
        changed = [[renamed.get(token, token), score] for token, score in vocabulary]
    out = model | {"vocab": changed}
    if model.get("unk_token") is not None:
        out["unk_token"] = renamed.get(model["unk_token"], model["unk_token"])
    if "merges" in model:
        parts = [merge.split(" ") if isinstance(merge, str) else merge for merge in model["merges"]]
        out["merges"] = [pair for pair in parts if renamed.keys().isdisjoint((*pair, "".join(pair)))]
    return out
