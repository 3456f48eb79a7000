"""Tables of how near languages are, from which a source is chosen before anything is trained."""

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from babelscope.axes import Float64
from babelscope.corpus import Corpus
from babelscope.models import layout_of
from babelscope.models.plain import CausalModel
from babelscope.probes.geometry.language_distances import distance_tables
from babelscope.probes.lens.word_lists import Words
from babelscope.recording import observe
from babelscope.vocabulary import vocabulary_allocation

DOCUMENTS = 50
"""Of each language, for the mean of its stream."""


def nearness_tables(
    model: CausalModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Corpus,
    *,
    words: Words | None = None,
    seed: int = 0,
) -> dict[str, Float64[np.ndarray, "source target"]]:
    """By name, larger for languages that are nearer; tables in which all pairs are the same are left out.

    model: cosine of the languages' mean streams in the middle of the depth, each less the mean of all, massive units
    and first tokens left out, over the first documents of `texts`. tokens: minus the Jensen-Shannon divergence of the
    token distributions. script: 1 for one script. The others are minus the distances of `distance_tables`, as far as
    they can be had.
    """
    languages = tuple(texts)
    layer = layout_of(model).n_layers // 2
    some = texts.head(DOCUMENTS)
    observation = observe(model, tokenizer, some, sites=[f"{layer}.resid_out"], tokens_per_language=None, shards=0)
    stream = observation.stream("resid_out", layer)
    assert stream is not None  # every pass over a stream site keeps it
    means = torch.stack([stream.mean(observation.index(tag)) for tag in languages])
    unit = torch.nn.functional.normalize(means - means.mean(dim=0), dim=1)
    scripts = [tag.script for tag in languages]
    tables = {
        "model": (unit @ unit.T).numpy(),
        "tokens": -vocabulary_allocation(tokenizer, texts, resamples=2, seed=seed).matrix(),
        "script": np.array([[float(a == b) for b in scripts] for a in scripts]),
        **{name: -table for name, table in distance_tables(languages, words).items()},
    }
    apart = ~np.eye(len(languages), dtype=bool)
    return {name: table for name, table in tables.items() if np.ptp(table[apart]) > 0}
