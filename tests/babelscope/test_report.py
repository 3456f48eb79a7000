import csv
import errno
import html
import io
import itertools
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from example_results import (
    ARABIC,
    ATTACK,
    CHINESE,
    HINDI,
    JAPANESE,
    TAGS,
    example,
    minimal,
    samples,
    save,
    with_samples,
)

from babelscope.errors import ArtifactError, PrerequisiteError
from babelscope.report import write_report
from babelscope.report.glossary import explained
from babelscope.report.markup import Markup

VOID = {"meta", "br", "img", "link", "hr", "input"}


class Page(HTMLParser):
    """A page taken apart: its elements with their attributes, its text outside of scripts and styles, its data."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.unbalanced: list[str] = []
        self.words: list[str] = []
        self.styles: list[str] = []
        self.numbers: dict[str, str] = {}
        self.spoken: dict[str, dict[str, str | None]] = {}
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.elements.append((tag, found))
        if "download" in found:
            head, _, coded = (found["href"] or "").partition(",")
            assert head.startswith("data:text/") and head.endswith(";charset=utf-8")
            self.numbers[found["download"] or ""] = unquote(coded, errors="strict")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.unbalanced.append(tag)

    def handle_data(self, data: str) -> None:
        tag, attributes = self.elements[-1] if self.elements else ("", {})
        if self.open and self.open[-1] == "style":
            self.styles.append(data)
        elif not self.open or self.open[-1] != "script":
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
    links = [link for link in page.attribute("href") if not link.startswith("data:")]
    assert len([link for link in links if not link.startswith("#word-")]) == 12
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


FIGURES = {
    "neurons-1", "neurons-2", "overlap-1", "stability-1", "stability-2", "harm-1", "draws-1", "mean-1", "dose-1",
    "targets-1", "sources-1", "script-1", "script-2",
}  # fmt: skip


def drawings(page: Page) -> dict[str, dict[str, str | None]]:
    return {found["id"] or "": found for _, found in page.elements if found.get("class") == "drawing"}


def in_sections(page: Page) -> set[str]:
    return {name for name in drawings(page) if name != "run1-first"}


def test_page_is_light_and_every_figure_is_there_without_a_script(page_file: Path, page: Page) -> None:
    assert page_file.stat().st_size < 1_600_000
    assert set(drawings(page)) == {f"run1-{name}" for name in [*FIGURES, "first"]}
    assert sum(tag == "script" for tag, _ in page.elements) == 1
    assert "plotly" not in page_file.read_text(encoding="utf-8").lower()


def test_every_figure_has_a_role_a_name_and_a_description(page_file: Path, page: Page) -> None:
    text = page_file.read_text(encoding="utf-8")
    for name, found in drawings(page).items():
        assert found["role"] == "img"
        assert found["aria-labelledby"] == f"{name}-title {name}-desc"
        said = re.search(rf'<title id="{name}-title">([^<]+)</title><desc id="{name}-desc">([^<]+)</desc>', text)
        assert said, name
        assert re.search(r"Highest: .+\. Lowest: .+\.$", said[2]), name


def test_a_cell_says_what_was_done_to_what(page_file: Path) -> None:
    harm = example()["ablation"]["relative_harm"][5][4]
    said = f"<title>Ukrainian neurons off, Russian text: {100 * harm:+.1f}".replace("-", "−")
    assert said in page_file.read_text(encoding="utf-8")


def test_cell_of_few_answers_has_no_colour_and_says_its_n(page_file: Path) -> None:
    text = page_file.read_text(encoding="utf-8")
    drawn = section(text, 'id="run1-sources-1"', "Numbers: ")
    cells = re.findall(r"<rect [^>]*>(?=<title>Finnish prompt)|<rect [^>]*>(?=<title>Arabic prompt)", drawn)
    few = re.findall(r'<rect [^>]*class="c e"[^>]*><title>Finnish prompt to \w+: [\d.]+ % of 5 answers', drawn)
    many = re.findall(r'<rect [^>]*class="c" style[^>]*><title>Arabic prompt to \w+: [\d.]+ % of 20 answers', drawn)
    others = len(example()["steering"]["by_source"]["targets"]) - 1
    assert (len(few), len(many), len(cells)) == (others, others, 2 * others + 2)
    assert drawn.count(">n=5</tspan>") == others


def test_every_caption_says_n_control_seed_and_unit(page_file: Path) -> None:
    captions = re.findall(r"<figcaption>.*?</figcaption>", page_file.read_text(encoding="utf-8"), re.DOTALL)
    assert len(captions) == 10
    for caption in captions:
        assert re.findall(r"<dt>(.*?)</dt>", caption) == ["n", "control", "seed", "unit"]
        assert "<dd></dd>" not in caption


def records(page: Page, name: str) -> list[dict[str, Any]]:
    """The numbers of a figure, as they can be saved from the page."""
    table = json.loads(page.numbers[f"run1-{name}.json"])
    return [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]


def cell(page: Page, name: str, value: str, **sides: str | int) -> float:
    """A map's number where its two sides have these names."""
    return next(row[value] for row in records(page, name) if all(row[key] == side for key, side in sides.items()))


def test_maps_of_the_page_have_sets_and_prompts_in_rows(page: Page) -> None:
    results = example()
    harm = results["ablation"]["relative_harm"]
    assert cell(page, "harm-1", "relative_harm", set="uk", text="ru") == harm[5][4]
    assert harm[5][4] != harm[4][5]
    to_mean = results["ablation"]["relative_harm_to_mean"]
    assert cell(page, "mean-1", "relative_harm", set="uk", text="ru") == to_mean[5][4]
    success = results["steering"]["by_source"]["success"]
    assert cell(page, "sources-1", "success", source="fi", target="ar") == success[10][8]
    assert success[10][8] != success[8][10]
    counts = results["layers"]["counts"]
    assert cell(page, "neurons-1", "neurons", language="tt", layer=5) == counts[14][5]


def test_numbers_of_every_figure_can_be_saved_as_csv_and_as_json(page: Page) -> None:
    assert set(page.numbers) == {f"run1-{name}.{kind}" for name in FIGURES for kind in ("csv", "json")}
    for name in FIGURES:
        rows = list(csv.DictReader(io.StringIO(page.numbers[f"run1-{name}.csv"])))
        told = [{key: "" if value is None else str(value) for key, value in row.items()} for row in records(page, name)]
        assert rows == told
        assert rows


def test_numbers_of_a_figure_stand_in_a_table_too(page_file: Path) -> None:
    harm = example()["ablation"]["relative_harm"]
    written = section(page_file.read_text(encoding="utf-8"), 'download="run1-harm-1.json"', "</details>")
    row = re.search(r'<th scope="row">Ukrainian <small>uk</small></th>(.*?)</tr>', written)
    assert row is not None
    cells = re.findall(r"<td>(.*?)</td>", row[1])
    assert len(cells) == 15
    assert float(cells[4].replace("−", "-")) == pytest.approx(100 * harm[5][4], abs=0.001)


def test_summary_says_which_findings_hold_and_where_they_do_not(page: Page) -> None:
    summary = section(page.text, "Which findings hold", "The evidence by language")
    own = section(summary, "Switching a set off harms its own language most", "A set matters more")
    specificity = example()["ablation"]["specificity"]
    failing = [tag for tag, (_, low, _) in specificity.items() if low <= 0]
    assert 0 < len(failing) < 15
    assert f"{15 - len(failing)} of 15 languages" in own
    assert "holds in part" in own
    assert "Welsh" in own
    contribution = section(summary, "layers and contribution", "Adding the direction")
    assert (
        "9 of 14 languages" in contribution and "unmatched, at a share of the contribution of: cy 0.83" in contribution
    )
    assert "not in English, Spanish, Chinese, Hindi and Basque" in contribution
    steering = section(summary, "Adding the direction", "Steered answers")
    assert "12 of 12 languages" in steering
    assert "81\u202f% [77, 84]" in steering


def test_limits_are_on_the_page(page: Page) -> None:
    limits = page.text.rsplit("What these numbers do not say", 1)[1]
    for said in (
        "Selective is not causal.",
        "Shuffled labels are no evidence of specificity.",
        "no p-value can be smaller than 0.05",
        "Less text than asked for: Tatar",
        "Steering into Tatar could not be measured",
        "fewer than 10 neurons: Ukrainian and Japanese",
        "The contribution-matched sets of Welsh contribute over 10 % more or less",
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
    cards = sum((found.get("class") or "").startswith("card ") for _, found in Page(text).elements)
    assert cards == len(samples()) + 3
    assert len(badges) == 11 + sum(len(row["lines"]) for row in first_samples())


def test_sample_text_is_escaped_and_forbidden_characters_are_replaced(tmp_path: Path) -> None:
    results = with_samples()
    results["steering"]["samples"][0]["prompt"] = ATTACK + "\x00\x07end"
    results["model"] = {"name": "<img src=x onerror=alert(1)>"}
    results["environment"]["<b>key</b>"] = "<i>value</i>"
    page = read(results, tmp_path)
    assert page.attribute("onerror") == []
    assert ATTACK + "\ufffd\ufffdend" in page.words
    assert not {"img", "b", "i"} & {tag for tag, _ in page.elements}
    assert sum(tag == "script" for tag, _ in page.elements) == 1


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


def first_samples() -> list[dict[str, Any]]:
    """The answers of the first screen: the first of the first, the middle and the last target."""
    rows = samples()
    targets = list(dict.fromkeys(row["target"] for row in rows))
    assert targets == ["ar", "hi", "zh", "ja", "fi", "de"]
    return [next(row for row in rows if row["target"] == tag) for tag in ("ar", "zh", "de")]


def test_first_screen_has_the_finding_every_verdict_answers_before_and_after_and_the_map(page_file: Path) -> None:
    text = page_file.read_text(encoding="utf-8")
    first = text.split("<nav", 1)[0]
    assert "The neurons of 10 of 15 languages harm their own language most" in first
    assert "harms its own language most<small> 10 of 15 languages" in first
    for verdict in ("holds", "holds in part", "does not hold"):
        kind = verdict.replace(" ", "-")
        assert (f'class="verdict {kind}"' in first) == (f'class="verdict {kind}"' in text.split("<nav", 1)[1])
    seen = Page(first).words
    for row in first_samples():
        assert row["unsteered"] in seen and row["lines"][0][0] in seen
    assert 'id="run1-first"' in first


def test_an_answer_that_fails_says_why(page_file: Path) -> None:
    assert "empty: nothing but spaces" in page_file.read_text(encoding="utf-8")


def test_words_of_the_field_are_explained_where_they_stand_and_at_the_end(page_file: Path, page: Page) -> None:
    text = page_file.read_text(encoding="utf-8")
    links = [link for link in page.attribute("href") if link.startswith("#word-")]
    assert set(links) >= {"#word-jaccard-index", "#word-negative-log-likelihood", "#word-layer-matched"}
    assert "how alike two sets are" in text.split('id="words"')[1]
    assert not re.search(r"<(h3|h4|summary|th|article)\b[^>]*>[^<]*<a class=.term", text)


def test_a_term_is_linked_once_in_a_section_and_never_inside_a_tag_or_a_longer_word() -> None:
    used: set[str] = set()
    body = Markup('<p title="lift">uplift lift <a href="#x">shards</a> lift</p><h4>shards</h4><p>shards</p>')
    assert re.sub(r' href="#word-\w+" title="[^"]*"', "", explained(body, used)) == (
        '<p title="lift">uplift <a class="term">lift</a> <a href="#x">shards</a> lift</p><h4>shards</h4>'
        '<p><a class="term">shards</a></p>'
    )
    assert used == {"lift", "shards"}


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
    assert in_sections(page) == {f"run1-{name}-1" for name in ("neurons", "stability", "harm", "draws", "targets")}
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
    assert summary.count("not measured in this run") == 9
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


BROWSER = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), ""
)


@pytest.mark.browser
@pytest.mark.skipif(not BROWSER, reason="no chromium, chromium-browser or google-chrome on the PATH")
def test_browser_runs_the_script_and_keeps_every_script_of_the_samples(page_file: Path, tmp_path: Path) -> None:
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
    assert 'data-ready="true"' in done.stdout
    assert len(drawings(page)) == 14
    for words in (ARABIC, HINDI, CHINESE, JAPANESE, "The market was open. " + ARABIC, ATTACK):
        assert words in page.words
