"""Autoencoders and observations made for the tests of features."""

import math

import numpy as np
import torch
from conftest import tiny_tokenizer

from babelscope import Site
from babelscope.artifacts import Observation, Origin, SiteRecord
from babelscope.artifacts.feature_observation import FeatureObservation, RandomTokens
from babelscope.artifacts.sae import LoadedSAE
from babelscope.features import observe_features
from babelscope.languages import parse_languages

TEXTS = {
    "en": ["the cat sat on the mat", "a dog", "it rained all day long", "yes", "we went home early"],
    "fi": ["kissa istui matolla", "koira juoksi pitkin rantaa", "ei", "satoi koko viikon"],
}


def made_sae(hidden=32, features=40, seed=0, activation="jumprelu", layer=1, scaling="none"):
    generator = torch.Generator().manual_seed(seed)
    threshold = torch.rand(features, generator=generator) if activation == "jumprelu" else torch.zeros(features)
    return LoadedSAE(
        id="made",
        site=Site(layer, "resid_out"),
        w_enc=torch.randn(hidden, features, generator=generator) / math.sqrt(hidden),
        b_enc=torch.randn(features, generator=generator) - 0.5,
        w_dec=torch.randn(features, hidden, generator=generator),
        b_dec=torch.randn(hidden, generator=generator),
        activation=activation,
        threshold=threshold,
        k=5 if activation == "topk" else 0,
        scaling=scaling,
    )


def observe(model, sae, texts=TEXTS, **given):
    settings = {"tokens_per_language": None, "shards": 4, "random_sequences": 6, "random_length": 10, **given}
    return observe_features(model, tiny_tokenizer(), texts, sae, **settings)


LANGUAGES = parse_languages(["en", "fi", "ru"])


def planted(shards=24, documents=240, features=60, seed=0, loud=None):
    """Noise in all languages; features 0, 1, 2 fire in one language each, 3 in all and on random tokens, 4 never."""
    rng = np.random.default_rng(seed)
    length, k = 20, len(LANGUAGES)
    rate = np.full((features, k), 0.02)
    for language in range(k):
        rate[language] = [0.6 if m == language else 0.001 for m in range(k)]
    rate[3], rate[4] = 0.7, 0.0
    noise = np.full(features, 0.02)
    noise[:3], noise[3], noise[4] = 0.01, 0.7, 0.0
    fired = rng.binomial(length, np.broadcast_to(rate[None], (documents, features, k)))
    value = fired * rng.uniform(0.8, 1.2, fired.shape) * (1 if loud is None else loud[None, :, None])
    shard = np.arange(documents) % shards
    gather = np.zeros((shards, documents))
    gather[shard, np.arange(documents)] = 1

    def by_shard(values):
        return torch.from_numpy(np.einsum("sd,djk->sjk", gather, values))

    shard_fired, shard_sum = by_shard(fired).to(torch.int32), by_shard(value)
    shard_documents = torch.full((shards, k), documents // shards)
    random = rng.binomial(64, np.broadcast_to(noise[None], (100, features)))
    record = SiteRecord(
        layers=(1,),
        active=shard_fired.sum(dim=0)[None].long(),
        sum=shard_sum.sum(dim=0)[None],
        sumsq=shard_sum.sum(dim=0)[None] * 2,
        norm=torch.ones(1, k, dtype=torch.float64),
        shard_active=shard_fired[:, None],
    )
    counts = Observation(
        origin=Origin("made", "", "made", ""),
        languages=LANGUAGES,
        records={"resid_out": record},
        token_counts=torch.full((k,), documents * length),
        shard_tokens=shard_documents * length,
        documents=torch.full((k,), documents),
        truncated=torch.zeros(k, dtype=torch.int64),
        parts=("made:0/1",),
        settings={},
    )
    return FeatureObservation(
        counts=counts,
        present=torch.from_numpy((fired > 0).sum(axis=0)),
        shard_present=by_shard(fired > 0).to(torch.int32),
        shard_documents=shard_documents,
        shard_sum=shard_sum,
        random=RandomTokens(
            fired=torch.from_numpy(random.sum(axis=0))[:, None].repeat(1, k),
            present=torch.from_numpy((random > 0).sum(axis=0))[:, None].repeat(1, k),
            tokens=torch.full((k,), 6400),
            sequences=torch.full((k,), 100),
        ),
        decoder_norm=torch.from_numpy(rng.uniform(0.5, 2, features)).float(),
        site=Site(1, "resid_out"),
        sae_id="made",
        sae_hash="0" * 16,
    )
