"""The verb `features`: from a model, an autoencoder and text to the features of each language."""

from dataclasses import fields
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import Positional, arg

from babelscope.cli.argument_kinds import ByFunction, checkpoint_of, free, is_given
from babelscope.cli.arguments import (
    Chat,
    Device,
    Dtype,
    LanguageTag,
    Model,
    Out,
    Result,
    SiteName,
    Split,
    System,
    Talk,
    Text,
    counted_of,
    stop_on_interrupt,
)
from babelscope.cli.flag_conditions import UsedWith
from babelscope.cli.quantities import (
    Count,
    CountOrNone,
    Draws,
    Length,
    PositiveShare,
    Ratio,
    Seed,
    Shards,
    TokensOrAll,
)
from babelscope.errors import SelectionError
from babelscope.neurons.rule_files import rule_names

if TYPE_CHECKING:
    Method = str
else:
    Method = Literal[rule_names("babelscope.features.rules")]
LANGFIR = UsedWith("with --method langfir", lambda call: call["method"] == "langfir")
SETS = UsedWith("with --method langfir-sets", lambda call: call["method"] == "langfir-sets")
BOTH = UsedWith("with --method langfir or langfir-sets", lambda call: call["method"].startswith("langfir"))
COUNTED = UsedWith("with another method than langfir-sets", lambda call: call["method"] != "langfir-sets")
CAP = 10
"""Features of a language, unless the call says otherwise."""


def run_features(
    model: Model,
    sae: Annotated[Positional[str], arg(metavar="SAE")],
    corpus: Text,
    *,
    out: Out,
    method: Method = "langfir",
    sae_id: Annotated[str, ByFunction(is_given)] = "",
    site: SiteName = "",
    average_norm: Length | None = None,
    languages: tuple[LanguageTag, ...] = (),
    split: Split = "train",
    chat: Annotated[Chat, UsedWith("without --conversation", lambda call: call["conversation"] == "none")] = False,
    system: System = "",
    conversation: Talk = "none",
    tau: Annotated[PositiveShare, BOTH] = 0.5,
    ratio: Annotated[Ratio, LANGFIR] = 3.0,
    random_tau: Annotated[PositiveShare, SETS] = 0.5,
    cap: CountOrNone | None = None,
    min_count: Annotated[CountOrNone, COUNTED] = 50,
    top_rate: Annotated[PositiveShare, UsedWith("with --method lape", lambda call: call["method"] == "lape")] = 0.01,
    random_from: Literal["all", "others"] = "all",
    random_sequences: Count = 256,
    tokens_per_language: TokensOrAll = 100_000,
    shards: Shards = 32,
    parallel: bool = False,
    draws: Draws = 200,
    resume: bool = False,
    device: Device = "auto",
    dtype: Dtype = "auto",
    seed: Seed = 0,
) -> Result:
    """Which features of a sparse autoencoder belong to which language, with bootstrap, half-splits and shuffled labels.

    Args:
        sae: "reference", "reference-coarse", a sae-lens folder, Gemma Scope's params.npz, or a release with --sae-id.
        corpus: as for observe; "reference" is the bundled one.
        out: folder with `observation`, `features` (the FeatureSet) and evidence.jsonl.
        method: the rule; docs/methods.md lists them with what they take.
        sae_id: which autoencoder of a release.
        site: where it belongs, if its files do not say, such as 20.resid_out.
        average_norm: mean length of the activations it was trained on, if its files need it.
        languages: BCP-47 tags; none means every file of the corpus folder.
        split: the text in which features are counted; a corpus without splits is dealt out by document, and "all" is
            the whole of it.
        chat: each text of the corpus is a user's message, rendered by the model's own chat template; its words count.
        tau: langfir, langfir-sets: share of the language's documents in which a feature is present.
        ratio: langfir: rate on text over rate on random tokens; inf keeps what no random token activates.
        random_tau: langfir-sets: a feature present in so large a share of the random sequences is no language's.
        cap: features per language at most, the best by the method's score; 0 keeps all. Unless given 10, and with
            langfir-sets all.
        min_count: tokens of the language on which a feature fired at least; lape: of all languages.
        top_rate: lape: share of all features taken.
        random_from: others leaves a language's own vocabulary out of its random tokens.
        random_sequences: sequences of random tokens that tell what fires on anything.
        shards: parts by document that are kept apart, for intervals and half-splits.
        draws: bootstrap resamples, half-splits and shuffles, each so many.
        parallel: the documents are line-parallel; resamples then draw the same sentences in every language.
        tokens_per_language: at most; 0 means all text.
        resume: go on with an interrupted pass of the same command; done at once if it is complete.
    """
    checkpoint = checkpoint_of(out, resume=resume)
    complete = resume and (out / "features").is_dir()
    if not complete:
        free(out)
    from babelscope.artifacts.feature_set import FeatureSet
    from babelscope.cli.saved import stability_rows
    from babelscope.controls import write_evidence
    from babelscope.corpus import as_conversations, check_conversations, load_corpus
    from babelscope.features import check_features, feature_evidence_rows, feature_rule, load_sae, observe_features
    from babelscope.files.writing import discard, new_folder
    from babelscope.models import open_model

    if cap == 0 and method == "monolinguality":
        raise SelectionError("cap 0 came; monolinguality takes the best so many by score; expected 1 or more")
    most = (None if method == "langfir-sets" else CAP) if cap is None else cap or None
    flags = {"tau": tau, "ratio": ratio, "random_tau": random_tau, "cap": most, "count": most}
    flags |= {"min_count": min_count, "top_rate": top_rate}
    names = {part.name for part in fields(feature_rule(method))}
    rule = feature_rule(method, **{name: value for name, value in flags.items() if name in names})
    if complete:
        discard(checkpoint)
        return {"out": str(out), "resumed": "complete", "features": FeatureSet.load(out / "features").as_dict()}
    counted = counted_of(conversation)
    texts = load_corpus(corpus, languages or None, split=split, parallel=parallel, conversation=counted)
    if chat:
        texts = as_conversations(texts, system=system or None)
    language_model, tokenizer = open_model(model, device=device, dtype=dtype)
    loaded = load_sae(sae, sae_id or None, model=language_model, site=site or None, average_norm=average_norm)
    if chat or counted is not None:
        check_conversations(tokenizer, texts)
    free(out)  # once more: another run may have ended while the model was opened
    with stop_on_interrupt() as stop:
        observed = observe_features(
            language_model,
            tokenizer,
            texts,  # pyright: ignore[reportArgumentType]
            loaded,
            tokens_per_language=tokens_per_language or None,
            shards=shards,
            random_from=random_from,
            random_sequences=random_sequences,
            seed=seed,
            checkpoint=checkpoint,
            progress=True,
            stop=stop,
        )
    sets = rule.choose(observed)
    if not len(sets.indices):
        raise SelectionError(
            f"{method} selects nothing; expected a feature or more; lower tau, ratio or min_count, or raise random_tau"
        )
    checks = check_features(observed, sets, parallel=parallel, draws=draws, seed=seed)
    with new_folder(out) as partial:
        observed.save(partial / "observation")
        sets.save(partial / "features")
        write_evidence(feature_evidence_rows(checks), partial / "evidence.jsonl")
    discard(checkpoint)
    return {
        "out": str(out),
        "sae": sets.sae_id,
        "site": str(sets.site),
        "features": sets.as_dict(),
        "before_the_cap": sets.parameters["uncapped"],
        "stability": stability_rows(checks.stability),
    }
