"""Does taking a language's few best features out of the stream hurt that language, and no other?

LangFIR features of the reference autoencoders, at most `caps` a language, by rate ratio. The span of their decoder
rows is projected out; harm is the relative rise of the negative log-likelihood, on every language's text.
Controls: the other eleven languages' text, and random features matched on firing rate, decoder norm and energy, as
many, `draws` times. Autoencoder and cap are chosen on validation text (most languages with own harm five times the
mean absolute harm of the others, then the larger geometric mean of that ratio), and one table is measured on test text.
A language counts as specific where own harm is at least five times both and its rank p among the draws is at most .05;
fewer than ten of twelve counts against the claim. Sentences are resampled for intervals; one seed of features, because
the autoencoders are given.
"""

import json
import math
from dataclasses import dataclass

import torch

from babelscope import load_corpus, open_model
from babelscope.ablation.features import MATCHED, feature_ablation, ratio_to_others, specific
from babelscope.features import load_sae, matched_features, observe_features, select_langfir
from babelscope.figures import ablation_map
from babelscope.runs import Run, main, write_atomic

MAIN = ("en", "de", "fr", "es", "ru", "uk", "zh", "ja", "ar", "hi", "fi", "id")


@dataclass(frozen=True)
class Config:
    saes: tuple[str, ...] = ("reference",)
    """Autoencoders to choose from: "reference", or folders of sae-lens."""
    caps: tuple[int, ...] = (10, 5)
    """Features a language at most, to choose from."""
    tau: float = 0.5
    ratio: float = 3.0
    min_count: int = 20
    """Tokens of the language on which a feature fired at least."""
    tokens: int = 3_000
    """Tokens a language from which features are selected, of the bundled training sentences."""
    sequences: int = 128
    """Random sequences of 64 tokens."""
    valid_tokens: int = 250
    """Scored tokens a language on which autoencoder and cap are chosen."""
    test_tokens: int = 1_000
    """Scored tokens a language of the final table."""
    draws: int = 19
    barred: bool = True
    """Matched features are none that the rule selects for any language before the cap; else a language's next best
    features, which are most like its best, are among its controls."""
    languages: tuple[str, ...] = MAIN
    threads: int = 1
    seed: int = 0


def select(config: Config, observed, cap: int | None):
    return select_langfir(observed, tau=config.tau, ratio=config.ratio, min_count=config.min_count, cap=cap)


def choose(config: Config, model, tokenizer, run: Run):
    """Autoencoder, its observation and the cap that do best on validation text; what was done is not redone."""
    texts = load_corpus("reference", config.languages, split="train")
    valid = load_corpus("reference", config.languages, split="valid")
    known = {(row["sae"], row["cap"]): row for row in run.results() if row["part"] == "valid"}
    best = None
    for source in config.saes:
        sae = load_sae(source, model=model)
        observed = observe_features(
            model,
            tokenizer,
            texts,
            sae,
            tokens_per_language=config.tokens,
            shards=24,
            random_sequences=config.sequences,
            seed=config.seed,
        )
        for cap in config.caps:
            row = known.get((sae.id, cap))
            if row is None:
                table = feature_ablation(
                    model, tokenizer, sae, select(config, observed, cap), valid, max_tokens=config.valid_tokens
                )
                ratios = {tag: found.estimate for tag, found in ratio_to_others(table).items()}
                row = {
                    "part": "valid",
                    "sae": sae.id,
                    "site": str(sae.site),
                    "cap": cap,
                    "five_times_others": sum(value >= 5 for value in ratios.values()),
                    "mean_log_ratio": sum(math.log(max(value, 1e-9)) for value in ratios.values()) / len(ratios),
                    "ratio_to_others": ratios,
                    "own_harm": table.own_harm(),
                }
                run.log([row])
            if best is None or (row["five_times_others"], row["mean_log_ratio"]) > best[0]:
                best = ((row["five_times_others"], row["mean_log_ratio"]), sae, observed, cap)
    assert best is not None
    return best[1:]


def run(config: Config, run: Run) -> None:
    torch.set_num_threads(config.threads)
    model, tokenizer = open_model("reference", device="cpu")
    sae, observed, cap = choose(config, model, tokenizer, run)
    sets = select(config, observed, cap)
    barred = select(config, observed, None) if config.barred else None
    test = load_corpus("reference", config.languages, split="test")
    table = feature_ablation(
        model,
        tokenizer,
        sae,
        sets,
        test,
        observed=observed,
        barred=barred,
        draws=config.draws,
        max_tokens=config.test_tokens,
        seed=config.seed,
        progress=True,
    )
    others, random, p = ratio_to_others(table), table.ratio(MATCHED), table.p_values(MATCHED)
    holm, own, passed = table.holm(MATCHED), table.own_harm(), specific(table)
    achieved = matched_features(observed, sets, barred=barred, draws=config.draws, seed=config.seed).achieved
    rows = [
        {
            "part": "test",
            "sae": sae.id,
            "site": str(sae.site),
            "cap": cap,
            "language": tag,
            "features": sets.features(tag).tolist(),
            "uncapped": sets.parameters["uncapped"][tag],
            "own_harm": own[tag],
            "ratio_to_others": list(others[tag]),
            "ratio_to_matched": list(random[tag]),
            "p": p[tag],
            "holm_p": holm[tag],
            "specific": passed[tag],
            "achieved": achieved[tag],
            "harm": dict(zip(table.texts, table.relative_harm[row].tolist(), strict=True)),
            "matched_harm": table.drawn_harm(MATCHED)[tag],
            "draws": config.draws,
            "barred": config.barred,
            "tokens": int(table.base[table.column(tag)].tokens.sum()),
            "documents": len(table.base[table.column(tag)].nats),
            "seed": config.seed,
        }
        for row, tag in enumerate(table.languages)
        if sets.sizes[tag]
    ]
    run.log(rows)
    summary = {
        "sae_hash": sae.hash,
        "specific": sum(passed.values()),
        "languages": len(passed),
        "five_times_others": sum(others[tag].estimate >= 5 for tag in passed),
        "five_times_matched": sum(random[tag].estimate >= 5 for tag in random),
        "p_at_most_.05": sum(value <= 0.05 for value in p.values()),
        "hurt_most": sum(table.hurt_most().values()),
    }
    write_atomic(run.folder / "features.json", json.dumps({**summary, "rows": run.results()}, indent=1) + "\n")
    figure = ablation_map(relative_harm=table.relative_harm.numpy(), languages=list(table.languages))
    figure.write_html(run.folder / "figure.html", include_plotlyjs="cdn")


if __name__ == "__main__":
    main(Config, run)
