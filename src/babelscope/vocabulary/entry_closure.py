"""Which entries of a vocabulary another one cannot be formed without, and a tokenizer of some entries only."""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from babelscope.vocabulary.merge_lists import Pair
from babelscope.vocabulary.tokenizer_form import TokenizerForm


class EntryClosure:
    """The entries that each entry is formed from.

    BPE joins neighbours by the order of its merges, so that a token of a text was formed, wherever it stands, as it is
    formed from its own letters alone. A merge list with those merges and any others in the same order forms it again.
    """

    def __init__(self, form: TokenizerForm) -> None:
        """Raises PrerequisiteError as `TokenizerForm` does."""
        self._ids = form.ids
        self._entries = form.entries
        self._unigram = form.model["type"] == "Unigram"
        self._rank: dict[Pair, int] = {}
        for rank, pair in enumerate(form.merges):
            self._rank.setdefault(pair, rank)
        self._apart = {token["id"] for token in form.state["added_tokens"]}

    def of(self, index: int) -> set[int]:
        """The entry and those that it is formed from: of BPE its letters and all that its merges make on the way.

        Of Unigram its letters, as far as they are entries: what stands for it where it is not chosen.
        An added token is found whole, and so is one that no merges form.
        """
        entry = self._entries[index]
        if index in self._apart:
            return {index}
        parts = self._letters(entry) if self._unigram else self._formed(entry)
        return {index, *(self._ids[part] for part in parts)}

    def _letters(self, entry: str) -> Iterable[str]:
        return {letter for letter in entry if letter in self._ids}

    def _formed(self, entry: str) -> Collection[str]:
        parts = list(entry)
        visited = set(parts)
        while len(parts) > 1:
            pairs = zip(parts, parts[1:], strict=False)
            ranked = [(self._rank[pair], place) for place, pair in enumerate(pairs) if pair in self._rank]
            if not ranked:
                return set()
            _, place = min(ranked)
            parts[place : place + 2] = [parts[place] + parts[place + 1]]
            visited.add(parts[place])
        return visited & self._ids.keys()


def with_entries_only(form: TokenizerForm, ids: list[int]) -> TokenizerForm:
    """The tokenizer with these entries alone, in this order; merges whose parts or result are gone are left out."""
    new_ids = {old: new for new, old in enumerate(ids)}
    model = dict(form.model)
    if model["type"] == "Unigram":
        model["vocab"] = [entry for index, entry in enumerate(model["vocab"]) if index in new_ids]
        if model["unk_id"] is not None:
            model["unk_id"] = new_ids[model["unk_id"]]
    else:
        vocabulary = {entry: new_ids[index] for entry, index in model["vocab"].items() if index in new_ids}
        model["vocab"] = dict(sorted(vocabulary.items(), key=lambda pair: pair[1]))
        model["merges"] = [
            [left, right]
            for left, right in form.merges
            if left in vocabulary and right in vocabulary and left + right in vocabulary
        ]
    added = [{**token, "id": new_ids[token["id"]]} for token in form.state["added_tokens"] if token["id"] in new_ids]
    state: Mapping[str, Any] = {**form.state, "model": model, "added_tokens": added}
    return form.with_state(state, new_ids)
