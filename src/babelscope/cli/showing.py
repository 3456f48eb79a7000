"""The verb `show`."""

from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from babelscope.cli.argument_kinds import ByFunction, SavedAs, Writable
from babelscope.cli.arguments import Device, Dtype, LanguageTag, Model, Result, Split
from babelscope.cli.flag_conditions import UsedWith, saved_as
from babelscope.cli.quantities import Count, Seed, TokenAmount
from babelscope.cli.telling import Told
from babelscope.corpus.corpus_names import check_corpus_name

WITH_TEXT = UsedWith("with a CORPUS", lambda call: bool(call["corpus"]))


def check_text_or_none(name: str) -> None:
    """Raise CorpusError for a path where no corpus can be; an empty word stands for none."""
    if name:
        check_corpus_name(name)


def run_show(
    artifact: Annotated[Positional[Path], SavedAs(("NeuronSet", "FeatureSet")), arg(metavar="ARTIFACT")],
    model: Model,
    corpus: Annotated[Positional[str], ByFunction(check_text_or_none), arg(metavar="[CORPUS]")] = "",
    *,
    language: LanguageTag,
    languages: Annotated[tuple[LanguageTag, ...], WITH_TEXT] = (),
    sae: Annotated[str, saved_as("artifact", "FeatureSet")] = "",
    sae_id: Annotated[str, saved_as("artifact", "FeatureSet")] = "",
    top: Count = 20,
    contexts: Annotated[Count, WITH_TEXT] = 3,
    tokens: Count = 8,
    effects: Annotated[bool, WITH_TEXT] = True,
    split: Annotated[Split, WITH_TEXT] = "test",
    max_tokens: Annotated[TokenAmount, WITH_TEXT] = 2_000,
    csv: Annotated[Path, Writable()] | None = None,
    out: Annotated[Path, Writable()] | None = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    seed: Annotated[Seed, WITH_TEXT] = 0,
) -> Result:
    """The neurons or features of a language by name: how often they fire, where, what they write, what is lost without.

    Args:
        artifact: folder of a NeuronSet or FeatureSet.
        corpus: text of the language and of others: folder of <tag>.txt or .jsonl, file of rows with language and text,
            hub id, or "reference"; without it only the units and what they write are shown.
        language: whose units, as a tag.
        languages: whose text is read beside that one's, for rates to compare with; none means every one of the corpus.
        sae: the autoencoder of a FeatureSet, as for `features`; none opens what the set names.
        sae_id: which autoencoder of a release.
        top: units shown, by falling lead of their rate in the language over the largest of the others.
        contexts: places of the text where each unit fires most.
        tokens: tokens that each unit writes, of the largest logits of what it adds to the stream alone.
        effects: switch each unit off alone, and a unit of no language beside it: two passes over the text for each.
        split: the text that is read; a corpus without splits is dealt out by document, and "all" is the whole of it.
        max_tokens: scored tokens per language.
        csv: file for a row per unit, replaced if it is there.
        out: file for a page of its own, replaced if it is there.
    """
    from babelscope.artifacts import NeuronSet
    from babelscope.artifacts.feature_set import FeatureSet
    from babelscope.corpus import load_corpus
    from babelscope.features import load_sae
    from babelscope.files.folder_kinds import format_of
    from babelscope.models import open_model
    from babelscope.report.dashboards import describe_units, write_dashboard

    of_features = format_of(artifact).startswith("babelscope.FeatureSet/")
    sets = (FeatureSet if of_features else NeuronSet).load(artifact)
    sets.index(language)
    tags = tuple(dict.fromkeys((language, *languages))) if languages else None
    texts = load_corpus(corpus, tags, split=split) if corpus else None
    language_model, tokenizer = open_model(model, device=device, dtype=dtype)
    loaded = (
        load_sae(sae or sets.sae_id, sae_id or None, model=language_model) if isinstance(sets, FeatureSet) else None
    )
    dashboard = describe_units(
        sets,
        language_model,
        tokenizer,
        texts,
        language=language,
        sae=loaded,
        top=top,
        contexts=contexts,
        tokens=tokens,
        effects=effects,
        max_tokens=max_tokens,
        seed=seed,
        progress=True,
    )
    files = {}
    if csv is not None:
        files["csv"] = str(dashboard.write_csv(csv))
    if out is not None:
        files["page"] = str(write_dashboard(dashboard, out))
    fields = {
        "language": dashboard.language, "kind": dashboard.kind, "method": dashboard.method, "total": dashboard.total,
        "tokens": dict(dashboard.tokens), "seed": dashboard.seed, "units": dashboard.rows(), **files,
    }  # fmt: skip
    return Told(fields, [*dashboard.lines(), *(f"{name}: {path}" for name, path in files.items())])
