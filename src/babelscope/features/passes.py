"""Stream documents through a model and an autoencoder once, and random tokens after them."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch
from einops import rearrange
from transformers import PreTrainedTokenizerBase

from babelscope.artifacts import Observation
from babelscope.artifacts.feature_observation import FeatureObservation, RandomTokens
from babelscope.artifacts.sae import LoadedSAE
from babelscope.axes import Bool, Tensor
from babelscope.corpus import Corpus, Texts, as_corpus, pad_of, prefix_of, token_windows
from babelscope.errors import SiteError
from babelscope.features.feature_sums import FeatureSums
from babelscope.features.loading import check_fits
from babelscope.features.random_tokens import drawable_ids, random_documents, without
from babelscope.files.state_folder import hash_json
from babelscope.files.work_log import work_log
from babelscope.models import Layout, layout_of
from babelscope.models.plain import CausalModel
from babelscope.models.text_length import text_length
from babelscope.progress import never
from babelscope.recording.pass_plan import PassPlan
from babelscope.recording.pass_settings import PassSettings
from babelscope.recording.tally import Tally
from babelscope.recording.walk import batch_room, walk

SHORT = 16
"""A batch has at most one document for so many tokens of its room."""
Draw = Literal["all", "others"]
"""Random tokens from the whole vocabulary, or for each language from what its own text did not contain."""


def observe_features(
    model: CausalModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Texts,
    sae: LoadedSAE,
    *,
    tokens_per_language: int | None = 100_000,
    shards: int = 32,
    part: tuple[int, int] = (0, 1),
    max_length: int | None = None,
    random_from: Draw = "all",
    random_sequences: int = 256,
    random_length: int = 64,
    seed: int = 0,
    checkpoint: str | Path | None = None,
    checkpoint_seconds: float = 20.0,
    progress: bool = False,
    stop: Callable[[], bool] = never,
) -> FeatureObservation:
    """Stream labelled text through a model and an autoencoder once, and add up what its features do, by language.

    Tokens × features are never held: the encoder runs on blocks of features (`features.firing`). Counts are exact
    int64, sums float64.  Pads, BOS and other special tokens are never counted; presence is counted by document.
    random_from: "all" draws the random sequences from all ids that text can give; "others" draws, for each language,
    from those that its own text here did not contain, which costs a pass over random tokens per language.
    random_sequences, random_length: how many, and tokens of each; sequence i depends on seed and i alone.
    tokens_per_language, shards, part, max_length, checkpoint, stop: as in `observe`; the random tokens
    are read last, and kept as well.
    Raises SiteError or ArtifactError where the autoencoder does not fit the model, as in `check_fits`.
    """
    layout, corpus = layout_of(model), as_corpus(texts)
    max_length = text_length(layout, max_length)
    check_fits(sae, layout)
    if not 0 <= part[0] < part[1]:
        raise SiteError(f"part {part[0]}/{part[1]} is none; expected i/n with 0 <= i < n; correct it")
    settings = PassSettings({}, tokens_per_language, shards, part, batch_room(layout), None, max_length)
    details = {"site": str(sae.site), "sae": sae.id, "sae_hash": sae.hash}
    plan = PassPlan(layout, tokenizer, corpus, settings, details)
    tally, sums = Tally.zeros(len(corpus), shards), FeatureSums(layout, sae, len(corpus), shards)
    with plan.state(checkpoint) as state:
        walk(
            layout,
            plan.documents(),
            [sums, tally],
            pad=pad_of(tokenizer),
            batch_tokens=settings.batch_tokens,
            most_documents=document_room(layout),
            state=state,
            checkpoint_seconds=checkpoint_seconds,
            progress=plan.progress() if progress else None,
            stop=stop,
        )
    counts = plan.observation(tally, {sae.site.at: sums.record()})
    random_settings = {"from": random_from, "sequences": random_sequences, "length": random_length, "seed": seed}
    log = nullcontext()
    if checkpoint is not None:
        log = work_log(Path(checkpoint) / "random", hash_json([plan.fingerprint, random_settings]))
    with log:
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
    return packed_observation(sums, replace(counts, settings={**counts.settings, "random": random_settings}), random)


def observe_random(
    model: CausalModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Texts | Corpus,
    sae: LoadedSAE,
    *,
    tokens_per_language: int | None = 100_000,
    max_length: int | None = None,
    random_from: Draw = "all",
    random_sequences: int = 256,
    random_length: int = 64,
    seed: int = 0,
) -> RandomTokens:
    """The part of `observe_features` that reads random tokens; the text says which languages, and what they use."""
    layout, corpus = layout_of(model), as_corpus(texts)  # pyright: ignore[reportArgumentType]
    max_length = text_length(layout, max_length)
    check_fits(sae, layout)
    n_vocab = layout.width("logits")
    all_ids = drawable_ids(tokenizer, n_vocab)
    allowed = [all_ids]
    if random_from == "others":
        ids_in_text = seen_ids(tokenizer, corpus, n_vocab, tokens_per_language, max_length)
        allowed = [without(all_ids, language) for language in ids_in_text]
    documents = (
        random_documents(
            ids, prefix=prefix_of(tokenizer), language=k, sequences=random_sequences, length=random_length, seed=seed
        )
        for k, ids in enumerate(allowed)
    )
    tally, sums = Tally.zeros(len(allowed), 0), FeatureSums(layout, sae, len(allowed), 0)
    walk(layout, documents, [sums, tally], most_documents=document_room(layout))

    def spread(tensor: Tensor) -> Tensor:
        """One place of the language axis repeated for each language, where all share their random tokens."""
        return tensor.expand(len(corpus), *tensor.shape[1:]).cpu().contiguous()

    return RandomTokens(
        fired=spread(sums.total["active"]).T.contiguous(),
        present=spread(sums.total["present"]).T.contiguous(),
        tokens=spread(tally.tokens),
        sequences=spread(tally.documents),
    )


def document_room(layout: Layout) -> int:
    """Documents of a batch at most: sums are kept by document, and stay within 1/16 of tokens × features so."""
    return max(1, batch_room(layout) // SHORT)


def seen_ids(
    tokenizer: PreTrainedTokenizerBase, corpus: Corpus, n_vocab: int, tokens: int | None, max_length: int
) -> Bool[Tensor, "language vocab"]:
    """Which ids the counted text of each language contains."""
    contained = torch.zeros(len(corpus), n_vocab, dtype=torch.bool)
    for window in token_windows(tokenizer, corpus, tokens_per_language=tokens, max_length=max_length, name=None):
        for document in window:
            counted_ids = [token for token, counts in zip(document.tokens, document.counted, strict=True) if counts]
            contained[document.language, counted_ids] = True
    return contained


def packed_observation(sums: FeatureSums, counts: Observation, random: RandomTokens) -> FeatureObservation:
    """The totals of a pass and of its random tokens, as they are saved."""
    total = {name: tensor.cpu() for name, tensor in sums.total.items()}
    sae = sums.sae
    return FeatureObservation(
        counts=counts,
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
