"""The whole study with a small budget: the files, the schema, the figures' internal truth, and resuming."""

import json
import re
from pathlib import Path

import jsonschema
import pytest
from conftest import tiny_model, tiny_tokenizer

from babelscope import Direction, NeuronSet
from babelscope.cli import main
from babelscope.errors import ArtifactError, CorpusError
from babelscope.recording import observe
from babelscope.study import Budget, run_study

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
GIVEN = {"languages": ("en", "fi", "ru", "hi", "tt"), "budget": SMALL}
SCHEMA = Path(__file__).parents[2] / "docs" / "results.schema.json"


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo") / "out"
    return folder, run_study("reference", "reference", folder, **GIVEN)


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
        run_study("reference", "reference", folder)


def interrupt(*_):
    raise KeyboardInterrupt


def figures(results):
    return {key: value for key, value in results.items() if key not in ("seconds", "environment")}


def test_an_interrupted_study_goes_on_where_it_was_and_ends_alike(demo, tmp_path, monkeypatch):
    _, whole = demo
    with monkeypatch.context() as patch:
        patch.setattr("babelscope.study.run.ablate", interrupt)
        with pytest.raises(KeyboardInterrupt):
            run_study("reference", "reference", tmp_path / "out", **GIVEN)
    with monkeypatch.context() as patch:
        for done in ("observe", "identify", "control"):
            patch.setattr(f"babelscope.study.stages.{done}", interrupt)
            patch.setattr(f"babelscope.study.run.{done}", interrupt, raising=False)
        found = run_study("reference", "reference", tmp_path / "out", resume=True, **GIVEN)
        assert figures(found) == figures(whole)
        assert not (tmp_path / "out" / "stages").exists() and found["seconds"]["identify"] > 0
        assert run_study("reference", "reference", tmp_path / "out", resume=True, **GIVEN) == found, "read back"


def test_a_pass_that_was_cut_off_goes_on_from_its_checkpoint(demo, tmp_path, monkeypatch):
    folder, _ = demo

    def cut(*args, **kwargs):
        asked = []
        return observe(*args, **kwargs, stop=lambda: asked.append(0) or len(asked) > 3)

    with monkeypatch.context() as patch:
        patch.setattr("babelscope.study.stages.observe", cut)
        with pytest.raises(KeyboardInterrupt):
            run_study("reference", "reference", tmp_path / "out", **GIVEN)
    assert (tmp_path / "out" / "observation.checkpoint" / "state.json").is_file()
    with monkeypatch.context() as patch:
        patch.setattr("babelscope.study.run.identify", interrupt)
        with pytest.raises(KeyboardInterrupt):
            run_study("reference", "reference", tmp_path / "out", resume=True, **GIVEN)
    (whole,), (resumed,) = (list((out / "observation").glob("*.safetensors")) for out in (folder, tmp_path / "out"))
    assert whole.read_bytes() == resumed.read_bytes()


def test_a_folder_with_another_study_is_not_gone_on_with(demo):
    folder, _ = demo
    with pytest.raises(ArtifactError, match="another seed; expected the same"):
        run_study("reference", "reference", folder, resume=True, **GIVEN, seed=1)


@pytest.fixture
def own(tmp_path):
    """A model and a corpus without splits, of two languages in Latin letters, English not among them."""
    tiny_model("llama").save_pretrained(tmp_path / "model")
    tiny_tokenizer().save_pretrained(tmp_path / "model")
    (tmp_path / "corpus").mkdir()
    for tag, words in (("de", "der hund schlief auf dem alten {} sofa"), ("fi", "koira nukkui vanhalla {} sohvalla")):
        lines = "".join(words.format("abcdefgh"[i % 8] * (1 + i // 8)) + "\n" for i in range(120))
        (tmp_path / "corpus" / f"{tag}.txt").write_text(lines)
    return tmp_path


def test_experts_have_no_romanised_control_and_say_so(tmp_path):
    tiny_model("olmoe").save_pretrained(tmp_path / "model")
    tiny_tokenizer().save_pretrained(tmp_path / "model")
    (tmp_path / "corpus").mkdir()
    for tag, words in (("en", "the dog slept on the old {} sofa"), ("ru", "собака спала на старом {} диване")):
        lines = "".join(words.format("abcdefgh"[i % 8] * (1 + i // 8)) + "\n" for i in range(160))
        (tmp_path / "corpus" / f"{tag}.txt").write_text(lines)
    given = {"budget": SMALL, "steering": False}
    results = run_study(str(tmp_path / "model"), str(tmp_path / "corpus"), tmp_path / "out", **given)
    assert all("routed to an expert" in row["not_applicable"] for row in results["controls"]["script"].values())


def study(capsys, own, *words):
    capsys.readouterr()
    flags = ["--tokens-per-language", "1500", "--ablate-tokens", "60", "--draws", "2", "--resamples", "10"]
    code = main(["study", str(own / "model"), str(own / "corpus"), "--out", str(own / "out"), *flags, *words, "--json"])
    return code, *capsys.readouterr()


def test_the_same_on_one_s_own_model_and_text(capsys, own):
    code, out, err = study(capsys, own, "--no-steering")
    assert code == 0, err
    results = json.loads((own / "out" / "results.json").read_text())
    jsonschema.validate(results, json.loads(SCHEMA.read_text()))
    assert json.loads(out)["neurons"] == results["neurons"] and "steering" not in results
    assert results["languages"] == ["de", "fi"] and results["budget"]["layers"] == [0, 1]
    assert set(results["controls"]["script"]) == {"de", "fi"}
    assert "no English text" in results["controls"]["script"]["de"]["not_applicable"]
    page = (own / "out" / "report.html").read_text()
    assert "German" in page and "Directions were added" not in page
    again, _, err = study(capsys, own, "--no-steering")
    assert again == 1 and "already there" in err
    assert study(capsys, own, "--no-steering", "--resume")[0] == 0


def test_text_of_one_language_is_refused_before_the_model_is_read(capsys, own):
    code, _, err = study(capsys, own, "--languages", "fi")
    assert code == 1 and "text of one language came" in err and not (own / "out").exists()
    with pytest.raises(CorpusError, match="expected two or more to tell apart"):
        run_study("no-such-model", str(own / "corpus"), own / "out", languages=("fi",))
