"""The whole study with a small budget: the files, the schema, the figures' internal truth, and resuming."""

import json
import logging
import re
from dataclasses import asdict, replace
from html import escape
from pathlib import Path

import jsonschema
import pytest
import torch
from conftest import tiny_model, tiny_tokenizer

from babelscope import Direction, NeuronSet
from babelscope.cli import main
from babelscope.errors import ArtifactError, CorpusError, MeasurementError, PrerequisiteError, SiteError
from babelscope.files.temporary_names import PARTIAL
from babelscope.files.writing import write_text
from babelscope.models import weights_hash
from babelscope.recording import observe
from babelscope.study import Budget, run_study
from babelscope.study.budget import PlannedBudget
from babelscope.study.cost import Pace, least_seconds, say_costs, stage_costs
from babelscope.study.time_limit import SMALLEST, cut_budget, planned_budget

SMALL = PlannedBudget(
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
TINY = replace(SMALL, layers=())
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


def test_answers_have_their_verdict_and_what_came_without_steering(demo):
    folder, _ = demo
    steering = json.loads((folder / "results.json").read_text())["steering"]
    assert any(row["unsteered"] not in (None, row["answer"]) for row in steering["samples"])
    for row in steering["samples"]:
        assert row["recognised"] == (row["verdict"] == "right") and row["reason"]
        assert row["unsteered"] is None or isinstance(row["unsteered"], str)
    for target in steering["by_source"]["targets"]:
        first = next(row for row in steering["samples"] if row["target"] == target)
        assert isinstance(first["unsteered"], str)
    table = steering["by_source"]
    for at, target in enumerate(table["targets"]):
        assert sum(row[at] for row in table["n"]) == steering["n"][target]
    assert [[value is not None for value in row] for row in table["success"]] == [
        [n > 0 for n in row] for row in table["n"]
    ]


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


def interrupt(*_, **__):
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
    with pytest.raises(ArtifactError, match="differs in seed; expected the same"):
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
    given = {"budget": TINY, "steering": False}
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
    splits = results["corpus"]["splits"]
    assert not results["corpus"]["same_text"] and all(part["dealt"] for part in splits.values())
    assert sum(part["documents"]["fi"] for part in splits.values()) == 120
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


def go_on(own, **given):
    asked = {"budget": TINY, "steering": False, "resume": True, **given}
    return run_study(str(own / "model"), str(own / "corpus"), own / "out", **asked)


WRONG = [
    ({"observe_tokens": 0}, "tokens_per_language 0 (expected 1 or more)"),
    ({"resamples": 1, "draws": 0}, "resamples 1 (expected 2 or more), draws 0 (expected 1 or more)"),
    ({"dev_prompts": 0}, "dev_prompts 0"),
    ({"ablate_tokens": -3}, "ablate_tokens -3"),
    ({"strengths": ()}, "strengths [] (expected one or more finite numbers)"),
    ({"strengths": (1.0, float("nan"))}, "strengths [1.0, nan]"),
]


@pytest.mark.parametrize(("wrong", "said"), WRONG)
def test_amounts_that_a_late_stage_can_not_work_with_are_refused_before_anything_is_read(tmp_path, wrong, said):
    with pytest.raises(MeasurementError, match=re.escape(said)):
        run_study("no-such-model", str(tmp_path / "no-such-corpus"), tmp_path / "out", budget=replace(SMALL, **wrong))


def test_a_layer_or_seed_out_of_range_is_refused_before_the_text_is_observed(own):
    with pytest.raises(SiteError, match="layers 3, -1 came; the model has layers 0–2"):
        go_on(own, budget=replace(SMALL, layers=(1, 3, -1)))
    for seed in (-1, 2**63):
        with pytest.raises(MeasurementError, match=f"seed {seed} came"):
            go_on(own, seed=seed)
    assert not (own / "out").exists()


def test_a_language_of_few_documents_is_refused_before_the_model_is_read(own):
    lines = (own / "corpus" / "fi.txt").read_text().splitlines()[:20]
    (own / "corpus" / "fi.txt").write_text("\n".join(lines))
    with pytest.raises(CorpusError, match=r"fi 14 in 12 of 32 shards; expected documents in 20 or more"):
        run_study("no-such-model", str(own / "corpus"), own / "out", budget=SMALL)


def test_tokens_of_few_documents_are_refused_before_a_set_is_chosen(own, monkeypatch):
    def unreached(*_):
        raise AssertionError

    monkeypatch.setattr("babelscope.study.run.identify", unreached)
    with pytest.raises(MeasurementError, match=r"de \d+, fi \d+ of 32 shards hold text; expected 16 or more"):
        go_on(own, budget=replace(TINY, observe_tokens=100))


def test_one_text_for_everything_is_taken_where_it_is_asked_for_and_said(own):
    results = run_study(
        str(own / "model"), str(own / "corpus"), own / "out", budget=TINY, steering=False, same_text=True
    )
    assert results["corpus"]["same_text"] and {part["split"] for part in results["corpus"]["splits"].values()} == {
        "all"
    }
    assert all(part["documents"] == {"de": 120, "fi": 120} for part in results["corpus"]["splits"].values())


def test_splits_of_other_languages_or_with_the_same_text_are_refused(own):
    lines = {tag: (own / "corpus" / f"{tag}.txt").read_text().splitlines() for tag in ("de", "fi")}
    (own / "corpus" / "de.txt").unlink()
    for split, part in (("train", slice(80)), ("valid", slice(80, 100)), ("test", slice(100, 120))):
        (own / "corpus" / f"de.{split}.txt").write_text("\n".join(lines["de"][part]))
    (own / "corpus" / "de.test.txt").write_text("\n".join(reversed(lines["de"][80:100])))
    with pytest.raises(CorpusError, match="the same text came for de valid and test;"):
        go_on(own)
    (own / "corpus" / "fi.txt").rename(own / "corpus" / "fi.train.txt")
    (own / "corpus" / "fi.valid.txt").write_text("\n".join(lines["fi"][:20]))
    with pytest.raises(CorpusError, match=r"no file for fi, split 'test'; expected fi\.txt"):
        go_on(own)
    assert not (own / "out").exists()


def test_what_a_killed_run_left_is_no_hindrance_and_does_not_stay(own):
    out = own / "out"
    out.mkdir()
    (out / f"{PARTIAL}1").write_text("{")
    (out / f"{PARTIAL}2").mkdir()
    (out / "something").mkdir()
    with pytest.raises(ArtifactError, match="no run to go on with, plan.json is missing"):
        go_on(own)
    (out / "something").rmdir()
    whole = go_on(own)
    assert sorted(path.name for path in out.iterdir()) == [
        "evidence.jsonl",
        "neurons",
        "observation",
        "plan.json",
        "report.html",
        "results.json",
    ]
    (out / "results.json").unlink()
    for name in ("observation", "neurons"):
        (out / name).rename(out / f"{PARTIAL}{name}")
    assert figures(go_on(own)) == figures(whole)
    assert not [path for path in out.iterdir() if path.name.startswith(".")]


def test_a_study_killed_at_its_very_end_is_finished_and_has_all_its_seconds(own, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("babelscope.study.run.write_report", interrupt)
        with pytest.raises(KeyboardInterrupt):
            go_on(own)
    (own / "out" / "report.html").write_text("the page, before its seconds were added")
    found = go_on(own)
    assert found["seconds"]["total"] > 0 and not (own / "out" / "stages").exists()
    (own / "out" / "stages").mkdir()
    assert go_on(own) == found and not (own / "out" / "stages").exists()


def test_the_page_of_a_finished_study_is_made_again_as_asked(demo):
    folder, whole = demo
    pages = []
    for samples in (False, True):
        found = run_study("reference", "reference", folder, resume=True, include_samples=samples, **GIVEN)
        assert found == whole
        pages.append((folder / "report.html").read_text())
    prompts = [escape(row["prompt"]) for row in whole["steering"]["samples"]]
    assert [all(prompt in page for prompt in prompts) for page in pages] == [False, True]
    assert not any(prompt in pages[0] for prompt in prompts)


@pytest.mark.parametrize("text", ['{"torn": ', "[]", ""])
def test_a_torn_file_of_a_study_is_named_with_what_to_do(own, monkeypatch, text):
    with monkeypatch.context() as patch:
        patch.setattr("babelscope.study.run.ablate", interrupt)
        with pytest.raises(KeyboardInterrupt):
            go_on(own)
    for name, advice in (
        ("stages/control.json", "remove it, and --resume measures this stage again"),
        ("results.json", "remove it, and --resume measures what is not kept"),
        ("plan.json", "choose another --out"),
    ):
        file = own / "out" / name
        kept = file.read_text() if file.exists() else None
        file.write_text(text)
        with pytest.raises(ArtifactError, match=f"{name}.*; expected .*; {advice}"):
            go_on(own)
        file.unlink() if kept is None else file.write_text(kept)
    assert go_on(own)["seconds"]["control"] > 0


def test_other_weights_or_precision_of_the_same_architecture_are_another_study(own):
    go_on(own)
    with pytest.raises(ArtifactError, match="differs in weights, dtype;"):
        go_on(own, dtype="float64")
    tiny_model("llama", seed=1).save_pretrained(own / "model")
    with pytest.raises(ArtifactError, match="differs in weights; expected the same"):
        go_on(own)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_one_changed_value_changes_the_hash_of_the_weights(dtype):
    model, again = tiny_model("llama").to(dtype), tiny_model("llama").to(dtype)
    before = weights_hash(model)
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[3, 5] += 1
    assert weights_hash(model) != before == weights_hash(again)


def test_a_file_is_no_place_for_a_study(capsys, own):
    (own / "out").write_text("kept")
    with pytest.raises(ArtifactError, match="is a file; expected a folder"):
        go_on(own)
    assert study(capsys, own, "--resume")[0] == 1 and (own / "out").read_text() == "kept"
    with pytest.raises(PrerequisiteError, match="could not be written"):
        write_text(own / "out" / "plan.json", "{}")


def test_what_a_study_will_take_is_said_first_by_its_budget_and_by_batches_of_its_text(own, caplog, monkeypatch):
    caplog.set_level(logging.INFO)
    counted, read = [], []

    def say(job, *rest):
        counted.extend(stage_costs(job, True))
        return say_costs(job, *rest)

    def watched(model, tokenizer, texts, **given):
        read.append({tag: given["tokens_per_language"] for tag in texts})
        return observe(model, tokenizer, texts, **given)

    monkeypatch.setattr("babelscope.study.run.say_costs", say)
    monkeypatch.setattr("babelscope.study.cost.observe", watched)
    budget = replace(TINY, part_tokens=30)
    run_study(str(own / "model"), str(own / "corpus"), own / "out", budget=budget, steering=False, progress=True)
    said = [record.getMessage() for record in caplog.records]
    first = next(line for line in said if line.startswith("observe: about"))
    assert "tokens read" in first and said.index(first) < said.index(next(s for s in said if s.startswith("observe …")))
    assert any(line.startswith("all stages: about") and "every amount is a flag" in line for line in said)
    assert any(re.fullmatch(r"choosing the rate, 8 of 8, \d+ s left", line) for line in said)
    assert any(line.startswith("all further stages: about") for line in said)
    # As many as are observed, not a few: their documents would be mostly pads. Repeated where it is short.
    assert 1 <= len(read) <= 3 and all(tokens == {"de": 1500} for tokens in read)
    costs = {cost.stage: cost for cost in counted}
    assert list(costs) == ["observe", "identify", "control", "ablate", "steer"]
    assert costs["identify"].scored == 2 * 60 * (8 * 2 + 1)
    assert costs["ablate"].scored == 2 * (60 * (2 + 2 * 2 + 2 + 1) + 30 * (3 * (2 + 2) + 1))
    assert costs["control"].read == 0
    assert costs["steer"].answers == 2 * (16 + 2 * 1 * 2 + 2 * 3 + 3 * 2 + 4 * 4 + 1)


@pytest.mark.parametrize(("takes", "least", "runs"), [([0.5, 0.1, 0.2], 0.1, 3), ([0.1, 9.0], 0.1, 2), ([7.0], 7.0, 1)])
def test_a_burst_of_another_program_is_not_taken_for_the_pace_of_the_machine(takes, least, runs, monkeypatch):
    clock, done = [0.0], []

    def work():
        clock[0] += takes[len(done)]
        done.append(clock[0])

    monkeypatch.setattr("babelscope.study.cost.time.perf_counter", lambda: clock[0])
    assert least_seconds(work) == pytest.approx(least) and len(done) == runs


def test_a_study_that_must_fit_into_minutes_has_smaller_amounts_and_keeps_them_when_it_goes_on(
    own, caplog, monkeypatch
):
    caplog.set_level(logging.INFO)
    paces = [Pace(0.0, 0.01, 0.0), Pace(0.0, 5.0, 0.0)]
    monkeypatch.setattr("babelscope.study.run.measured_pace", lambda *_: paces.pop(0))
    asked = replace(TINY, choose_tokens=400, ablate_tokens=400, part_tokens=0, dev_prompts=2)
    places = (str(own / "model"), str(own / "corpus"), own / "out")
    settings = {"budget": asked, "steering": False, "minutes": 1.8}
    # The text has some 180 tokens per language, so that cuts above that change nothing.
    run_study(*places, **settings)
    plan = json.loads((own / "out" / "plan.json").read_text())["budget"]
    assert plan["dev_prompts"] == 2 and plan["draws"] == asked.draws, "small amounts and draws stay as they are"
    assert 100 <= plan["choose_tokens"] < 400 and 250 <= plan["ablate_tokens"] < 400
    assert any(line.startswith("to fit into 1.8 min: ") for line in (r.getMessage() for r in caplog.records))
    (own / "out" / "results.json").unlink()
    run_study(*places, **settings, resume=True)
    assert json.loads((own / "out" / "plan.json").read_text())["budget"] == plan and len(paces) == 1
    with pytest.raises(
        MeasurementError, match="the smallest study takes about .* give more, fewer languages, or leave"
    ):
        run_study(*places[:2], own / "other", **settings)


@pytest.mark.parametrize("damage", [{"draws": "19"}, {"layers": 3}, {"ablate_tokens": None}, {"draws": True}])
def test_a_budget_of_a_damaged_plan_is_none(damage):
    amounts = json.loads(json.dumps(asdict(SMALL)))
    assert planned_budget({"budget": amounts}) == SMALL
    assert planned_budget({"budget": amounts | damage}) is None
    assert planned_budget({"budget": {}}) is None is planned_budget(None)


def test_amounts_that_nobody_gave_are_named_by_the_model():
    small, large = (Budget().for_model(18, entries) for entries in (99_999, 100_000))
    assert (small.choose_tokens, small.ablate_tokens, small.part_tokens) == (250, 700, 250)
    assert (large.choose_tokens, large.ablate_tokens, large.part_tokens) == (180, 400, 180)
    assert replace(large, choose_tokens=250, ablate_tokens=700, part_tokens=250) == small
    given = Budget(ablate_tokens=700, part_tokens=0).for_model(18, 262_144)
    assert (given.choose_tokens, given.ablate_tokens, given.part_tokens) == (180, 700, 0)
    assert given.for_model(18, 1_000) == given
    with pytest.raises(MeasurementError, match=r"choose_tokens 0 \(expected 1 or more\)"):
        Budget(choose_tokens=0).check()


def test_the_largest_share_that_fits_is_taken_and_nothing_falls_below_what_says_something():
    asked = Budget().for_model(8, 16_384)
    assert cut_budget(asked, 1.0) == asked
    half, least = cut_budget(asked, 0.5), cut_budget(asked, 0.0)
    assert (half.ablate_tokens, half.observe_tokens, half.test_prompts) == (350, 10_000, 11)
    assert {name: getattr(least, name) for name in SMALLEST} == SMALLEST
    assert (least.draws, least.resamples, least.strengths) == (asked.draws, asked.resamples, asked.strengths)
