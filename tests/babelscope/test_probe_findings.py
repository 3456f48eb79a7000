"""From probes to rows and figures: a probe is where the catalogue says, and figures show the numbers of the rows."""

import copy
import html
import inspect
import re
from dataclasses import replace
from importlib import import_module

import numpy as np
import pytest
import torch
from conftest import CONFIGS, tiny_model, tiny_tokenizer

from babelscope import load_corpus
from babelscope.ablation.ablation_table import AblationTable
from babelscope.artifacts import Origin
from babelscope.corpus import tokenize_documents
from babelscope.errors import LanguageError, MeasurementError, PrerequisiteError
from babelscope.evaluation import Losses
from babelscope.figures import FigureCaption, write_figure
from babelscope.figures.html_page import POLICY, html_page
from babelscope.figures.probes_circuits import head_effect_map
from babelscope.figures.probes_geometry import DepthLine, depth_lines
from babelscope.languages import Language, parse_languages
from babelscope.models import layout_of
from babelscope.probes import PROBES, ProbeJob
from babelscope.probes.catalogue import readers_of
from babelscope.probes.circuits.circuit_findings import probe_circuits
from babelscope.probes.figure_captions import caption_of
from babelscope.probes.geometry import language_id
from babelscope.probes.geometry.sentence_findings import probe_language_id
from babelscope.probes.geometry.sentences import middle_weights
from babelscope.probes.lens.lens_findings import probe_lens
from babelscope.probes.lens.lens_squares import least_squares
from babelscope.probes.lens.logit_lens import logit_lens
from babelscope.probes.streams import read_streams
from babelscope.probes.units.roles import RoleHistory, RoleShare, TrackedRoles
from babelscope.probes.units.unit_findings import probe_checkpoints, role_bar, role_steps, step_name


@pytest.fixture(scope="module")
def job():
    texts = load_corpus("reference", ["en", "fi"], split="valid").head(12)
    others = load_corpus("reference", ["en", "fi"], split="train").head(100)
    return ProbeJob(tiny_model("llama"), tiny_tokenizer(), texts, others, against="en", n_sentences=12, seed=0)


def test_every_probe_of_the_catalogue_is_a_function_of_a_job():
    for name, entry in PROBES.items():
        function = getattr(import_module(f"babelscope.probes.{entry.module}"), entry.function)
        assert list(inspect.signature(function).parameters) == ["job"], name
        assert entry.reads <= {
            "texts",
            "others",
            "sentences",
            "against",
            "words",
            "cloze",
            "translators",
            "checkpoints",
            "task_scores",
            "concept",
        }, name
        assert entry.needs <= {"parallel", "against"}, name
    assert readers_of("checkpoints") == ("concepts", "checkpoints") and "lens" in readers_of("words")
    assert set(readers_of("sentences")) == {"alignment", "language-id", "trees", "subspaces", "routing"}


SHARE = "share of the heads' importance on the routes to the last token"


def test_circuits_are_of_the_languages_that_have_a_task_and_stand_in_one_figure(job, reference, monkeypatch, caplog):
    wide = copy.deepcopy(CONFIGS["llama"])
    wide.vocab_size = len(reference[1])
    monkeypatch.setitem(CONFIGS, "llama", wide)
    texts = load_corpus("reference", ["en", "de"], split="valid").head(2)
    findings = probe_circuits(replace(job, model=tiny_model("llama"), tokenizer=reference[1], texts=texts))
    claims = {row.claim.partition(": ")[2] for row in findings.rows if row.claim.startswith("agreement")}
    assert {claim for claim in claims if "patching the unit" in claim and " of " not in claim} == {
        "patching the unit carries the answer (denoise)",
        "patching the unit on its way to the logits carries the answer (denoise)",
    }
    of_inputs = {claim for claim in claims if "patching the unit" in claim and " of " in claim}
    inputs = {claim.partition(" to the ")[2].partition(" of ")[0] for claim in of_inputs}
    assert inputs <= {"", "query", "key", "value"}
    assert claims >= {"the circuit alone does the task", "strongest units shared by two languages"}
    heads = [row for row in findings.rows if row.claim.endswith("patching the unit carries the answer (denoise)")]
    assert {(row.language, row.against) for row in heads} >= {("en", ""), ("de", ""), ("en", "de")}
    assert all(np.isfinite([row.estimate, row.null, row.p]).all() for row in heads)
    traced = [row for row in findings.rows if row.claim == f"agreement: {SHARE}"]
    assert len(traced) == 2 * 12 and {row.language for row in traced} == {"en", "de"}
    assert claims >= {
        "routes to the last token go through the same heads in two languages",
        "routes of two languages are more alike than those of words in random order",
    }
    (routes,) = findings.figures["routes"].data
    assert routes.z[0].tolist() == pytest.approx([100 * row.estimate for row in traced[:12]])
    (heat,) = findings.figures["heads"].data
    assert heat.z.shape[1] == 12 and not caplog.records
    assert float(heat.z[0][0]) == pytest.approx(100 * heads[0].estimate)
    maps = head_effect_map(effect=np.array([[0.5, -0.25]]), maps=["agreement, en"], heads=[(0, 1), (2, 3)])
    assert [*maps.data[0].x] == ["0.1", "2.3"] and maps.data[0].z.tolist() == [[50.0, -25.0]]
    with pytest.raises(LanguageError, match="no bundled task"):
        probe_circuits(replace(job, texts=load_corpus("reference", ["ru", "fi"], split="valid").head(2)))


def test_a_checkpoint_is_called_by_its_folder_unless_another_is_called_so():
    paths = ["runs/a/step-1", "runs/a/step-2", "runs/b/step-2"]
    assert [step_name(path, paths) for path in paths] == ["step-1", "runs/a/step-2", "runs/b/step-2"]


def role(block, share, above_share, name="general", neurons=3):
    return RoleShare(
        block, (2 * block, 2 * block + 1), name, neurons, share, 0.1, 0.2, 9, 0, 7, above_share, 0.3, 0.4, False
    )


def test_bars_and_steps_of_roles_take_the_selected_or_all_neurons():
    assert tuple(role_bar(role(1, 0.5, 0.8), of_all_neurons=False)) == ("2–3", "general", 0.5, 0.1)
    assert tuple(role_bar(role(1, 0.5, 0.8), of_all_neurons=True)) == ("2–3", "general", 0.8, 0.3)
    shares = [
        role(0, 0.2, 0.6),
        role(1, 0.4, 0.8),
        role(0, 0.9, 0.9, name="specific"),
        role(0, 0.9, 0.9, name="related"),
    ]
    history = RoleHistory((TrackedRoles("a", shares, {}),))
    step = role_steps(history, of_all_neurons=False)["general"][0]
    assert (step[0], step[1]) == ("a", 6) and step[2:] == pytest.approx((0.3, 0.1))
    step = role_steps(history, of_all_neurons=True)["general"][0]
    assert step[1] == 14 and step[2:] == pytest.approx((0.7, 0.3))


def test_one_checkpoint_is_no_history(job):
    with pytest.raises(PrerequisiteError, match="0 checkpoints came; expected at least two"):
        probe_checkpoints(job)


def test_a_tuned_lens_is_the_ridge_solution_of_the_streams():
    model, tokenizer = tiny_model("llama"), tiny_tokenizer()
    layout = layout_of(model)
    text = load_corpus("reference", ["fi"], split="valid").head(6)["fi"]
    documents = tokenize_documents(tokenizer, text, 0, max_length=64)
    penalty = 0.01
    translators, sums = least_squares(layout, documents, 0, penalty, Origin("tiny", "", "", ""))
    streams = [read_streams(layout, torch.tensor([part.tokens])) for part in documents]
    counted = [torch.tensor(part.counted) for part in documents]
    rows = [
        torch.cat([stream[depth][0][mask] for stream, mask in zip(streams, counted, strict=True)]).double().numpy()
        for depth in range(layout.n_layers + 1)
    ]
    last = rows[-1]
    assert sums.tokens == len(last)
    for depth in range(layout.n_layers):
        wide = np.c_[rows[depth], np.ones(len(last))]
        ridge = penalty * np.square(rows[depth]).sum(0).mean() * np.diag([1.0] * 32 + [0.0])
        move = np.linalg.solve(wide.T @ wide + ridge, wide.T @ (last - rows[depth]))
        assert np.allclose(translators.weight[depth].double().numpy(), np.eye(32) + move[:-1].T, atol=1e-4)
        residual = last - rows[depth] - wide @ move
        share = 1 - np.square(residual).sum() / np.square(last - last.mean(0)).sum()
        assert float(sums.explained(translators.weight, translators.bias)[depth]) == pytest.approx(share, abs=1e-4)
    with pytest.raises(MeasurementError, match="expected more tokens"):
        short = tokenize_documents(tokenizer, text[:1], 0, max_length=16)
        least_squares(layout, short, 0, penalty, Origin("tiny", "", "", ""))


def line_of(figure, name):
    return next(list(trace.y) for trace in figure.data if trace.name == name)


def test_the_lens_figure_shows_the_means_of_its_reading(job):
    findings = probe_lens(job)
    reading = logit_lens(job.model, job.tokenizer, job.texts, tokens=job.tokens, seed=0)
    own = np.stack([reading.share[k, :, reading.tokens.index(tag)] for k, tag in enumerate(reading.languages)])
    shown = line_of(findings.figures["lines"], "the text's own language")
    assert np.allclose(shown, own.mean(axis=0)) or np.allclose(shown, 100 * own.mean(axis=0))
    assert len(findings.rows) == len(reading.rows()) and set(findings.figures) == {"lines", "own", "leading"}


def test_one_token_within_a_sentence_is_the_models_own_state_there(job):
    counted = torch.tensor([[0, 1, 1, 1, 1], [0, 1, 1, 1, 0], [1, 0, 0, 0, 0]]).bool()
    assert middle_weights(counted).int().tolist() == [[0, 0, 1, 0, 0], [0, 0, 1, 0, 0], [1, 0, 0, 0, 0]]
    text = next(iter(job.texts["fi"])).text
    ids = torch.tensor([job.tokenizer(text)["input_ids"]])
    with torch.no_grad():
        states = job.model(ids, output_hidden_states=True).hidden_states
    middle = (ids.shape[1] - 1 + 1) // 2  # place 1 is the token after BOS
    vector = job.sentences.at(2, "middle")[job.sentences.index("fi"), 0]
    torch.testing.assert_close(vector, states[2][0, middle].double(), rtol=1e-5, atol=1e-5)


def test_the_identification_figure_shows_the_accuracy_of_each_pooling(job):
    findings = probe_language_id(job)
    notes = {row.note.partition(" of ")[0] for row in findings.rows}
    assert notes == {"mean", "last", "middle"}
    means = language_id.language_probe(job.sentences, pooling="mean", seed=0)
    (figure,) = findings.figures.values()
    lines = [list(trace.y) for trace in figure.data if trace.y is not None]
    accuracy = means.accuracy.numpy()
    assert any(len(line) == len(accuracy) and np.allclose(line, accuracy) for line in lines) or any(
        len(line) == len(accuracy) and np.allclose(line, 100 * accuracy) for line in lines
    )


def test_a_figure_is_a_light_page_that_says_what_it_shows_and_needs_nothing_beside_it(job, tmp_path):
    figure = depth_lines(panels={"accuracy": [DepthLine("mean", [0.1, 0.9])]})
    page = write_figure(figure, tmp_path / "one.html", FigureCaption("A < B", "Of two depths & no more.")).read_text()
    assert len(page) < 60_000 and "<h1>A &lt; B</h1>" in page and "Of two depths &amp; no more.</p>" in page
    assert "<svg" in page and "http-equiv" in page and not re.findall(r'(?:src|href)="', page)
    assert [file.name for file in tmp_path.iterdir()] == ["one.html"]


def test_a_page_asks_no_host_and_escapes_its_title():
    page = html_page("<p>body</p>", title='A "title" & more', says="One <sentence>.")
    assert f'content="{html.escape(POLICY)}"' in page and "default-src 'none'" in POLICY
    assert "<title>A &quot;title&quot; &amp; more</title>" in page and "<p>body</p>" in page
    assert 'name="description" content="One &lt;sentence&gt;."' in page and "http://" not in page


def test_a_caption_is_found_for_each_figure_and_for_each_of_several():
    assert caption_of("trees", "tree-resid_3").title == "The tree of languages: resid 3"
    assert caption_of("alignment", "mexa-mean") != caption_of("alignment", "mexa")
    assert caption_of("language-id", "accuracy").shows.startswith("Accuracy of a linear classifier")
    with pytest.raises(MeasurementError, match="figure trees/forest: no caption of it"):
        caption_of("trees", "forest")


def losses(tag, nats):
    n = len(nats)
    return Losses(
        Language(tag),
        torch.tensor(nats, dtype=torch.float64),
        torch.full((n,), 10, dtype=torch.int64),
        torch.full((n,), 20, dtype=torch.int64),
    )


def table(own=(3.0, 1.0), foreign=(0.5, 0.5)):
    rows = [[own, foreign], [foreign, own]]
    return AblationTable(
        languages=parse_languages(["en", "fi"]),
        texts=parse_languages(["en", "fi"]),
        base=(losses("en", [10.0, 30.0]), losses("fi", [20.0, 20.0])),
        delta=tuple(tuple(torch.tensor(cell, dtype=torch.float64) for cell in row) for row in rows),
        draws={
            "random": {tag: torch.tensor([[0.4, 0.0]] * 18 + [[5.0, 0.0]], dtype=torch.float64)
                       for tag in parse_languages(["en", "fi"])}
        },
        sizes={Language("en"): 2, Language("fi"): 3},
        to="zero",
        seed=0,
        resamples=200,
    )  # fmt: skip


def test_harm_is_a_ratio_of_sums_and_its_p_a_rank_among_draws():
    harm = table()
    assert harm.relative_harm.tolist() == [[4 / 40, 1 / 40], [1 / 40, 4 / 40]]
    assert harm.bits_per_byte[0, 0] == pytest.approx(4 / np.log(2) / 40)
    assert harm.own_harm() == {"en": 0.1, "fi": 0.1} and harm.column("fi") == 1
    assert harm.drawn_harm("random")["en"] == pytest.approx([0.01] * 18 + [0.125])
    assert harm.p_values("random") == {"en": 2 / 20, "fi": 2 / 20}, "one draw of nineteen is as large"
    assert harm.hurt_most() == {"en": True, "fi": True}


def test_specificity_is_the_lead_over_the_most_harmed_other_text():
    harm = table()
    assert harm.specificity()["en"].estimate == pytest.approx(4 / 40 - 1 / 40)
    none = table(own=(1.0, 0.0), foreign=(1.0, 0.0))
    assert none.specificity()["fi"].estimate == pytest.approx(0) and none.hurt_most()["fi"] is False
    mean = np.mean([0.01] * 18 + [0.125])
    assert harm.ratio("random")["en"].estimate == pytest.approx(0.1 / mean)
