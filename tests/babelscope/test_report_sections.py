"""Each section of the report by itself: the numbers of results.json stand in it, and what was not measured is said."""

import html
import re

import numpy as np
import pytest
from example_results import ATTACK, TAGS, example, minimal, save, with_samples

from babelscope.report.answer_samples import SHOWN, samples_section
from babelscope.report.card import card_section, limits_section
from babelscope.report.claims import claims
from babelscope.report.first_screen import ANSWERS, first_screen, headline
from babelscope.report.harm import ablation_section
from babelscope.report.markup import NOT_MEASURED, Markup, Section
from babelscope.report.page import assemble
from babelscope.report.recorded_facts import UNRECORDED, seed_of, tokens_said
from babelscope.report.results import read_results
from babelscope.report.selection_sections import (
    matrix_table,
    neuron_section,
    overlap_section,
    script_section,
    stability_section,
)
from babelscope.report.steered import dose_section, steering_section


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    return read_results(save(tmp_path_factory.mktemp("full"), example()))


@pytest.fixture(scope="module")
def least(tmp_path_factory):
    return read_results(save(tmp_path_factory.mktemp("least"), minimal()))


def words(markup):
    """The text of some markup, without its elements."""
    return " ".join(html.unescape(re.sub(r"<(style|script)\b.*?</\1>|<[^>]+>", " ", str(markup), flags=re.S)).split())


def test_a_page_links_to_every_section_and_asks_no_host():
    sections = [Section("one", "First <part>", Markup("<p>a</p>")), Section("two", "Second", Markup("<p>b</p>"))]
    page = assemble(title="A & B", intro=Markup("<p>intro</p>"), groups=[("run", "Run", sections)], says="A run")
    links = re.findall(r'href="#([^"]+)"', page)
    assert {"run", "run-one", "run-two"} <= set(links) and all(f'id="{link}"' in page for link in links)
    assert "<title>A &amp; B</title>" in page and "First &lt;part&gt;" in page
    assert "default-src 'none'" in html.unescape(page) and not re.search(r'(src|href)="(https?:)?//', page)


def test_a_table_of_a_matrix_has_a_row_per_language():
    table = matrix_table(np.array([[1.0, 2.0], [3.0, 4.0]]), ["en", "fi"], ["0", "1"], lambda x: f"{x:.0f}")
    rows = re.findall(r"<tr>.*?</tr>", str(table), flags=re.S)
    assert [words(row).split()[-2:] for row in rows[1:]] == [["1", "2"], ["3", "4"]] and "Finnish" in words(rows[2])


def test_seeds_and_tokens_are_those_of_the_run_or_said_to_be_missing(full, least):
    assert seed_of(full, "overlap") == str(example()["seeds"]["overlap"])
    assert seed_of(least, "overlap") == UNRECORDED and tokens_said(least) == f"tokens {UNRECORDED}"
    assert re.search(r"\d.* tokens per language", tokens_said(full))


@pytest.mark.parametrize(
    ("section", "what"),
    [
        (overlap_section, "Overlap between languages"),
        (script_section, "Script control"),
        (stability_section, "Agreement by size of the corpus"),
        (neuron_section, "Neurons by layer"),
        (dose_section, "Dose–response"),
        (steering_section, "Success by language of the prompt"),
        (ablation_section, "Switching off to the mean"),
    ],
)
def test_what_was_not_measured_is_said_where_it_would_stand(section, what, least, full):
    assert what in words(section(least, "run").body) and NOT_MEASURED in words(section(least, "run").body)
    assert NOT_MEASURED not in words(section(full, "run").body) or what not in words(section(full, "run").body)


def test_set_sizes_and_layers_stand_in_the_table(full):
    text = words(neuron_section(full, "run").body)
    for tag in ("en", "fi"):
        assert f" {example()['neurons'][tag]} " in text
    counts = np.array(example()["layers"]["counts"])
    assert " ".join(str(n) for n in counts[TAGS.index("fi")]) in text


def test_harm_of_each_language_stands_beside_its_random_sets(full):
    harm = np.array(example()["ablation"]["relative_harm"]).diagonal()
    text = words(ablation_section(full, "run").body).replace("−", "-")
    largest = 100 * harm.max()
    assert any(f"{largest:.{digits}f}" in text for digits in (1, 2, 3))


def test_success_by_target_stands_in_percent(full):
    text = words(steering_section(full, "run").body)
    for value in filter(None, example()["steering"]["success"].values()):
        assert f"{100 * value:.1f}" in text


def test_the_chosen_strength_stands_in_the_dose_section(full):
    steering = example()["steering"]
    text = words(dose_section(full, "run").body)
    assert f"{steering['strength']:g}" in text and f"{steering['layer']}" in text


def test_samples_are_shown_as_text_and_more_are_counted(tmp_path):
    section = samples_section(read_results(save(tmp_path / "a", with_samples())))
    assert ATTACK not in str(section.body) and html.escape(ATTACK)[:20] in str(section.body)
    assert str(section.body).count("<article") == 8 and "(empty answer)" in words(section.body)
    assert "To Finnish (fi), 1 of 2 recognised" in words(section.body)
    many = with_samples()
    many["steering"]["samples"] = many["steering"]["samples"][:1] * (SHOWN + 3)
    section = samples_section(read_results(save(tmp_path / "b", many)))
    assert str(section.body).count("<article") == SHOWN and f"first {SHOWN} of {SHOWN + 3}" in words(section.body)


def test_samples_that_were_left_out_are_said(least):
    assert NOT_MEASURED in words(samples_section(least).body)


def test_the_card_adds_up_the_seconds(full):
    seconds = {stage: s for stage, s in example()["seconds"].items() if stage != "total" and s is not None}
    text = words(card_section(full).body).replace("\u202f", "").replace(",", "")
    assert f"{sum(seconds.values()):.1f}" in text and all(stage in text for stage in seconds)


def test_limits_say_the_smallest_p_and_sets_that_are_empty(tmp_path):
    results = example()
    results["ablation"]["draws"], results["neurons"]["fi"] = 19, 0
    run = read_results(save(tmp_path / "one", results))
    text = words(limits_section([run]).body)
    assert "With 19 draws a control, no p-value can be smaller than 0.05" in text
    assert "No neuron was selected for Finnish" in text and "In this run" in text
    assert "one: " in words(limits_section([run, run]).body), "runs are named where there are several"


def test_the_first_sentence_counts_the_languages_that_harm_themselves_most(tmp_path):
    results = example()
    harm = np.full((len(TAGS), len(TAGS)), 0.001)
    np.fill_diagonal(harm, 0.01)
    harm[0, 1], harm[3, 2] = 0.02, 0.02
    results["ablation"]["relative_harm"] = harm.tolist()
    leads = {name: results["ablation"].pop(name) for name in ("specificity", "by_unit") if name in results["ablation"]}
    said = headline(read_results(save(tmp_path, results)))
    counted = f"{len(TAGS) - 2} of {len(TAGS)} languages, without an interval,"
    assert said.startswith(f"The neurons of {counted} harm their own language most")
    results["ablation"] |= leads
    said = headline(run := read_results(save(tmp_path, results)))
    verdict = next(claim for claim in claims(run) if claim.title.startswith("Switching a set off harms its own"))
    assert 0 < len(verdict.holds) < len(TAGS) - 2 and said.startswith(f"The neurons of {verdict.tally} harm their own")
    assert all(
        part in said for part in ("81\u202f% [77, 84] of answers", "unsteered 1\u202f%", "native text 88\u202f%")
    )
    results["steering"]["success"] = {}
    assert "direction" not in headline(read_results(save(tmp_path, results)))


def test_the_first_screen_takes_answers_evenly_and_leaves_them_out_where_asked(tmp_path):
    read = read_results(save(tmp_path, with_samples()))
    assert list(dict.fromkeys(row.target for row in read.steered.samples or ())) == [
        "ar",
        "hi",
        "zh",
        "ja",
        "fi",
        "de",
    ]
    page = words(first_screen(read, "run", include_samples=True))
    # The first, the third and the sixth of six.
    assert "The first answer steered to Arabic, Chinese and German" in page
    assert str(first_screen(read, "run", include_samples=True)).count("<article") == ANSWERS
    assert "The first answer" not in words(first_screen(read, "run", include_samples=False))
