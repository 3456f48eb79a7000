"""The whole demo on the bundled model with a small budget: the files, the schema, and the figures' internal truth."""

import json
import re
from pathlib import Path

import jsonschema
import pytest

from babelscope import Direction, NeuronSet
from babelscope.demo import Budget, run_demo
from babelscope.errors import ArtifactError

SMALL = Budget(
    observe_tokens=1500,
    choose_tokens=60,
    resamples=10,
    ablate_tokens=60,
    draws=2,
    layers=(3,),
    strengths=(1.0,),
    dev_prompts=2,
    test_prompts=3,
    random_prompts=2,
)
SCHEMA = Path(__file__).parents[2] / "docs" / "results.schema.json"


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo") / "out"
    return folder, run_demo(folder, languages=("en", "fi", "ru", "hi", "tt"), budget=SMALL)


def test_results_follow_the_schema(demo):
    folder, results = demo
    written = json.loads((folder / "results.json").read_text())
    assert written == json.loads(json.dumps(results))
    jsonschema.validate(written, json.loads(SCHEMA.read_text()))


def test_what_was_used_lies_beside(demo):
    folder, results = demo
    sets = NeuronSet.load(folder / "neurons")
    assert results["neurons"] == sets.sizes and results["languages"] == list(sets.languages)
    assert results["layers"]["counts"] == sets.layer_counts.tolist()
    for tag in results["steering"]["success"]:
        assert Direction.load(folder / "directions" / tag).site.layer == results["steering"]["layer"]
    assert (folder / "evidence.jsonl").stat().st_size > 0


def test_every_language_has_its_row(demo):
    _, results = demo
    found = results["ablation"]
    assert len(found["relative_harm"]) == 5 and all(len(row) == 5 for row in found["relative_harm"])
    assert all(len(found["layer_matched"][tag]) == 2 for tag in results["languages"])
    assert set(results["steering"]["success"]) == {"en", "fi", "ru", "hi"}
    assert set(results["stability"]) == set(results["languages"])
    assert {"open", "observe", "identify", "control", "ablate", "steer", "report", "total"} <= set(results["seconds"])


def test_the_report_is_one_file_without_links(demo):
    folder, _ = demo
    page = (folder / "report.html").read_text()
    assert not re.search(r"<(script|link|img|iframe)[^>]+(src|href)=[\"']?(https?:)?//", page)


def test_a_taken_folder_is_refused(demo):
    folder, _ = demo
    with pytest.raises(ArtifactError, match="already there"):
        run_demo(folder)
