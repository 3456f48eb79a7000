"""Stream documents through a model and an autoencoder once, and random tokens after them."""

import math
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from einops import rearrange
from transformers import PreTrainedTokenizerBase

from babelscope.artifacts import Observation
from babelscope.artifacts.feature_observation import FeatureObservation, RandomTokens
from babelscope.artifacts.sae import LoadedSAE
from babelscope.axes import Tensor
from babelscope.corpus import Batch, Corpus, Texts, TokenDocument, as_corpus, prefix_of
from babelscope.errors import SiteError
from babelscope.features.loading import check_fits
from babelscope.features.random_tokens import drawable_ids, random_documents, without
from babelscope.features.sums import FeatureSums
from babelscope.files.state_folder import state_folder
from babelscope.models import Layout, layout_of
from babelscope.models.plain import CausalModel
from babelscope.recording.passes import Pass
from babelscope.recording.reading import Reading

SHORT = 16
"""A batch has at most one document for so many tokens of its room: sums are kept by document, and so each stays
within 1/16 of tokens × features however short the documents are."""
Draw = Literal["all", "others"]
"""Random tokens from the whole vocabulary, or for each language from what its own text did not contain."""


class FeaturePass(Pass):
    """A pass whose one site is read through an autoencoder."""

    def __init__(
        self, layout: Layout, tokenizer: PreTrainedTokenizerBase, corpus: Corpus, reading: Reading, sae: LoadedSAE
    ):
        super().__init__(layout, tokenizer, corpus, replace(reading, sites={}))
        self.features = FeatureSums(layout, sae, len(corpus), reading.shards)
        self.sums = [self.features]

    def cut_batches(self, documents: list[TokenDocument], pad: int) -> list[Batch]:
        """Batches of some documents of one language, each of few enough to keep sums of."""
        most = max(1, self.reading.batch_tokens // SHORT)
        return [part for batch in super().cut_batches(documents, pad) for part in of_few_documents(batch, most)]

    def settings(self) -> dict[str, Any]:
        """Every parameter of the pass as JSON."""
        sae = self.features.sae
        return {**super().settings(), "site": str(sae.site), "sae": sae.id, "sae_hash": sae.hash}

    def seen_ids(self, n_vocab: int) -> Tensor:
        """[language, vocab]: which ids the counted text of each language contains, all parts of it."""
        seen = torch.zeros(len(self.languages), n_vocab, dtype=torch.bool)
        whole = Pass(self.layout, self.tokenizer, self.corpus, replace(self.reading, part=(0, 1)))
        for batch in whole.batches():
            seen[batch.documents[0].language, batch.input_ids[batch.counted]] = True
        return seen


class RandomPass(FeaturePass):
    """The same sums over random sequences, which stand in the place of each language's documents."""

    allowed: list[list[int]]
    """Ids to draw from, by place on the language axis."""
    sequences: int
    length: int
    seed: int

    def batches(self) -> Iterator[Batch]:
        """Batches of random sequences, one place of the language axis at a time."""
        for k, allowed in enumerate(self.allowed):
            documents = random_documents(
                allowed,
                prefix=prefix_of(self.tokenizer),
                language=k,
                sequences=self.sequences,
                length=self.length,
                seed=self.seed,
            )
            yield from self.cut_batches(documents, 0)

    def report_shortfall(self) -> None:
        """Nothing to say: random sequences are as long as they were asked to be."""

    def random_tokens(self, languages: int) -> RandomTokens:
        """The totals; one place read for all languages is repeated for each."""
        total, tally = self.features.totals[0], self.tally
        read = len(self.allowed)

        def spread(tensor: Tensor) -> Tensor:
            return (tensor[:1].expand(languages, *tensor.shape[1:]) if read == 1 else tensor).cpu().contiguous()

        return RandomTokens(
            fired=spread(total["active"]).T.contiguous(),
            present=spread(total["present"]).T.contiguous(),
            tokens=spread(tally.tokens),
            sequences=spread(tally.documents),
        )


def of_few_documents(batch: Batch, most: int) -> list[Batch]:
    """The batch, halved until no part has more documents than that."""
    if len(batch.documents) <= most:
        return [batch]
    return [part for half in batch.halves() for part in of_few_documents(half, most)]


def observe_features(
    model: CausalModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Texts,
    sae: LoadedSAE,
    *,
    tokens_per_language: int | None = 100_000,
    shards: int = 32,
    part: tuple[int, int] = (0, 1),
    max_length: int = 512,
    random_from: Draw = "all",
    random_sequences: int = 256,
    random_length: int = 64,
    seed: int = 0,
    checkpoint: str | Path | None = None,
    checkpoint_seconds: float = 20.0,
    progress: bool = False,
    stop: Callable[[], bool] = lambda: False,
) -> FeatureObservation:
    """Stream labelled text through a model and an autoencoder once, and add up what its features do, by language.

    Tokens × features are never held: the encoder runs on blocks of features (`features.firing`).  Counts are exact
    int64, sums float64.  Pads, BOS and other special tokens are never counted; presence is counted by document.
    random_from: "all" draws the random sequences from all ids that text can give; "others" draws, for each language,
    from those that its own text here did not contain, which costs a pass over random tokens a language.
    random_sequences, random_length: how many, and tokens of each; sequence i depends on seed and i alone.
    tokens_per_language, shards, part, max_length, checkpoint, stop: as in `observe`; the random tokens are not in the
    checkpoint, they are read last.
    Raises SiteError or ArtifactError where the autoencoder does not fit the model, as in `check_fits`.
    """
    layout, corpus = layout_of(model), as_corpus(texts)
    check_fits(sae, layout)
    if not 0 <= part[0] < part[1]:
        raise SiteError(f"part {part[0]}/{part[1]} is none; expected i/n with 0 <= i < n; correct it")
    run = FeaturePass(
        layout, tokenizer, corpus, reading_of(layout, sae, tokens_per_language, shards, part, max_length), sae
    )
    with nullcontext() if checkpoint is None else state_folder(checkpoint, run.fingerprint()) as state:
        if state is not None:
            run.resume(state)
        run.stream(progress=progress, checkpoint_seconds=checkpoint_seconds, stop=stop)
    random = observe_random(
        model,
        tokenizer,
        corpus,
        sae,
        tokens_per_language=tokens_per_language,
        max_length=max_length,
        random_from=random_from,
        random_sequences=random_sequences,
        random_length=random_length,
        seed=seed,
    )
    drawn = {"from": random_from, "sequences": random_sequences, "length": random_length, "seed": seed}
    return assemble(run, run.observation(), random, drawn)


def observe_random(
    model: CausalModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Texts | Corpus,
    sae: LoadedSAE,
    *,
    tokens_per_language: int | None = 100_000,
    max_length: int = 512,
    random_from: Draw = "all",
    random_sequences: int = 256,
    random_length: int = 64,
    seed: int = 0,
) -> RandomTokens:
    """The part of `observe_features` that reads random tokens; the text says which languages, and what they use."""
    layout, corpus = layout_of(model), as_corpus(texts)  # pyright: ignore[reportArgumentType]
    check_fits(sae, layout)
    reading = reading_of(layout, sae, tokens_per_language, 0, (0, 1), max_length)
    noise = RandomPass(layout, tokenizer, corpus, reading, sae)
    n_vocab = layout.width("logits")
    every = drawable_ids(tokenizer, n_vocab)
    own = noise.seen_ids(n_vocab) if random_from == "others" else ()
    noise.allowed = [without(every, seen) for seen in own] or [every]
    noise.sequences, noise.length, noise.seed = random_sequences, random_length, seed
    noise.stream(progress=False, checkpoint_seconds=math.inf, stop=lambda: False)
    return noise.random_tokens(len(corpus))


def reading_of(
    layout: Layout, sae: LoadedSAE, tokens: int | None, shards: int, part: tuple[int, int], max_length: int
) -> Reading:
    """How a pass reads; the site is the autoencoder's and named by it."""
    room = 4_096 if layout.device_of(sae.site).type == "cpu" else 32_768
    return Reading({}, tokens, shards, part, room, None, max_length)


def assemble(run: FeaturePass, counts: Observation, random: RandomTokens, drawn: dict[str, Any]) -> FeatureObservation:
    """The totals of a pass and of its random tokens, as they are saved."""
    total = {name: tensor.cpu() for name, tensor in run.features.totals[0].items()}
    sae = run.features.sae
    return FeatureObservation(
        counts=replace(counts, settings={**counts.settings, "random": drawn}),
        present=total["present"].T.contiguous(),
        shard_present=rearrange(total["shard_present"], "k s j -> s j k").contiguous(),
        shard_documents=total["shard_documents"].T.contiguous(),
        shard_sum=rearrange(total["shard_sum"], "k s j -> s j k").contiguous(),
        random=random,
        decoder_norm=sae.decoder_norm.cpu(),
        site=sae.site,
        sae_id=sae.id,
        sae_hash=sae.hash,
    )
