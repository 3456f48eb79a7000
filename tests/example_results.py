"""A results.json made by hand: fifteen languages, every key, numbers of the size a real run has."""

import functools
import json
from pathlib import Path
from typing import Any

import numpy as np

TAGS = ["en", "de", "fr", "es", "ru", "uk", "zh", "ja", "ar", "hi", "fi", "id", "eu", "cy", "tt"]
TARGETS = TAGS[:12]
ARABIC = "ذهبت إلى السوق 12 صباحا، ثم عدت."
HINDI = "मैं कल बाज़ार गया था।"
CHINESE = "我昨天去了市场。"
JAPANESE = "昨日、市場へ行きました。"
ATTACK = "<script>alert('x')</script> & \"quoted\" \u202e </script>"


def rounded(value: Any) -> Any:
    return np.round(value, 5).tolist()


def example(seed: int = 0) -> dict[str, Any]:
    """A whole results.json: fifteen languages, every optional key, numbers of the size a real run has."""
    rng = np.random.default_rng(seed)
    n = len(TAGS)
    sizes = rng.integers(6, 82, n)
    counts = np.stack([rng.multinomial(size, [0.0, 0.01, 0.02, 0.13, 0.2, 0.28, 0.3, 0.06]) for size in sizes])
    harm = rng.normal(0.0001, 0.0002, (n, n)) + np.diag(rng.gamma(2.0, 0.0015, n))
    harm[5, 4] += 0.002
    harm[13, 13] = 0.0001
    shared = rng.poisson(2, (n, n))
    shared = np.triu(shared, 1) + np.triu(shared, 1).T + np.diag(sizes)
    lift = np.exp(rng.normal(0.5, 1.2, (n, n)))
    lift = np.triu(lift, 1) + np.triu(lift, 1).T
    lift[2, 9] = lift[9, 2] = 0.0
    q = rng.uniform(0, 0.2, (n, n))
    q = np.triu(q, 1) + np.triu(q, 1).T
    success = dict(zip(TARGETS, rng.uniform(0.5, 0.98, 12), strict=True))
    native = {tag: min(0.99, x + 0.08) for tag, x in success.items()}
    return {
        "schema": "babelscope.results/1",
        "languages": list(TAGS),
        "neurons": dict(zip(TAGS, sizes.tolist(), strict=True)),
        "top_rate": 0.05,
        "stability": {
            tag: None if tag == "tt" else [0.42 + 0.02 * at, 0.3 + 0.02 * at, 0.55 + 0.02 * at, 0.012, int(sizes[at])]
            for at, tag in enumerate(TAGS)
        },
        "stability_lead": {
            tag: None if tag == "tt" else [0.3 + 0.02 * at, -0.01 if tag == "id" else 0.2, 0.45 + 0.02 * at]
            for at, tag in enumerate(TAGS)
        },
        "layers": {"counts": counts.tolist()},
        "set_size_interval": {tag: [int(s * 0.8), int(s * 1.25)] for tag, s in zip(TAGS, sizes, strict=True)},
        "ablation": {
            "relative_harm": rounded(harm),
            "relative_harm_to_mean": rounded(harm * 0.6),
            "bits_per_byte": rounded(harm * 2.0),
            "nats_per_token": rounded(harm * 3.1),
            "by_unit": by_unit(harm),
            "parts": {
                "exclusive": {
                    "neurons": {tag: int(size // 4) for tag, size in zip(TAGS, sizes, strict=True)},
                    "relative_harm": rounded(harm * 0.2), "by_unit": by_unit(harm * 0.2),
                    "own_harm": {tag: rounded(harm[k, k] * np.array([0.2, 0.16, 0.26])) for k, tag in enumerate(TAGS)},
                    "layer_matched": {tag: 0.0002 for tag in TAGS}, "p": {tag: 0.05 for tag in TAGS},
                    "p_adjusted": {tag: 0.05 for tag in TAGS}, "tokens": {tag: 250 for tag in TAGS},
                },
                "romanised": {"whole": {tag: [0.002, 0.001, 0.004] for tag in ("ru", "uk", "zh", "ar", "hi", "tt")}},
                "romanised_bits_per_byte": {tag: 3.4 for tag in ("ru", "uk", "zh", "ar", "hi", "tt")},
            },
            "layer_matched": {tag: rounded(rng.normal(0.0003, 0.0002, 19)) for tag in TAGS},
            "contribution_matched": {tag: rounded(rng.normal(0.0012, 0.0005, 19)) for tag in TAGS},
            "p": {tag: [0.05, 0.05 if at % 3 else 0.2] for at, tag in enumerate(TAGS)},
            "p_by_control": {"layer_matched": {tag: 0.05 for tag in TAGS}, "contribution_matched": {}},
            "p_adjusted": {
                "layer_matched": {tag: 0.05 for tag in TAGS},
                "contribution_matched": {tag: 0.05 if at % 3 else 0.2 for at, tag in enumerate(TAGS)},
            },
            "pairing_p": 0.0001,
            "achieved_contribution": {tag: 1.02 for tag in TAGS} | {"cy": 0.83},
            "specificity": {
                tag: rounded([harm[at, at] - 0.0006, harm[at, at] - 0.0012, harm[at, at] - 0.0001])
                for at, tag in enumerate(TAGS)
            },
            "ratio_layer_matched": {tag: [9.1, 6.0, 13.0] for tag in TAGS},
            "ratio_contribution_matched": {tag: [2.2, 1.4, 3.1] for tag in TAGS},
            "documents": {tag: 60 for tag in TAGS},
            "tokens": {tag: 7200 for tag in TAGS},
            "choice": [
                {"top_rate": x, "own_hurt_most": y, "mean_own_harm": z}
                for x, y, z in ((0.02, 8, 0.0005), (0.05, 9, 0.0014), (0.1, 11, 0.0043))
            ],
            "draws": 19,
            "seed": 0,
        },
        "steering": {
            "success": rounded_values(success) | {"tt": None},
            "native": rounded_values(native),
            "unsteered": {tag: 0.01 for tag in TARGETS},
            "random": {tag: 0.02 for tag in TARGETS},
            "other_language": {tag: 0.03 for tag in TARGETS},
            "neuron_arithmetic": {tag: 0.2 for tag in TARGETS},
            "perplexity_ratio": {tag: 1.1 + 0.06 * at for at, tag in enumerate(TARGETS)},
            "perplexity_interval": {
                tag: [round((1.1 + 0.06 * at) / 1.2, 4), round((1.1 + 0.06 * at) * 1.2, 4)]
                for at, tag in enumerate(TARGETS)
            },
            "distinct4_ratio": {tag: 0.97 for tag in TARGETS},
            "success_interval": {
                tag: [round(max(0, x - 0.09), 4), round(min(1, x + 0.06), 4)] for tag, x in success.items()
            },
            "macro": {"success": [0.81, 0.77, 0.84], "native": [0.88, 0.85, 0.91], "unsteered": [0.01, 0.0, 0.02]},
            "n": {tag: 88 for tag in TARGETS},
            "p": {tag: 1e-6 for tag in TARGETS},
            "control_n": {name: {tag: 40 for tag in TARGETS} for name in ("unsteered", "random", "other_language")},
            "layer": 4,
            "strength_unit": "multiple of mean(target) − mean(prompt language)",
            "strength": 1.0,
            "edge": [],
            "neuron_arithmetic_edge": ["strength 4, the highest of 2 tried"],
            "form": "whole",
            "stream": {"unit": 7, "unit_share": 0.04, "first_ratio": 1.8, "left_out": []},
            "receipt": {"generated": {"seen": 2728, "edited": 2728}},
            "chat": None,
            "by_source": {
                "sources": list(TARGETS),
                "targets": list(TARGETS),
                "success": [
                    [None if a == b else round(float(rng.uniform(0.4, 1.0)), 3) for b in TARGETS] for a in TARGETS
                ],
                "n": [[0 if a == b else 20 - (a == "fi") * 15 for b in TARGETS] for a in TARGETS],
            },
            "sweep": [
                {
                    "layer": layer,
                    "strength": strength,
                    "success": round(top * strength / (strength + 0.3), 4),
                    "low": round(top * strength / (strength + 0.3) * 0.92, 4),
                    "high": round(min(1.0, top * strength / (strength + 0.3) * 1.05), 4),
                    "perplexity_ratio": round(0.95 + 0.45 * strength**1.6 + 0.04 * layer, 3),
                    "distinct4_ratio": round(1 - 0.05 * strength, 3),
                    "n": 264,
                }
                for layer, top in ((3, 0.95), (4, 1.02), (5, 0.9))
                for strength in (0.0, 0.25, 0.5, 1.0, 1.5, 2.0)
            ],
            "not_measurable": ["tt"],
            "samples": samples(),
            "seed": 3,
            "temperature": 0.8,
            "new_tokens": 32,
        },
        "controls": {
            "shuffled_labels": {**{tag: {"share_q05": 0.98, "n": 40} for tag in TAGS}, "set_fdr": 0.004, "draws": 199},
            "corpus_size": [
                {"share": share, "language": tag, "jaccard": 0.2 + 0.75 * share**0.5 - 0.01 * at, "chance": 0.013}
                for share in (0.1, 0.25, 0.5, 0.75)
                for at, tag in enumerate(TAGS)
            ],
            "parallel": {tag: {"jaccard": 0.31, "chance": 0.01, "lift": 31.0} for tag in TAGS},
            "script": {
                tag: {
                    "native": 0.92, "romanised": 0.3 + 0.05 * at, "shuffled_words": 0.88, "english": 0.12,
                    "layer_matched": 0.2, "share": 0.75 - 0.06 * at, "romanised_bits_per_byte": 3.21,
                    "low": 0.65 - 0.06 * at, "high": 0.83 - 0.06 * at,
                }
                for at, tag in enumerate(["ru", "uk", "zh", "ar", "hi", "tt"])
            }
            | {tag: {"not_applicable": "written in Latin letters"} for tag in TAGS if tag in "en de fr es fi id eu cy"}
            | {"ja": {"not_applicable": "romanisation reads kanji as Mandarin"}},
            "seed": 7,
            "overlap": {
                "shared": shared.tolist(), "lift_by_margins": rounded(lift), "p_by_margins": rounded(q), "draws": 499,
                **{name: rounded(0.02 * (lift - 1) + shift) for name, shift in (
                    ("lead", 0.0), ("lead_low", -0.01), ("lead_high", 0.01)
                )},
            },
        },
        "model": {
            "name": "babelscope-reference", "family": "llama", "layers": 8, "hidden": 256, "mlp": 704,
            "parameters": 9048320, "model_hash": "3f0c9a4be1d27c55", "tokenizer_hash": "a77b20cd9e0f4413",
        },
        "corpus": {
            "name": "reference", "hash": "51cc8a0e93b2d1f0", "tokens": {tag: 100000 for tag in TAGS} | {"tt": 81234},
            "shortfall": {"tt": 18766}, "licence": "CC BY 4.0",
        },
        "parameters": {
            "filter_rate": 0.95, "min_count": 50, "half_splits": 200, "set_size_resamples": 100, "site": "mlp_gate",
        },
        "identification": {"method": "lape", "filter_rate": 0.95, "min_count": 50},
        "budget": {"observe_tokens": 100000, "resamples": 100},
        "seed": 11,
        "seeds": {"bootstrap": 1, "stability": 2, "overlap": 5, "script": 4},
        "files": ["observation/", "sets/", "directions/", "results.json"],
        "seconds": {"observe": 41.2, "identify": 3.1, "controls": 24.0, "ablate": 118.7, "steer": 96.3, "report": 1.9,
                    "total": 285.2},
        "environment": {"python": "3.11.9", "torch": "2.13.0", "device": "cpu", "threads": 1},
    }  # fmt: skip


def rounded_values(found: dict[str, float]) -> dict[str, Any]:
    return {tag: round(float(x), 4) for tag, x in found.items()}


def samples() -> list[dict[str, Any]]:
    """Right-to-left, Devanagari, CJK, mixed lines, an attack, an empty answer."""

    def sample(target: str, prompt: str, *lines: tuple[str, str | None], source: str = "en") -> dict[str, Any]:
        return {
            "source": source, "target": target, "prompt": prompt, "answer": "\n".join(text for text, _ in lines),
            "lines": [list(line) for line in lines], "recognised": any(tag == target for _, tag in lines),
            "unsteered": f"without steering: {prompt}", "verdict": "right" if lines else "empty",
            "reason": "letters of one language" if lines else "nothing but spaces",
        }  # fmt: skip

    return [
        sample("ar", "Yesterday I went to the market and", (ARABIC, "ar"), ("The market was open. " + ARABIC, "ar")),
        sample("hi", "Yesterday I went to the market and", (HINDI, "hi"), (HINDI + " (market 42)", None)),
        sample("zh", "Last week the weather", (CHINESE, "zh"), (JAPANESE, "ja"), source="en"),
        sample("ja", "Вчера я пошёл на рынок и", (JAPANESE, "ja"), source="ru"),
        sample("ja", "Once upon a time", (CHINESE, "zh")),
        sample("fi", "Once upon a time", ("Eilen menin torille ja ostin kalaa.", "fi"), (ATTACK, None)),
        sample("fi", "Once <b>upon</b> a time"),
        sample("de", ARABIC, ("Gestern war ich auf dem Markt. " * 6, "de"), source="ar"),
    ]


REQUIRED = ("schema", "languages", "neurons", "top_rate", "stability", "ablation", "seconds", "environment")
REQUIRED_INSIDE = {
    "ablation": ("relative_harm", "bits_per_byte", "layer_matched", "contribution_matched", "p"),
    "steering": (
        "success", "native", "unsteered", "random", "perplexity_ratio", "distinct4_ratio", "layer", "strength",
    ),
}  # fmt: skip


def by_unit(harm: np.ndarray) -> dict[str, Any]:
    """Own harm less the largest other in each unit, with an interval."""
    lead = harm.diagonal() - 0.0006
    return {
        unit: {
            "specificity": {
                tag: rounded(scale * np.array([x, x - 0.0006, x + 0.0005])) for tag, x in zip(TAGS, lead, strict=True)
            },
            "own_hurt_most": {tag: bool(x > 0) for tag, x in zip(TAGS, lead, strict=True)},
            "pairing_p": 0.0001,
        }
        for unit, scale in (("relative", 1.0), ("nats_per_token", 3.1), ("bits_per_byte", 2.0))
    }


def minimal() -> dict[str, Any]:
    """The example with nothing in it that is not required."""
    whole = example()
    least = {key: whole[key] for key in REQUIRED}
    for part, keys in REQUIRED_INSIDE.items():
        least[part] = {key: whole[part][key] for key in keys}
    return least


def with_samples() -> dict[str, Any]:
    """The least run with samples."""
    results = minimal()
    results["steering"]["samples"] = samples()
    return results


def save(folder: Path, results: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(json.dumps(results, ensure_ascii=False), encoding="utf-8")
    return folder


def without(path: str) -> dict[str, Any]:
    """The example less one key."""
    results = example()
    *parents, last = path.split(".")
    del functools.reduce(lambda place, key: place[key], parents, results)[last]
    return results
