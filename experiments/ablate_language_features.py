"""Does taking a language's few best features out of the stream hurt that language, and no other?

LangFIR features of the given autoencoders, at most `caps` a language, by rate ratio. The span of their decoder rows is
projected out; harm is the relative rise of the negative log-likelihood, on every language's text.
Controls: the other eleven languages' text, and random features on the own text, `draws` times, of three kinds:
- matched: as many, each among the ten nearest in firing rate, decoder norm and energy that no language's set has;
- barred: the same, but of none that the rule selects for any language before the cap, so that a language's next best
  features are not among its controls;
- loud: like matched, but as many as it takes to write as much energy, or all that there are. A language's features may
  be louder than all others, and then no control of as many features is matched: read this one first.
Autoencoder, cap and tau are chosen on validation text: most languages in which own harm is five times both the mean
absolute harm of the other texts and that of matched features; at a tie, the setting whose controls come nearest in
energy, which is the harder one. One table is then measured on test text, once.
A language counts as specific where own harm is at least five times both and its rank p among the draws is at most .05;
fewer than ten of twelve counts against the claim. Sentences are resampled for intervals; one seed of features, because
the autoencoders are given.
"""

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import torch

from babelscope import load_corpus, open_model
from babelscope.ablation.features import MATCHED, feature_ablation, ratio_to_others, specific
from babelscope.errors import SelectionError
from babelscope.features import (
    FeatureObservation,
    FeatureSet,
    LoadedSAE,
    load_sae,
    loud_features,
    matched_features,
    observe_features,
    select_langfir,
)
from babelscope.figures import ablation_map
from babelscope.runs import Run, environment, main, write_atomic

MAIN = ("en", "de", "fr", "es", "ru", "uk", "zh", "ja", "ar", "hi", "fi", "id")
BARRED, LOUD = "feature_matched_barred", "feature_loud"
CONTROLS = (MATCHED, BARRED, LOUD)
TIMES = 5.0


@dataclass(frozen=True)
class Config:
    saes: tuple[str, ...] = ("reference", "reference-coarse")
    """Autoencoders to choose from: bundled ones by name, or folders of sae-lens."""
    caps: tuple[int, ...] = (10, 5)
    """Features a language at most, to choose from."""
    taus: tuple[float, ...] = (0.9, 0.5)
    """Share of the language's sentences in which a feature is present, to choose from."""
    ratio: float = 3.0
    min_count: int = 20
    """Tokens of the language on which a feature fired at least."""
    tokens: int = 3_000
    """Tokens a language from which features are selected, of the bundled training sentences."""
    sequences: int = 128
    """Random sequences of 64 tokens."""
    valid_tokens: int = 250
    """Scored tokens a language on which the setting is chosen."""
    valid_draws: int = 4
    test_tokens: int = 500
    """Scored tokens a language of the final table."""
    draws: int = 19
    languages: tuple[str, ...] = MAIN
    threads: int = 1
    seed: int = 0


class Setting(NamedTuple):
    """One way to choose features."""

    sae: LoadedSAE
    observed: FeatureObservation
    tau: float
    cap: int

    def select(self, config: Config, *, capped: bool = True) -> FeatureSet:
        given = {"tau": self.tau, "ratio": config.ratio, "min_count": config.min_count}
        return select_langfir(self.observed, **given, cap=self.cap if capped else None)

    @property
    def key(self) -> tuple[str, float, int]:
        return self.sae.hash, self.tau, self.cap


def on_validation_text(config: Config, setting: Setting, model, tokenizer) -> dict:
    """A setting's row; where no control could be drawn it says why, and no language passes."""
    row = {
        "part": "valid",
        "sae": setting.sae.id,
        "sae_hash": setting.sae.hash,
        "site": str(setting.sae.site),
        "features": setting.sae.n_features,
        "tau": setting.tau,
        "cap": setting.cap,
    }
    valid = load_corpus("reference", config.languages, split="valid")
    try:
        sets = with_features(setting.select(config))
        drawn = {"draws": config.valid_draws, "seed": config.seed}
        given = {**drawn, "observed": setting.observed, "max_tokens": config.valid_tokens}
        table = feature_ablation(model, tokenizer, setting.sae, sets, valid, **given)
        match = matched_features(setting.observed, sets, **drawn).achieved
    except SelectionError as err:
        return {**row, "passed": 0, "miss": math.inf, "why": str(err)}
    others, random = ratio_to_others(table), table.ratio(MATCHED)
    energy = {tag: found["energy"] for tag, found in match.items()}
    return {
        **row,
        "passed": sum(others[tag].estimate >= TIMES and random[tag].estimate >= TIMES for tag in random),
        "miss": sum(abs(math.log(value)) for value in energy.values()) / len(energy),
        "own_harm": table.own_harm(),
        "ratio_to_others": {tag: found.estimate for tag, found in others.items()},
        "ratio_to_matched": {tag: found.estimate for tag, found in random.items()},
        "energy_of_matched": energy,
    }


def with_features(sets: FeatureSet) -> FeatureSet:
    """The languages that have a feature; raises SelectionError where none has."""
    if not len(sets.indices):
        raise SelectionError("no language has a feature; expected some; lower tau or the ratio")
    return sets.only(tag for tag, size in sets.sizes.items() if size)


def choose(config: Config, model, tokenizer, run: Run) -> Setting:
    """The setting that does best on validation text; what was measured already is not measured again."""
    texts = load_corpus("reference", config.languages, split="train")
    known = {(row["sae_hash"], row["tau"], row["cap"]): row for row in run.results() if row["part"] == "valid"}
    tried: list[tuple[tuple[int, float], Setting]] = []
    for source in config.saes:
        sae = load_sae(source, model=model)
        drawn = {"random_sequences": config.sequences, "seed": config.seed}
        observed = observe_features(model, tokenizer, texts, sae, tokens_per_language=config.tokens, shards=24, **drawn)
        for setting in (Setting(sae, observed, tau, cap) for tau in config.taus for cap in config.caps):
            if setting.key not in known:
                known[setting.key] = on_validation_text(config, setting, model, tokenizer)
                run.log([known[setting.key]])
            row = known[setting.key]
            tried.append(((row["passed"], -row["miss"]), setting))
    return max(tried, key=lambda entry: entry[0])[1]


def on_test_text(config: Config, setting: Setting, model, tokenizer):
    """The table of the chosen setting with all three controls, and how near each control came."""
    sets, every = with_features(setting.select(config)), setting.select(config, capped=False)
    drawn = {"draws": config.draws, "seed": config.seed}
    matched = matched_features(setting.observed, sets, **drawn)
    barred = matched_features(setting.observed, sets, barred=every, **drawn)
    loud = loud_features(setting.observed, sets, **drawn)
    further = {BARRED: {tag: list(rows) for tag, rows in barred.features.items()}, LOUD: loud.features}
    test = load_corpus("reference", config.languages, split="test")
    given = {**drawn, "observed": setting.observed, "further": further, "max_tokens": config.test_tokens}
    table = feature_ablation(model, tokenizer, setting.sae, sets, test, **given, progress=True)
    return sets, table, {MATCHED: matched.achieved, BARRED: barred.achieved, LOUD: loud.achieved}


def test_rows(config: Config, setting: Setting, sets: FeatureSet, table, achieved) -> list[dict]:
    others, own, most = ratio_to_others(table), table.own_harm(), table.hurt_most()
    by_control = {
        name: (table.ratio(name), table.p_values(name), table.holm(name), specific(table, control=name))
        for name in CONTROLS
    }
    return [
        {
            "part": "test",
            "sae": setting.sae.id,
            "site": str(setting.sae.site),
            "tau": setting.tau,
            "cap": setting.cap,
            "language": tag,
            "features": sets.features(tag).tolist(),
            "uncapped": sets.parameters["uncapped"][tag],
            "own_harm": own[tag],
            "hurt_most": most[tag],
            "ratio_to_others": list(others[tag]),
            "harm": dict(zip(table.texts, table.relative_harm[row].tolist(), strict=True)),
            "controls": {
                name: {
                    "ratio": list(ratio[tag]),
                    "p": p[tag],
                    "holm_p": holm[tag],
                    "specific": passed[tag],
                    "achieved": achieved[name][tag],
                    "harm": table.drawn_harm(name)[tag],
                }
                for name, (ratio, p, holm, passed) in by_control.items()
            },
            "tokens": int(table.base[table.column(tag)].tokens.sum()),
            "documents": len(table.base[table.column(tag)].nats),
            "draws": config.draws,
            "seed": config.seed,
        }
        for row, tag in enumerate(table.languages)
    ]


def mean(values) -> float:
    found = list(values)
    return sum(found) / len(found)


def summary(config: Config, rows: list[dict]) -> dict:
    """In how many languages each bar is passed, by control, and how near the control came on average."""
    controls = {}
    for name in CONTROLS:
        found = [row["controls"][name] for row in rows]
        controls[name] = {
            "five_times_matched": sum(one["ratio"][0] >= TIMES for one in found),
            "p_at_most_.05": sum(one["p"] <= 0.05 for one in found),
            "specific": sum(one["specific"] for one in found),
            "median_ratio": sorted(one["ratio"][0] for one in found)[len(found) // 2],
            "achieved": {key: mean(one["achieved"][key] for one in found) for key in found[0]["achieved"]},
        }
    return {
        "languages": len(config.languages),
        "hurt_most": sum(row["hurt_most"] for row in rows),
        "five_times_others": sum(row["ratio_to_others"][0] >= TIMES for row in rows),
        "mean_own_harm": mean(row["own_harm"] for row in rows),
        "controls": controls,
    }


def run(config: Config, run: Run) -> None:
    torch.set_num_threads(config.threads)
    model, tokenizer = open_model("reference", device="cpu")
    setting = choose(config, model, tokenizer, run)
    rows = [row for row in run.results() if row["part"] == "test"]
    if not rows:
        sets, table, achieved = on_test_text(config, setting, model, tokenizer)
        rows = test_rows(config, setting, sets, table, achieved)
        run.log(rows)
        figure = ablation_map(relative_harm=table.relative_harm.numpy(), languages=list(table.languages))
        figure.write_html(run.folder / "figure.html", include_plotlyjs="cdn")
    chosen = {"sae": setting.sae.id, "sae_hash": setting.sae.hash, "site": str(setting.sae.site)}
    facts = {"config": {**asdict(config), "saes": [Path(source).name for source in config.saes]}}
    found = {
        **facts,
        "environment": environment(),
        "chosen": {**chosen, "tau": setting.tau, "cap": setting.cap},
        "test": summary(config, rows),
        "rows": run.results(),
    }
    write_atomic(run.folder / "features.json", json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main(Config, run)
