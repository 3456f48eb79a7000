"""The verb `experts`."""

from typing import Literal

from babelscope.cli.argument_kinds import alone, free
from babelscope.cli.arguments import Device, LanguageTag, Model, Out, Result, Text
from babelscope.cli.quantities import Count, PeakRate, RowLength, Seed, Share, TokenAmount
from babelscope.cli.telling import Told


@alone
def run_experts(
    model: Model,
    corpus: Text,
    *,
    out: Out,
    layers: Count,
    languages: tuple[LanguageTag, ...] = (),
    by: Literal["family", "branch"] = "family",
    top_k: Count = 2,
    steps: Count = 60,
    learning_rate: PeakRate | None = None,
    tokens_per_step: TokenAmount = 2048,
    max_length: RowLength = 256,
    guide: Share = 0.1,
    balance: Share = 0.01,
    test_documents: Count | None = None,
    device: Device = "auto",
    seed: Seed = 0,
) -> Result:
    """Turn the last layers of a dense model into experts of language families, train them, and measure by family.

    The mixture gives at first what the model gave. Beside it are trained, on the same rows: experts of random families,
    and the dense model's same layers. The model is opened in float32, which training needs, and stays as it is.

    Args:
        corpus: folder with train and test text of related languages, hub id, or "reference".
        out: folder for results.jsonl and, in `model`, the mixture, which transformers opens as it is.
        layers: how many become experts, from the end.
        languages: BCP-47 tags; none means every language of the text.
        by: what has an expert: each family, or each branch of one, such as Romance.
        top_k: experts of a token.
        steps: of each of the three trainings.
        learning_rate: peak rate of AdamW; none takes 0.03 of the root mean square of the MLPs' weights.
        tokens_per_step: of text, in each step; families take turns.
        max_length: tokens of a row, and of a test document, at most.
        guide: how strongly a family's tokens are drawn to its expert; 0 leaves the routers to the text.
        balance: how strongly uneven use of the experts is held against the routers.
        test_documents: of each language at most; none takes all.
    """
    free(out)
    from babelscope.adaptation.expert_controls import expert_study
    from babelscope.adaptation.family_experts import language_families
    from babelscope.cli.telling_scores import expert_lines
    from babelscope.corpus import load_splits
    from babelscope.models import open_model

    texts = load_splits(corpus, languages or None, splits=("train", "test"))
    families = language_families(tuple(texts["train"]), by=by)
    language_model, tokenizer = open_model(model, device=device, dtype="float32")
    study = expert_study(
        language_model,
        tokenizer,
        texts,
        families,
        layers=layers,
        top_k=top_k,
        steps=steps,
        learning_rate=learning_rate,
        tokens_per_step=tokens_per_step,
        max_length=max_length,
        guide=guide,
        balance=balance,
        test_documents=test_documents,
        progress=True,
        seed=seed,
    )
    study.save(tokenizer, out, source=model)
    fields = {"out": str(out), **study.summary()}
    return Told(fields, expert_lines(fields, out))
