import base64
import errno
import functools
import html
import itertools
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

from babelscope.errors import ArtifactError, PrerequisiteError, ToolkitError
from babelscope.report import write_report
from babelscope.report.claims import Claim, claims
from babelscope.report.results import read_results

ROOT = Path(__file__).parents[2]
SCHEMA = jsonschema.Draft202012Validator(json.loads((ROOT / "docs/results.schema.json").read_text(encoding="utf-8")))
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
        "layers": {"counts": counts.tolist()},
        "set_size_interval": {tag: [int(s * 0.8), int(s * 1.25)] for tag, s in zip(TAGS, sizes, strict=True)},
        "ablation": {
            "relative_harm": rounded(harm),
            "relative_harm_to_mean": rounded(harm * 0.6),
            "bits_per_byte": rounded(harm * 2.0),
            "layer_matched": {tag: rounded(rng.normal(0.0003, 0.0002, 19)) for tag in TAGS},
            "contribution_matched": {tag: rounded(rng.normal(0.0012, 0.0005, 19)) for tag in TAGS},
            "p": {tag: [0.05, 0.05 if at % 3 else 0.2] for at, tag in enumerate(TAGS)},
            "p_holm": {tag: 0.6 for tag in TAGS},
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
            "distinct4_ratio": {tag: 0.97 for tag in TARGETS},
            "success_interval": {
                tag: [round(max(0, x - 0.09), 4), round(min(1, x + 0.06), 4)] for tag, x in success.items()
            },
            "macro": {"success": [0.81, 0.77, 0.84], "native": [0.88, 0.85, 0.91], "unsteered": [0.01, 0.0, 0.02]},
            "n": {tag: 88 for tag in TARGETS},
            "layer": 4,
            "strength": 1.0,
            "by_source": {
                "sources": list(TARGETS),
                "targets": list(TARGETS),
                "success": [
                    [None if a == b else round(float(rng.uniform(0.4, 1.0)), 3) for b in TARGETS] for a in TARGETS
                ],
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
                    "layer_matched": 0.2, "share": 0.75 - 0.06 * at, "low": 0.65 - 0.06 * at, "high": 0.83 - 0.06 * at,
                }
                for at, tag in enumerate(["ru", "uk", "zh", "ar", "hi", "tt"])
            }
            | {tag: {"not_applicable": "written in Latin letters"} for tag in TAGS if tag in "en de fr es fi id eu cy"}
            | {"ja": {"not_applicable": "romanisation reads kanji as Mandarin"}},
            "overlap": {"shared": shared.tolist(), "lift": rounded(lift), "q": rounded(q)},
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
        "seeds": {"bootstrap": 1, "stability": 2, "overlap": 5, "script": 4},
        "files": ["observation/", "sets/", "directions/", "results.json"],
        "seconds": {"observe": 41.2, "identify": 3.1, "controls": 24.0, "ablate": 118.7, "steer": 96.3, "report": 1.9},
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


REQUIRED = ("schema", "languages", "neurons", "top_rate", "stability", "ablation", "steering", "seconds", "environment")
REQUIRED_INSIDE = {
    "ablation": ("relative_harm", "bits_per_byte", "layer_matched", "contribution_matched", "p"),
    "steering": (
        "success", "native", "unsteered", "random", "perplexity_ratio", "distinct4_ratio", "layer", "strength",
    ),
}  # fmt: skip
VOID = {"meta", "br", "img", "link", "hr", "input"}


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


class Page(HTMLParser):
    """A page taken apart: its elements with their attributes, its text outside of scripts and styles, its data."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.unbalanced: list[str] = []
        self.words: list[str] = []
        self.styles: list[str] = []
        self.plots: dict[str, Any] = {}
        self.spoken: dict[str, dict[str, str | None]] = {}
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.unbalanced.append(tag)

    def handle_data(self, data: str) -> None:
        tag, attributes = self.elements[-1] if self.elements else ("", {})
        if self.open and self.open[-1] == "style":
            self.styles.append(data)
        elif self.open and self.open[-1] == "script":
            if attributes.get("data-plot"):
                self.plots[attributes["data-plot"] or ""] = json.loads(data)
        else:
            self.words.append(data)
            self.spoken[data] = attributes

    @property
    def text(self) -> str:
        return " ".join(self.words)

    def attribute(self, name: str) -> list[str]:
        return [found[name] or "" for _, found in self.elements if name in found]


def read(results: dict[str, Any], folder: Path, **options: Any) -> Page:
    return Page(write_report(save(folder, results), **options).read_text(encoding="utf-8"))


def section(text: str, start: str, end: str) -> str:
    """What lies between two headings."""
    return text.split(start, 1)[1].split(end, 1)[0]


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(save(tmp_path_factory.mktemp("runs") / "first", example()))


@pytest.fixture(scope="module")
def page(page_file: Path) -> Page:
    return Page(page_file.read_text(encoding="utf-8"))


def test_page_lies_in_the_run_folder_and_nothing_else_is_left_there(page_file: Path) -> None:
    assert sorted(file.name for file in page_file.parent.iterdir()) == ["report.html", "results.json"]


def test_elements_are_balanced_and_ids_are_unique(page: Page) -> None:
    assert page.unbalanced == []
    assert page.open == []
    ids = page.attribute("id")
    assert len(ids) == len(set(ids))


def test_every_link_leads_to_a_place_on_the_page(page: Page) -> None:
    ids = page.attribute("id")
    links = page.attribute("href")
    assert len(links) == 11
    assert all(link.startswith("#") and link[1:] in ids for link in links)


def test_page_asks_no_host_for_anything(page: Page) -> None:
    assert [tag for tag, _ in page.elements if tag in {"link", "img", "iframe", "object", "embed", "base"}] == []
    assert page.attribute("src") == page.attribute("srcset") == []
    assert not re.search(r"@import|url\(", "".join(page.styles))
    policy = next(
        found["content"] for _, found in page.elements if found.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy is not None
    assert "default-src 'none'" in policy
    assert "http" not in policy
    assert "http" not in "".join(page.styles)


def test_plotly_is_in_the_page_once(page_file: Path) -> None:
    assert page_file.read_text(encoding="utf-8").count("* plotly.js v") == 1


def test_page_has_every_figure_with_a_description(page: Page) -> None:
    names = {
        "neurons-1", "neurons-2", "overlap-1", "stability-1", "stability-2", "harm-1", "draws-1", "mean-1", "dose-1",
        "targets-1", "sources-1", "script-1", "script-2",
    }  # fmt: skip
    assert set(page.plots) == {f"run1-{name}" for name in names}
    boxes = [found for _, found in page.elements if found.get("class") == "plot"]
    assert {box["id"] for box in boxes} == set(page.plots)
    assert all(box["aria-label"] for box in boxes)


def test_every_caption_says_n_control_seed_and_unit(page_file: Path) -> None:
    captions = re.findall(r"<figcaption>.*?</figcaption>", page_file.read_text(encoding="utf-8"), re.DOTALL)
    assert len(captions) == 10
    for caption in captions:
        assert re.findall(r"<dt>(.*?)</dt>", caption) == ["n", "control", "seed", "unit"]
        assert "<dd></dd>" not in caption


def drawn(page: Page, name: str) -> dict[str, Any]:
    """A figure's data and layout, its arrays unpacked."""

    def unpack(value: Any) -> Any:
        if isinstance(value, dict) and "bdata" in value:
            flat = np.frombuffer(base64.b64decode(value["bdata"]), dtype=value["dtype"])
            return flat.reshape([int(size) for size in value["shape"].split(",")] if "shape" in value else -1).tolist()
        if isinstance(value, dict):
            return {key: unpack(item) for key, item in value.items()}
        return [unpack(item) for item in value] if isinstance(value, list) else value

    return unpack(page.plots[name])


def heat_cell(page: Page, name: str, row: str, column: str) -> float:
    heat = drawn(page, name)["data"][0]
    return heat["z"][heat["y"].index(row)][heat["x"].index(column)]


def test_maps_of_the_page_have_sets_and_prompts_in_rows(page: Page) -> None:
    results = example()
    harm = results["ablation"]["relative_harm"]
    assert heat_cell(page, "run1-harm-1", "Ukrainian (uk)", "Russian (ru)") == pytest.approx(100 * harm[5][4])
    assert harm[5][4] != harm[4][5]
    to_mean = results["ablation"]["relative_harm_to_mean"]
    assert heat_cell(page, "run1-mean-1", "Ukrainian (uk)", "Russian (ru)") == pytest.approx(100 * to_mean[5][4])
    success = results["steering"]["by_source"]["success"]
    assert heat_cell(page, "run1-sources-1", "Finnish (fi)", "Arabic (ar)") == pytest.approx(100 * success[10][8])
    assert success[10][8] != success[8][10]
    counts = results["layers"]["counts"]
    assert heat_cell(page, "run1-neurons-1", "Tatar (tt)", "5") == counts[14][5]


def test_numbers_of_a_figure_stand_in_a_table_too(page_file: Path) -> None:
    harm = example()["ablation"]["relative_harm"]
    written = section(page_file.read_text(encoding="utf-8"), 'data-plot="run1-harm-1"', "</details>")
    row = re.search(r'<th scope="row">Ukrainian <small>uk</small></th>(.*?)</tr>', written)
    assert row is not None
    cells = re.findall(r"<td>(.*?)</td>", row[1])
    assert len(cells) == 15
    assert float(cells[4].replace("−", "-")) == pytest.approx(100 * harm[5][4], abs=0.001)


def test_summary_says_which_findings_hold_and_where_they_do_not(page: Page) -> None:
    summary = section(page.text, "Which findings hold", "The evidence by language")
    own = section(summary, "Switching a set off harms its own language most", "A set harms its language more")
    specificity = example()["ablation"]["specificity"]
    failing = [tag for tag, (_, low, _) in specificity.items() if low <= 0]
    assert 0 < len(failing) < 15
    assert f"{15 - len(failing)} of 15 languages" in own
    assert "holds in part" in own
    assert "Welsh" in own
    contribution = section(summary, "layers and contribution do", "Adding the direction")
    assert "10 of 15 languages" in contribution
    assert "not in English, Spanish, Chinese, Hindi and Basque" in contribution
    steering = section(summary, "Adding the direction", "Steered answers")
    assert "12 of 12 languages" in steering
    assert "81\u202f% [77, 84]" in steering


def claim(results: dict[str, Any], folder: Path, title: str) -> Claim:
    """The one finding whose title begins like this."""
    (found,) = [one for one in claims(read_results(save(folder, results))) if one.title.startswith(title)]
    return found


def test_finding_that_fails_everywhere_is_said_not_to_hold(tmp_path: Path) -> None:
    results = minimal()
    results["ablation"]["specificity"] = {tag: [0.001, -0.001, 0.003] for tag in TAGS}
    own = claim(results, tmp_path, "Switching a set off")
    assert (own.verdict, own.tally) == ("does not hold", "0 of 15 languages")


def test_finding_without_an_interval_has_no_verdict(tmp_path: Path) -> None:
    own = claim(minimal(), tmp_path, "Switching a set off")
    assert (own.verdict, own.tally) == ("no test", "")
    assert own.result == "own language hurt most in 13 of 15; no interval in this run"


def test_harm_to_all_languages_alike_is_not_most_to_the_own_one(tmp_path: Path) -> None:
    results = minimal()
    results["ablation"]["relative_harm"] = [[0.001] * 15 for _ in TAGS]
    assert "own language hurt most in 0 of 15" in claim(results, tmp_path, "Switching a set off").result


def test_p_of_nineteen_draws_counts_and_one_above_does_not(tmp_path: Path) -> None:
    results = minimal()
    results["ablation"]["p"] = {tag: 1 / 20 for tag in TAGS[:5]} | {"uk": 1 / 19, "zh": [None, 1 / 20]}
    layer = claim(results, tmp_path, "A set harms its language more than random neurons of the same layers do")
    assert (layer.holds, layer.fails) == (tuple(TAGS[:5]), ("uk",))
    assert (layer.verdict, layer.tally) == ("holds in part", "5 of 6 languages")
    contribution = claim(results, tmp_path, "A set harms its language more than random neurons of the same layers and")
    assert (contribution.holds, contribution.fails, contribution.verdict) == (("zh",), (), "holds")


def test_steering_has_to_beat_the_strongest_of_its_controls(tmp_path: Path) -> None:
    results = minimal()
    results["steering"] |= {
        "success": {"fi": 0.6, "ar": 0.6, "de": 0.6},
        "success_interval": {"fi": [0.5, 0.7], "ar": [0.5, 0.7]},
        "unsteered": {"fi": 0.0, "ar": 0.0, "de": 0.0},
        "random": {"fi": 0.1, "ar": 0.1},
        "other_language": {"fi": 0.49, "ar": 0.5},
    }
    steers = claim(results, tmp_path, "Adding the direction")
    assert (steers.holds, steers.fails) == (("fi",), ("ar",))


def test_fluency_needs_both_perplexity_and_distinct_words(tmp_path: Path) -> None:
    results = minimal()
    results["steering"]["perplexity_ratio"] = {"en": 1.5, "fi": 1.51, "ar": 0.66, "de": 1.0, "fr": 1.0}
    results["steering"]["distinct4_ratio"] = {"en": 0.8, "fi": 1.0, "ar": 1.0, "de": 0.79}
    fluent = claim(results, tmp_path, "Steered answers")
    assert (fluent.holds, fluent.fails) == (("en",), ("de", "ar", "fi"))


def test_overlap_counts_each_pair_once(tmp_path: Path) -> None:
    results = minimal()
    three = {"languages": ["en", "fi", "ar"], "neurons": {"en": 1, "fi": 1, "ar": 1}, "stability": {}}
    square = [[0.0, 0.0, 0.0]] * 3
    results |= three | {"controls": {"overlap": {
        "shared": [[1, 1, 1]] * 3,
        "lift": [[None, 2.0, 2.0], [2.0, None, 0.5], [2.0, 0.5, None]],
        "q": [[0.0, 0.01, 0.2], [0.01, 0.0, 0.01], [0.2, 0.01, 0.0]],
    }}}  # fmt: skip
    results["ablation"] = {"relative_harm": square, "bits_per_byte": square} | dict.fromkeys(
        ("layer_matched", "contribution_matched", "p"), {}
    )
    results["steering"] |= {key: {} for key in REQUIRED_INSIDE["steering"][:6]}
    overlap = claim(results, tmp_path, "Two languages share")
    assert (overlap.holds, overlap.fails) == (("en–fi",), ("en–ar", "fi–ar"))
    assert overlap.tally == "1 of 3 pairs"


def test_limits_are_on_the_page(page: Page) -> None:
    limits = page.text.rsplit("What these numbers do not say", 1)[1]
    for said in (
        "Selective is not causal.",
        "Shuffled labels are no evidence of specificity.",
        "no p-value can be smaller than 0.05",
        "Less text than asked for: Tatar",
        "Steering into Tatar could not be measured",
        "fewer than 10 neurons: Ukrainian and Japanese",
    ):
        assert said in limits


def test_card_has_hashes_seeds_seconds_environment_and_files(page: Page) -> None:
    for said in (
        "3f0c9a4be1d27c55",
        "51cc8a0e93b2d1f0",
        "81\u202f234",
        "118.7",
        "285.2",
        "2.13.0",
        "observation/",
        "0.95",
    ):
        assert said in page.text


def test_samples_keep_their_script_language_and_direction(page: Page) -> None:
    for words, tag in ((ARABIC, "ar"), (HINDI, "hi"), (CHINESE, "zh"), (JAPANESE, "ja")):
        assert page.spoken[words]["lang"] == tag
        assert page.spoken[words]["dir"] == "auto"
    mixed = "The market was open. " + ARABIC
    assert page.spoken[mixed] == {"lang": "ar", "dir": "auto"}
    assert page.spoken[HINDI + " (market 42)"]["lang"] == ""
    assert "(empty answer)" in page.words


def test_every_line_of_an_answer_has_the_badge_of_its_language(page_file: Path) -> None:
    text = page_file.read_text(encoding="utf-8")
    badges = re.findall(r'class="badge (\w+)" title="([^"]*)">([^<]+)<', text)
    assert ("target", "detected: Arabic", "ar") in badges
    assert ("other", "detected: Japanese", "ja") in badges
    assert ("unknown", "no language detected", "?") in badges
    assert len(badges) == 11


def test_sample_text_is_escaped_and_forbidden_characters_are_replaced(tmp_path: Path) -> None:
    results = with_samples()
    results["steering"]["samples"][0]["prompt"] = ATTACK + "\x00\x07end"
    results["model"] = {"name": "<img src=x onerror=alert(1)>"}
    results["environment"]["<b>key</b>"] = "<i>value</i>"
    page = read(results, tmp_path)
    assert page.attribute("onerror") == []
    assert ATTACK + "\ufffd\ufffdend" in page.words
    assert not {"img", "b", "i"} & {tag for tag, _ in page.elements}
    assert sum(tag == "script" for tag, _ in page.elements) == len(page.plots) + 3 + 2


def test_half_a_surrogate_pair_does_not_stop_the_page(tmp_path: Path) -> None:
    results = json.dumps(with_samples()).replace("Once upon", r"A\ud83d \ud83d\ude00 \\ud83d upon")
    tmp_path.joinpath("results.json").write_text(results, encoding="utf-8")
    words = Page(write_report(tmp_path).read_text(encoding="utf-8")).words
    assert "A\ufffd \U0001f600 \\ud83d upon a time" in words


def test_without_samples_no_sample_text_is_in_the_page(tmp_path: Path) -> None:
    text = write_report(save(tmp_path, with_samples()), include_samples=False).read_text(encoding="utf-8")
    for sample in samples():
        for part in (sample["prompt"], sample["answer"], *(line for line, _ in sample["lines"])):
            assert not part or (part not in text and html.escape(part) not in text)
    assert "Left out of this page on request." in text


def test_more_samples_than_fit_are_counted(tmp_path: Path) -> None:
    results = with_samples()
    results["steering"]["samples"] = [
        {"source": "en", "target": "fi", "prompt": f"prompt {at}", "answer": "vastaus", "recognised": at < 5}
        for at in range(9)
    ]
    page = read(results, tmp_path)
    assert "To Finnish (fi), 5 of 9 recognised, first 4 of 9" in page.words
    assert {f"prompt {at}" in page.words for at in range(4)} == {True}
    assert "prompt 4" not in page.words


OPTIONAL_PARTS = (
    "Neurons by layer",
    "Bootstrap intervals of the set sizes",
    "Overlap between languages",
    "Agreement by size of the corpus",
    "Agreement with sets from parallel text",
    "Shuffled labels",
    "Script control",
    "Switching off to the mean instead of 0",
    "How the selected share was chosen",
    "Dose–response",
    "Success by language of the prompt",
    "Sample answers",
    "Model",
    "Corpus",
    "Files",
)


def test_page_of_a_complete_run_misses_nothing(page: Page) -> None:
    assert "missing" not in page.attribute("class")


def test_least_run_is_drawn_and_names_every_part_it_lacks(tmp_path: Path) -> None:
    page = read(minimal(), tmp_path)
    assert page.unbalanced == []
    assert set(page.plots) == {f"run1-{name}-1" for name in ("neurons", "stability", "harm", "draws", "targets")}
    said = list(itertools.pairwise(page.words))
    for name in OPTIONAL_PARTS:
        assert (name, ": not measured in this run.") in said
    assert "not recorded" in page.text


def test_run_in_which_everything_is_undefined_is_still_drawn(tmp_path: Path) -> None:
    results = minimal()
    results["stability"] = results["ablation"]["p"] = results["ablation"]["layer_matched"] = {}
    results["ablation"]["relative_harm"] = [[None] * 15 for _ in TAGS]
    for key in ("success", "native", "unsteered", "random", "perplexity_ratio", "distinct4_ratio"):
        results["steering"][key] = {tag: None for tag in TAGS}
    page = read(results, tmp_path)
    summary = section(page.text, "Which findings hold", "The evidence by language")
    assert summary.count("not measured in this run") == 8
    assert "nan" not in page.text.lower().split()


def test_several_runs_have_a_section_each_on_one_page(tmp_path: Path) -> None:
    folders = [save(tmp_path / "one", with_samples()), save(tmp_path / "two", minimal())]
    out = tmp_path / "pages" / "both.html"
    assert write_report(folders, out=out) == out
    text = out.read_text(encoding="utf-8")
    page = Page(text)
    ids = page.attribute("id")
    assert page.unbalanced == []
    assert len(ids) == len(set(ids))
    assert {"run1", "run2", "run1-summary", "run2-summary", "run2-harm-1"} <= set(ids)
    assert text.count("* plotly.js v") == 1
    assert page.words.count("What these numbers do not say") == 2
    assert not (tmp_path / "one" / "report.html").exists()


def test_same_results_make_the_same_page_in_the_place_of_an_old_one(page_file: Path, tmp_path: Path) -> None:
    folder = save(tmp_path / "first", example())
    folder.joinpath("report.html").write_text("old", encoding="utf-8")
    assert write_report([folder]).read_bytes() == page_file.read_bytes()


def test_page_that_can_not_be_written_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    folder = save(tmp_path / "run", with_samples())
    tmp_path.joinpath("file").write_text("", encoding="utf-8")
    with pytest.raises(PrerequisiteError, match=r"could not be written"):
        write_report(folder, out=tmp_path / "file" / "report.html")
    with pytest.raises(ArtifactError, match=r"is a folder.*add report\.html"):
        write_report(folder, out=tmp_path)
    assert sorted(file.name for file in folder.iterdir()) == ["results.json"]


def test_write_that_breaks_off_leaves_the_old_page_and_no_piece_of_the_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save(tmp_path, minimal())
    folder.joinpath("report.html").write_text("old", encoding="utf-8")

    def full(path: Path, target: Path) -> Path:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(PrerequisiteError, match="the disk is full"):
        write_report(folder)
    assert sorted(file.name for file in folder.iterdir()) == ["report.html", "results.json"]
    assert folder.joinpath("report.html").read_text(encoding="utf-8") == "old"


def message(folder: Path) -> str:
    with pytest.raises(ToolkitError) as caught:
        write_report(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_missing_or_foreign_results_are_one_clear_line(tmp_path: Path) -> None:
    assert "has no results.json" in message(tmp_path)
    assert "has no results.json" in message(tmp_path / "nowhere")
    tmp_path.joinpath("results.json").write_text("{", encoding="utf-8")
    assert "is no readable JSON" in message(tmp_path)
    tmp_path.joinpath("results.json").write_bytes(b"\xff\xfe{")
    assert "is no readable JSON" in message(tmp_path)
    tmp_path.joinpath("results.json").write_text('{"top_rate": NaN}', encoding="utf-8")
    assert "NaN is no JSON number" in message(tmp_path)
    tmp_path.joinpath("results.json").write_text("[" * 100_000, encoding="utf-8")
    assert "is no readable JSON" in message(tmp_path)
    assert "schema None; expected 'babelscope.results/1'" in message(save(tmp_path, [1]))
    assert "schema 'babelscope.results/2'" in message(save(tmp_path, {"schema": "babelscope.results/2"}))
    with pytest.raises(ArtifactError, match=r"no run folder came"):
        write_report([])


@pytest.mark.parametrize("key", REQUIRED[1:])
def test_required_key_that_is_missing_is_named(key: str, tmp_path: Path) -> None:
    assert f"{key} is missing" in message(save(tmp_path, without(key)))


@pytest.mark.parametrize(("part", "key"), [(part, key) for part, keys in REQUIRED_INSIDE.items() for key in keys])
def test_required_key_inside_a_part_that_is_missing_is_named(part: str, key: str, tmp_path: Path) -> None:
    assert f"{part}.{key} is missing" in message(save(tmp_path, without(f"{part}.{key}")))


def test_all_faults_are_reported_at_once_and_many_are_counted(tmp_path: Path) -> None:
    results = example()
    del results["top_rate"]
    results["ablation"]["draws"] = "nineteen"
    said = message(save(tmp_path, results))
    assert "top_rate is missing" in said
    assert 'ablation.draws is "nineteen", not a number' in said
    results["neurons"] = {}
    assert re.search(r"neurons\.en is missing.*; and 11 more;", message(save(tmp_path, results)))


def put(results: dict[str, Any], path: str, value: Any) -> None:
    *parents, last = path.split("/")
    place: Any = results
    for key in parents:
        place = place[int(key) if key.isdigit() else key]
    place[int(last) if last.isdigit() else last] = value


WRONG = {
    "languages": [],
    "languages/0": "de",
    "neurons/en": "many",
    "neurons": [1],
    "top_rate": True,
    "stability/en": [0.1, 0.2],
    "layers": {},
    "set_size_interval/en": [1],
    "ablation": None,
    "ablation/relative_harm": [],
    "ablation/relative_harm/3/2": "0.1",
    "ablation/layer_matched/en": 0.1,
    "ablation/p/en": [0.1, 0.2, 0.3],
    "ablation/specificity/en": [0.1, 0.2],
    "ablation/choice/0": {},
    "steering/success/en": "high",
    "steering/layer": "four",
    "steering/macro/success": [1],
    "steering/by_source": {"sources": ["en"]},
    "steering/sweep/0": {"layer": 3},
    "steering/samples/0/prompt": None,
    "steering/samples/0/lines/0": ["text"],
    "steering/samples/0/lines/0/1": 4,
    "steering/samples/0/recognised": "yes",
    "steering/not_measurable": "tt",
    "controls": [],
    "controls/shuffled_labels/draws": "many",
    "controls/shuffled_labels/en": {"n": 3},
    "controls/corpus_size/0": {"share": 0.1, "language": "en"},
    "controls/parallel/en": {},
    "controls/script/ru": {"native": 0.1},
    "controls/script/en": {"not_applicable": 3},
    "controls/overlap": {"shared": [[1]]},
    "model": "a model",
    "corpus/tokens": 3,
    "parameters": 3,
    "seeds/script": "four",
    "files": [1],
    "seconds/observe": "long",
    "environment": None,
}


@pytest.mark.parametrize(("path", "value"), WRONG.items())
def test_reader_and_schema_both_refuse(path: str, value: Any, tmp_path: Path) -> None:
    results = example()
    put(results, path, value)
    assert not SCHEMA.is_valid(results)
    message(save(tmp_path, results))


ONLY_READER: dict[str, Callable[[dict[str, Any]], None]] = {
    "unknown tag": lambda results: put(results, "languages/14", "qqq"),
    "tag that is no canonical one": lambda results: put(results, "languages/14", "TT"),
    "key of another language": lambda results: put(results, "neurons/sw", 3),
    "row too few": lambda results: results["ablation"]["relative_harm"].pop(),
    "column too few": lambda results: [row.pop() for row in results["ablation"]["bits_per_byte"]][:0],
    "ragged rows": lambda results: results["layers"]["counts"][2].pop(),
    "rows that are no sources": lambda results: results["steering"]["by_source"]["sources"].pop(),
    "infinity": lambda results: put(results, "top_rate", 10**400),
}


@pytest.mark.parametrize("name", ONLY_READER)
def test_reader_refuses_what_a_schema_can_not_see(name: str, tmp_path: Path) -> None:
    results = example()
    ONLY_READER[name](results)
    message(save(tmp_path, results))


def test_schema_is_a_schema_and_accepts_the_whole_and_the_least() -> None:
    SCHEMA.check_schema(SCHEMA.schema)
    SCHEMA.validate(example())
    SCHEMA.validate(minimal())


def described(schema: dict[str, Any]) -> list[str]:
    """Names of properties that have no description, anywhere."""
    bare = []
    for key, inner in schema.items():
        if key == "properties":
            bare += [name for name, found in inner.items() if not {"description", "$ref", "anyOf"} & set(found)]
        if isinstance(inner, dict):
            bare += described(inner)
        elif isinstance(inner, list):
            bare += [name for item in inner if isinstance(item, dict) for name in described(item)]
    return bare


def test_every_key_of_the_schema_is_described() -> None:
    assert described(dict(SCHEMA.schema)) == []
    assert set(example()) == set(SCHEMA.schema["properties"])
    for part in ("ablation", "steering"):
        assert set(example()[part]) == set(SCHEMA.schema["properties"][part]["properties"])


BROWSER = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), ""
)


@pytest.mark.browser
@pytest.mark.skipif(not BROWSER, reason="no chromium, chromium-browser or google-chrome on the PATH")
def test_browser_draws_every_figure_and_keeps_every_script(page_file: Path, tmp_path: Path) -> None:
    flags = [
        "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
        "--disable-background-networking", "--disable-component-update", f"--user-data-dir={tmp_path / 'profile'}",
        "--enable-logging=stderr", "--window-size=1200,900", "--virtual-time-budget=20000", "--dump-dom",
    ]  # fmt: skip
    done = subprocess.run(
        [BROWSER, *flags, page_file.as_uri()], capture_output=True, text=True, timeout=120, check=True
    )
    page = Page(done.stdout)
    assert [line for line in done.stderr.splitlines() if "CONSOLE" in line] == []
    boxes = re.split(r'<div id="(run1-[a-z]+-\d)"', done.stdout)
    figures = dict(zip(boxes[1::2], boxes[2::2], strict=True))
    assert len(figures) == 13
    assert [name for name in page.attribute("class") if "failed" in name] == []
    for name, inside in figures.items():
        assert 'class="main-svg"' in inside, name
        assert re.search(r'class="(hm|trace scatter|trace bars)', inside), name
    assert ">Ukrainian (uk)<" in figures["run1-harm-1"]
    for words in (ARABIC, HINDI, CHINESE, JAPANESE, "The market was open. " + ARABIC, ATTACK):
        assert words in page.words
