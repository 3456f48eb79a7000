"""Sentence vectors made by hand, for tests of the geometric probes."""

import torch

from babelscope.languages import Language
from babelscope.probes.sentences import Sentences
from babelscope.sites import Site

FIVE = ("en", "de", "fr", "ru", "uk")


def made_sentences(vectors, languages=FIVE):
    """The same vectors [language, depth, sentence, hidden] for every pooling."""
    found = torch.as_tensor(vectors).float()
    sites = (Site(0, "resid_in"), *(Site(layer, "resid_out") for layer in range(found.shape[1] - 1)))
    ids = tuple(str(i) for i in range(found.shape[2]))
    vectors = {"mean": found, "weighted": found, "last": found}
    return Sentences(tuple(Language(tag) for tag in languages), ids, sites, vectors)


def noise(languages=5, depths=2, sentences=60, hidden=24, seed=0):
    """Vectors without any structure."""
    return torch.randn(languages, depths, sentences, hidden, generator=torch.Generator().manual_seed(seed))
