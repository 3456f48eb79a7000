"""`report` on folders of single commands: each is known for what it is, its numbers are there, damage is one line."""

import copy
import json
import math
import shutil

import pytest
from conftest import tiny_model, tiny_tokenizer
from feature_cases import planted

from babelscope import NeuronSet, Observation, write_report
from babelscope.cli import main
from babelscope.controls import Evidence, write_evidence
from babelscope.errors import ArtifactError
from babelscope.features import select_langfir
from babelscope.report.evidence_sections import read_evidence
from babelscope.report.folder_pages import folder_page
from babelscope.report.folder_records import EvidenceRow

LINES = {"en": "the cat sat on a mat {}\n", "fi": "kissa istui matolla {}\n"}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """What each command wrote, by its name, on a tiny model."""
    place = tmp_path_factory.mktemp("folders")
    tiny_model("llama").save_pretrained(place / "model")
    tiny_tokenizer().save_pretrained(place / "model")
    for split, lines in (("train", 60), ("valid", 6), ("test", 6)):
        (place / "corpus" / split).mkdir(parents=True)
        for tag, line in LINES.items():
            text = "".join(line.format("abcdefgh"[i % 8] * (1 + i // 8)) for i in range(lines))
            (place / "corpus" / split / f"{tag}.txt").write_text(text)
    model, corpus, counts, sets = (place / name for name in ("model", "corpus", "observe", "identify"))

    def run(*words):
        assert main([*map(str, words), "--json"]) == 0

    label = "--no-check-language"
    run("observe", model, corpus, "--out", counts, "--sites", "mlp_gate", "resid_out", label)
    run("identify", counts, "--out", sets, "--method", "top-rate", "--top-rate", 0.05, "--draws", 4)
    amounts = ("--draws", 2, "--max-tokens", 60, "--same-text")
    run("ablate", model, sets, corpus, "--out", place / "ablate", *amounts)
    grid = ("--layers", 1, "--strengths", 1.0, "--new-tokens", 2, "--corpus", corpus, "--side-effects", 20)
    run("steer", model, counts, "--sweep", *grid, "--same-text", "--out", place / "steer --sweep")
    steps = ("--language", "fi", "--steps", 2, "--tokens-per-step", 64, "--max-length", 16, "--same-text", label)
    run("adapt", model, sets, corpus, *steps, "--out", place / "adapt")
    run("probe", model, corpus, "--probe", "roles", "--out", place / "probe")
    answers = ("--order", "en", "fi", "--draws", 2, "--new-tokens", 2)
    run("fallback", model, sets, "the cat", "a mat", *answers, "--out", place / "fallback")
    asked = [{"id": i, "language": tag, "question": f"{tag} {i}?", "answer": i} for i in (1, 2) for tag in ("en", "fi")]
    (place / "asked.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in asked))
    words = ("--no-chat", "--new-tokens", 3, "--draws", 9)
    run("consistency", model, place / "asked.jsonl", *words, "--out", place / "consistency")
    features, rows = place / "features", [Evidence(claim="x", language="fi", control="y", n=3, estimate=0.25)]
    planted().save(features / "observation")
    select_langfir(planted()).save(features / "features")
    write_evidence(rows, features / "evidence.jsonl")
    return place


VERBS = ("observe", "identify", "ablate", "features", "adapt", "probe", "consistency", "steer --sweep", "fallback")


@pytest.mark.parametrize("verb", VERBS)
def test_a_folder_is_known_for_what_wrote_it_and_has_a_page(folders, verb, tmp_path):
    page = folder_page(folders / verb, "run1")
    assert page.verb == verb and page.sections and page.facts
    text = write_report(folders / verb, out=tmp_path / "page.html").read_text(encoding="utf-8")
    assert all(section.title in text for section in page.sections)
    assert 'class="drawing"' in text
    assert "http://" not in text.replace("http://www.w3.org", "") and len(text) < 1_600_000


def test_the_numbers_of_a_page_are_those_of_the_folder(folders):
    counts, sets = Observation.load(folders / "observe"), NeuronSet.load(folders / "identify")
    pages = {verb: folder_page(folders / verb, "run1") for verb in VERBS}
    assert pages["observe"].facts["tokens"] == f"{sum(counts.tokens.values()):,}"
    assert pages["identify"].facts["neurons"] == f"{sum(sets.sizes.values()):,}"
    result = json.loads((folders / "adapt" / "result.json").read_text())
    assert f"{result['gain']:+.4f}" in pages["adapt"].facts["gain"]
    harm = json.loads((folders / "ablate" / "ablation.json").read_text())["own_hurt_most"]
    assert f"{sum(harm.values())} of 2" in pages["ablate"].facts.values()
    last = json.loads((folders / "fallback" / "fallback.json").read_text())["steps"][-1]
    left = 100 * (1 - last["answers"].get("en", 0) / 2)
    assert f"{left:.0f}" in pages["fallback"].facts["answers not in en"].partition("with")[0]
    answers = (folders / "consistency" / "answers.jsonl").read_text().splitlines()
    share = sum(json.loads(line)["right"] for line in answers if '"language": "en"' in line) / 2
    assert f"en {100 * share:.0f}" in pages["consistency"].facts["right"]
    rate = counts["mlp_gate"].active[1, :, 0].double().mean() / counts.token_counts[0]
    assert f"{100 * float(rate):.1f}" in str(pages["observe"].sections[0].body)


def test_several_folders_stand_side_by_side(folders, tmp_path):
    path = write_report([folders / verb for verb in VERBS], out=tmp_path / "all.html")
    text = path.read_text(encoding="utf-8")
    assert f"{len(VERBS)} folders side by side" in text and all(f">{verb}</a>" in text for verb in VERBS)


@pytest.mark.parametrize(
    ("verb", "file", "damage", "said"),
    [
        ("ablate", "ablation.json", '{"languages": ["en"], "to": 3, "own_hurt_most": {}}', "to is 3, not a text"),
        ("steer --sweep", "steering.json", "[]", "not an object"),
        ("adapt", "result.json", '{"language": "fi"}', "trained is missing"),
        ("probe", "summary.json", '{"rows": {"lens": "x"}}', "rows.lens"),
        ("consistency", "consistency.json", '{"languages": ["en", "fi"]}', "against is missing"),
        ("identify", "evidence.jsonl", '{"claim": 3}\n', "evidence.jsonl:1"),
        ("features", "evidence.jsonl", "", "is missing"),
        ("fallback", "results.jsonl", "", "is missing"),
    ],
)
def test_damage_is_one_line(folders, tmp_path, verb, file, damage, said):
    place = tmp_path / "copy"
    shutil.copytree(folders / verb, place)
    (place / file).write_text(damage) if damage else (place / file).unlink()
    with pytest.raises(ArtifactError, match=said) as caught:
        write_report(place, out=tmp_path / "page.html")
    assert "\n" not in str(caught.value) and not (tmp_path / "page.html").exists()


JSON = {
    "ablate": "ablation.json",
    "steer --sweep": "steering.json",
    "adapt": "result.json",
    "probe": "summary.json",
    "fallback": "fallback.json",
    "consistency": "consistency.json",
}


def changed_trees(tree):
    """The tree with each entry of its first two levels left out, or another kind of value in its place.

    Of each object one entry stands for all: a page takes seconds to draw a hundred times.
    """
    places = [(key,) for key in tree]
    places += [(key, next(iter(value))) for key, value in tree.items() if isinstance(value, dict) and value]
    for place in places:
        for value in (None, "x", 1e308, [], {"x": "y"}, "gone"):
            changed = copy.deepcopy(tree)
            inner = changed[place[0]] if len(place) == 2 else changed
            if value == "gone":
                del inner[place[-1]]
            else:
                inner[place[-1]] = value
            yield place, value, changed


@pytest.mark.parametrize("verb", JSON)
def test_no_damaged_entry_is_a_traceback(folders, tmp_path, verb):
    place = tmp_path / "copy"
    shutil.copytree(folders / verb, place)
    file = place / JSON[verb]
    refused = 0
    for where, value, tree in changed_trees(json.loads(file.read_text())):
        file.write_text(json.dumps(tree))
        try:
            folder_page(place, "run1")
        except ArtifactError as err:
            refused += 1
            assert "\n" not in str(err), (where, value)
        except Exception as err:
            raise AssertionError((where, value)) from err
    assert refused > 20


def test_names_of_probes_do_not_lead_out_of_the_folder(folders, tmp_path):
    shutil.copytree(folders / "probe", tmp_path / "copy")
    file = tmp_path / "copy" / "summary.json"
    file.write_text(file.read_text().replace('"roles"', '"../copy/roles"'))
    with pytest.raises(ArtifactError, match="which is no probe"):
        folder_page(tmp_path / "copy", "run1")


def test_rows_of_evidence_come_back_with_what_was_not_measured_as_nan(folders):
    (row,) = read_evidence(folders / "features" / "evidence.jsonl")
    assert isinstance(row, EvidenceRow)
    assert (row.claim, row.estimate, row.n) == ("x", 0.25, 3) and math.isnan(row.low) and math.isnan(row.p)


def test_a_folder_that_no_command_wrote_is_refused(folders, tmp_path):
    with pytest.raises(ArtifactError, match="expected a folder of study, observe, identify"):
        write_report(folders / "corpus", out=tmp_path / "page.html")
