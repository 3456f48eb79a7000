"""What a pass over an autoencoder's features keeps at a time."""

import torch
from conftest import tiny_model, tiny_tokenizer
from feature_cases import made_sae, observe

from babelscope.features import drawable_ids, feature_sums, firing, passes, random_documents


def test_sums_by_document_stay_small_where_documents_are_short(monkeypatch):
    """A list of words: with a sum a document, one batch of them would hold more than tokens × features."""
    kept = []

    def watched(sae, rows, document, n_documents):
        kept.append(n_documents)
        return firing.feature_addend(sae, rows, document, n_documents)

    monkeypatch.setattr(feature_sums, "feature_addend", watched)
    words = {"en": ["a", "bc"] * 400, "fi": ["d"] * 300}
    found = observe(tiny_model("llama"), made_sae(), words, random_sequences=300, random_length=1)
    assert max(kept) <= 4096 // 16 and sum(kept) == 1100 + 300
    assert found.tokens.tolist() == [1200, 300] and found.documents.tolist() == [800, 300]
    assert torch.equal(found.shard_present.sum(dim=0), found.present) and int(found.present.max()) <= 800


def test_a_languages_random_tokens_hold_nothing_that_its_own_text_does(monkeypatch):
    drawn = {}

    def watched(allowed, *, language, **more):
        documents = random_documents(allowed, language=language, **more)
        drawn[language] = {token for document in documents for token in document.tokens[1:]}
        return documents

    monkeypatch.setattr(passes, "random_documents", watched)
    texts, tokenizer = {"en": ["abcdefgh", "hij"], "fi": ["klmnop"]}, tiny_tokenizer()
    observe(tiny_model("llama"), made_sae(), texts, random_from="others", random_sequences=60, random_length=60)
    every = set(drawable_ids(tokenizer, 300))
    for k, lines in enumerate(texts.values()):
        own = {token for line in lines for token in tokenizer(line, add_special_tokens=False)["input_ids"]}
        assert drawn[k] == every - own and own
    observe(tiny_model("llama"), made_sae(), texts, random_sequences=60, random_length=60)
    assert drawn[0] == every
