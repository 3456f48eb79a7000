"""What a pass over an autoencoder's features keeps at a time."""

import torch
from conftest import tiny_model
from feature_cases import made_sae, observe

from babelscope.features import firing, passes


def test_sums_by_document_stay_small_where_documents_are_short(monkeypatch):
    """A list of words: with a sum a document, one batch of them would hold more than tokens × features."""
    kept = []

    def watched(sae, rows, document, n_documents):
        kept.append(n_documents)
        return firing.feature_addend(sae, rows, document, n_documents)

    monkeypatch.setattr(passes, "feature_addend", watched)
    words = {"en": ["a", "bc"] * 400, "fi": ["d"] * 300}
    found = observe(tiny_model("llama"), made_sae(), words, random_sequences=300, random_length=1)
    assert max(kept) <= 4096 // 16 and sum(kept) == 1100 + 300
    assert found.tokens.tolist() == [1200, 300] and found.documents.tolist() == [800, 300]
    assert torch.equal(found.shard_present.sum(dim=0), found.present) and int(found.present.max()) <= 800
