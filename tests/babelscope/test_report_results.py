"""What a results.json may hold, and what is concluded from it."""

import html
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from example_results import REQUIRED, REQUIRED_INSIDE, TAGS, example, minimal, save, without

from babelscope.errors import ArtifactError, ToolkitError
from babelscope.report import write_report
from babelscope.report.claim_form import Claim
from babelscope.report.claims import claims
from babelscope.report.results import read_results
from babelscope.report.summary import model_name

ROOT = Path(__file__).parents[2]
SCHEMA = jsonschema.Draft202012Validator(json.loads((ROOT / "docs/results.schema.json").read_text(encoding="utf-8")))


def claim(results: dict[str, Any], folder: Path, title: str) -> Claim:
    """The one finding whose title begins like this."""
    (found,) = [one for one in claims(read_results(save(folder, results))) if one.title.startswith(title)]
    return found


def named(results: dict[str, Any], folder: Path, title: str) -> Claim:
    """The one finding of this title."""
    (finding,) = [finding for finding in claims(read_results(save(folder, results))) if finding.title == title]
    return finding


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


def test_what_holds_where_it_was_tested_holds_in_part_where_others_have_no_test(tmp_path: Path) -> None:
    results = example()
    ablation = results["ablation"]
    ablation["p_adjusted"]["contribution_matched"] = dict.fromkeys(TAGS, 0.01)
    ablation["achieved_contribution"] = {tag: 0.9 if tag in ("en", "de") else 0.99 for tag in TAGS}
    contribution = named(results, tmp_path, CONTRIBUTION)
    assert contribution.untested == ("en", "de") and not contribution.fails
    assert (contribution.verdict, contribution.tally) == ("holds in part", "13 of 13 languages, no test in 2")
    ablation["achieved_contribution"] = dict.fromkeys(TAGS, 0.99)
    contribution = named(results, tmp_path, CONTRIBUTION)
    assert (contribution.verdict, contribution.tally) == ("holds", "15 of 15 languages")
    ablation["achieved_contribution"] = dict.fromkeys(TAGS, 0.9)
    assert named(results, tmp_path, CONTRIBUTION).verdict == "no test"


LAYERS = "A set matters more to its language than random neurons of the same layers"
CONTRIBUTION = f"{LAYERS} and contribution"


def test_p_of_nineteen_draws_counts_and_one_above_does_not(tmp_path: Path) -> None:
    results = minimal()
    results["ablation"]["p_adjusted"] = {
        "layer_matched": {tag: 1 / 20 for tag in TAGS[:5]} | {"uk": 1 / 19},
        "contribution_matched": {"zh": 1 / 20},
    }
    contribution, layer = named(results, tmp_path, CONTRIBUTION), named(results, tmp_path, LAYERS)
    assert (layer.holds, layer.fails) == (tuple(TAGS[:5]), ("uk",))
    assert (layer.verdict, layer.tally) == ("holds in part", "5 of 6 languages")
    assert (contribution.holds, contribution.fails, contribution.verdict) == (("zh",), (), "holds")
    assert "not that they are of a language" in layer.control


def test_a_p_that_is_not_corrected_over_languages_is_no_test(tmp_path: Path) -> None:
    results = minimal()
    results["ablation"]["p"] = {tag: [1 / 20, 1 / 20] for tag in TAGS}
    assert named(results, tmp_path, LAYERS).verdict == "not measured"


def test_draws_too_few_to_reach_the_level_are_no_test(tmp_path: Path) -> None:
    results = minimal()
    results["ablation"]["layer_matched"] = {tag: [0.0] * 18 for tag in TAGS} | {"fi": [0.0] * 19}
    results["ablation"]["contribution_matched"] = {tag: [0.0, 0.0] for tag in TAGS}
    results["ablation"]["p_adjusted"] = {
        "layer_matched": {tag: 1 / 19 for tag in TAGS} | {"fi": 1 / 20},
        "contribution_matched": {tag: 1 / 3 for tag in TAGS},
    }
    contribution, layer = named(results, tmp_path, CONTRIBUTION), named(results, tmp_path, LAYERS)
    assert (layer.holds, layer.fails) == (("fi",), ())
    assert contribution.verdict == "no test"
    assert contribution.result == "median corrected p 0.33; too few draws for p ≤ 0.05"


def test_sets_that_harm_any_text_are_not_said_to_harm_their_own(tmp_path: Path) -> None:
    results = minimal()
    results["ablation"]["specificity"] = {tag: [0.002, 0.001, 0.003] for tag in TAGS}
    assert claim(results, tmp_path, "Switching a set off").verdict == "holds"
    results["ablation"]["pairing_p"] = 0.2
    own = claim(results, tmp_path, "Switching a set off")
    assert (own.verdict, own.tally) == ("does not hold", "0 of 15 languages")
    assert "sets paired with texts at random: p 0.20" in own.result


def test_a_set_is_found_again_where_it_is_nearer_than_other_languages_sets(tmp_path: Path) -> None:
    results = minimal()
    results["stability"] = {tag: [0.9, 0.8, 0.95, 0.01, 40] for tag in ("en", "fi", "ar")}
    assert claim(results, tmp_path, "The set of a language").verdict == "no test"
    results["stability_lead"] = {"en": [0.5, 0.4, 0.6], "fi": [0.02, -0.01, 0.06], "ar": None}
    stable = claim(results, tmp_path, "The set of a language")
    assert (stable.holds, stable.fails) == (("en",), ("fi",))


def test_optional_parts_may_be_null(tmp_path: Path) -> None:
    results = minimal()
    for part, keys in (("ablation", REQUIRED_INSIDE["ablation"]), ("steering", REQUIRED_INSIDE["steering"])):
        results[part] |= dict.fromkeys(set(example()[part]) - set(keys))
    results |= dict.fromkeys(set(example()) - set(REQUIRED) - {"controls"})
    results["controls"] = dict.fromkeys(example()["controls"])
    SCHEMA.validate(results)
    assert write_report(save(tmp_path, results)).exists()


def test_steering_has_to_beat_its_controls_and_reach_half_of_native_text(tmp_path: Path) -> None:
    results = minimal()
    results["steering"] |= {
        "success": {"fi": 0.6, "ar": 0.6, "de": 0.6, "es": 0.18, "fr": 0.48},
        "native": {"fi": 0.9, "ar": 0.9, "de": 0.9, "es": 0.97, "fr": 0.96},
        "p": {"fi": 0.05, "ar": 0.051, "es": 1e-6, "fr": 1e-6},
    }
    steering = claim(results, tmp_path, "Adding the direction")
    assert (steering.holds, steering.fails) == (("fr", "fi"), ("es", "ar"))


def test_fluency_needs_the_whole_interval_of_perplexity_and_distinct_words(tmp_path: Path) -> None:
    results = minimal()
    results["steering"]["perplexity_ratio"] = {"en": 1.2, "fi": 1.8, "ar": 0.5, "de": 1.0, "fr": 1.4, "es": 1.0}
    intervals = {"en": [0.67, 1.5], "fi": [1.51, 2.0], "ar": [0.4, 0.66], "de": [0.9, 1.1], "fr": [1.2, 1.51]}
    results["steering"]["perplexity_interval"] = intervals | {"es": [None, None]}
    results["steering"]["distinct4_ratio"] = {"en": 0.8, "fi": 1.0, "ar": 1.0, "de": 0.79, "fr": 1.0, "es": 1.0}
    fluent = claim(results, tmp_path, "Steered answers")
    assert (set(fluent.holds), set(fluent.fails)) == ({"en"}, {"de", "ar", "fi"})
    assert "no test by so few answers, or without an interval, in" in fluent.result
    assert {"fr", "es"} <= set(fluent.result.replace(",", "").split())


def harmed(lead: dict[str, dict[str, float]], p: float = 0.01) -> dict[str, object]:
    """Leads of own harm by unit, with an interval of ±0.01 around each."""
    return {
        unit: {"specificity": {tag: [x, x - 0.01, x + 0.01] for tag, x in found.items()}, "pairing_p": p}
        for unit, found in lead.items()
    }


def test_harm_is_judged_in_each_unit_and_the_line_names_those_in_which_it_holds(tmp_path: Path) -> None:
    results = minimal()
    units = {
        "relative": {"en": 0.02, "fi": 0.02, "ar": 0.0},
        "nats_per_token": {"en": 0.02, "fi": 0.005, "ar": 0.0},
        "bits_per_byte": {"en": 0.02, "fi": 0.02, "ar": -0.02},
    }
    results["ablation"]["by_unit"] = harmed(units)
    results["ablation"]["parts"] = {
        "exclusive": {"neurons": {"en": 1}, "relative_harm": results["ablation"]["relative_harm"], "by_unit": harmed(
            {"relative": {"en": 0.02}, "nats_per_token": {"en": 0.02}, "bits_per_byte": {"en": 0.0}}
        )}
    }  # fmt: skip
    whole = claim(results, tmp_path, "Switching a set off")
    assert (set(whole.holds), set(whole.fails)) == ({"en"}, {"fi", "ar"})
    assert "holds by relative loss 2, nats per token 1, bits per byte 2 of 3" in whole.result
    assert "only fi in relative loss and bits per byte" in whole.result and "nats per token" in whole.control
    part = claim(results, tmp_path, "The neurons that no other language has")
    assert part.fails == ("en",) and "only en in relative loss and nats per token" in part.result
    results["ablation"]["by_unit"]["bits_per_byte"]["pairing_p"] = 0.2
    assert not claim(results, tmp_path, "Switching a set off").holds
    SCHEMA.validate(results)


def test_a_control_that_does_not_reach_the_contribution_is_called_unmatched_and_tests_nothing(tmp_path: Path) -> None:
    results = minimal()
    results["ablation"] |= {
        "contribution_matched": {"en": [0.0] * 19, "fi": [0.0] * 19},
        "p_adjusted": {"contribution_matched": {"en": 0.05, "fi": 0.05}},
        "achieved_contribution": {"en": 0.95, "fi": 0.94},
        "ratio_contribution_matched": {"en": [3.0, 2.0, 4.0], "fi": [3.0, 2.0, 4.0]},
    }
    line = claim(results, tmp_path, "A set matters more to its language than random neurons of the same layers and")
    assert (line.holds, line.fails) == (("en",), ())
    assert "unmatched, at a share of the contribution of: fi 0.94" in line.result
    assert "unmatched (0.94 of the contribution)" in html.unescape(write_report(tmp_path).read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("chat", "said"),
    [
        (None, "the model's own continuations of native text"),
        ({"system": None, "questions": {}}, "the model's own answers to messages in the target language"),
        ({"system": "Be brief."}, "by its chat template, system prompt 'Be brief.'"),
    ],
)
def test_page_says_what_the_native_ceiling_is(chat: Any, said: str, tmp_path: Path) -> None:
    results = example()
    results["steering"]["chat"] = chat
    SCHEMA.validate(results)
    assert said in claim(results, tmp_path, "Steered answers stay as fluent").control
    page = html.unescape(write_report(tmp_path).read_text(encoding="utf-8"))
    assert said in page
    assert ("continuations of native text" in page) == (chat is None)


def test_overlap_counts_each_pair_once(tmp_path: Path) -> None:
    results = minimal()
    three = {"languages": ["en", "fi", "ar"], "neurons": {"en": 1, "fi": 1, "ar": 1}, "stability": {}}
    square = [[0.0, 0.0, 0.0]] * 3
    results |= three | {"controls": {"overlap": {
        "shared": [[1, 1, 1]] * 3,
        "lift_by_margins": [[None, 2.0, 1.2], [2.0, None, 0.5], [1.2, 0.5, None]],
        "lead": [[None, 0.02, 0.01], [0.02, None, -0.03], [0.01, -0.03, None]],
        "lead_low": [[None, 0.01, -0.01], [0.01, None, -0.04], [-0.01, -0.04, None]],
    }}}  # fmt: skip
    results["ablation"] = {"relative_harm": square, "bits_per_byte": square} | dict.fromkeys(
        ("layer_matched", "contribution_matched", "p"), {}
    )
    results["steering"] |= {key: {} for key in REQUIRED_INSIDE["steering"][:6]}
    overlap = claim(results, tmp_path, "Two languages share")
    assert (overlap.holds, overlap.fails) == (("en–fi",), ("en–ar", "fi–ar"))
    assert overlap.tally == "1 of 3 pairs"


def message(folder: Path) -> str:
    with pytest.raises(ToolkitError) as caught:
        write_report(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_missing_or_foreign_results_are_one_clear_line(tmp_path: Path) -> None:
    assert "no results of a command in it" in message(tmp_path)
    assert "has no results.json" in message(tmp_path / "nowhere")
    (unfinished := tmp_path / "study" / "stages").mkdir(parents=True)
    unfinished.with_name("plan.json").write_text("{}", encoding="utf-8")
    assert "is a study that has not ended" in message(tmp_path / "study")
    tmp_path.joinpath("results.json").write_text("{", encoding="utf-8")
    assert "is no JSON that can be read" in message(tmp_path)
    tmp_path.joinpath("results.json").write_bytes(b"\xff\xfe{")
    assert "is no JSON that can be read" in message(tmp_path)
    tmp_path.joinpath("results.json").write_text('{"top_rate": NaN}', encoding="utf-8")
    assert "NaN is no JSON number" in message(tmp_path)
    tmp_path.joinpath("results.json").write_text("[" * 100_000, encoding="utf-8")
    assert "nested too deep" in message(tmp_path)
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
    "controls/overlap": {"shared": "many"},
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


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("/somewhere/models/mine", "mine"),
        ("org/model", "org/model"),
        ("reference", "the reference model"),
        (None, "run"),
    ],
)
def test_model_is_called_by_its_id_or_the_end_of_its_path(tmp_path: Path, written: str | None, said: str) -> None:
    results = minimal() | {"model": {"model": written}}
    assert model_name(read_results(save(tmp_path / "run", results))) == said


def test_the_share_of_massive_units_stands_where_directions_are_shown(tmp_path: Path) -> None:
    results = minimal()
    shares = {"unit": 163, "unit_share": 0.8512, "first_ratio": 1.26, "left_out": [163, 400], "largest_share": 0.9}
    results["steering"] |= {"stream": shares, "form": "ordinary"}
    assert not list(SCHEMA.iter_errors(results))
    page = write_report(save(tmp_path / "a", results)).read_text(encoding="utf-8")
    assert "the largest unit (163) holds 85.1\u202f% of the squared length" in page and "is 1.3 times as large" in page
    assert "are made without first tokens and units 163, 400." in page
    results["steering"] |= {"stream": {**shares, "left_out": []}, "form": "whole"}
    page = write_report(save(tmp_path / "b", results)).read_text(encoding="utf-8")
    assert "are made of all tokens and units." in page
    page = write_report(save(tmp_path / "c", minimal())).read_text(encoding="utf-8")
    assert "the largest unit" not in page
    results["steering"]["stream"] = {"unit": 1}
    assert list(SCHEMA.iter_errors(results))
    with pytest.raises(ArtifactError, match="unit_share is missing"):
        read_results(save(tmp_path / "d", results))
