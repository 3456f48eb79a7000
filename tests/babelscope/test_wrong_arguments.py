"""What a person hands over by mistake: one line that says what to hand over, and never letters taken for texts."""

import sys
from subprocess import run

import pytest
from conftest import tiny_model, tiny_tokenizer

from babelscope import (
    Gate,
    compare_answers,
    infer_training_shares,
    load_corpus,
    mean_direction,
    observe,
    select_lape,
)
from babelscope.artifacts.gate import numbers_of
from babelscope.corpus import tokenize_prompts
from babelscope.errors import (
    CorpusError,
    LanguageError,
    MeasurementError,
    PrerequisiteError,
    SiteError,
    SteeringError,
    refuse_one_text,
)
from babelscope.evaluation import content_kept, corrected_confusion, detect_languages, kept_shares, published_confusion
from babelscope.models.plain import check_model

TEXTS = {"en": ["a b c d e f"] * 4, "fi": ["b d f a a a"] * 4}


@pytest.fixture(scope="module")
def opened():
    return tiny_model("llama"), tiny_tokenizer()


def test_one_text_is_no_list_of_texts(opened):
    model, tokenizer = opened
    direction = mean_direction(observe(model, tokenizer, TEXTS, sites=["resid_out"]), target="fi", layer=0)
    with pytest.raises(MeasurementError, match="texts: one text came, 'ab'"):
        compare_answers(model, tokenizer, direction, "ab")
    with pytest.raises(MeasurementError, match="texts: one text came"):
        detect_languages("ab")
    with pytest.raises(SiteError, match=r"sites: one text came, 'mlp_gate'; .*write \['mlp_gate'\]"):
        observe(model, tokenizer, TEXTS, sites="mlp_gate")
    with pytest.raises(LanguageError, match=r"languages: one text came, 'en'; .*write \['en'\]"):
        load_corpus("reference", "en")
    with pytest.raises(LanguageError, match="languages: one text came"):
        select_lape(observe(model, tokenizer, TEXTS), min_count=1).only("en")
    with pytest.raises(CorpusError, match="texts: one text came"):
        tokenize_prompts(tokenizer, "ab")
    for score in (published_confusion, corrected_confusion):
        with pytest.raises(MeasurementError, match="answers: one text came"):
            score("ab", "en")
    with pytest.raises(MeasurementError, match="prompts: one text came"):
        kept_shares("ab", ["ab", "b"])
    with pytest.raises(MeasurementError, match="references: one text came"):
        content_kept(["a", "b"], "ab", "en")
    refuse_one_text(["ab"], "texts", CorpusError)


CALLS = {
    "as_corpus(['a b'])": "CorpusError texts: a list came; expected texts by language",
    "as_corpus('folder')": "CorpusError texts: a str came; expected texts by language",
    "as_corpus({'en': 'a b'})": "CorpusError texts of en: one text came, 'a b'; expected a list of them; write ['a b']",
    "as_corpus({'en': [1]})": "CorpusError texts of en: [1] came; expected a list of texts",
    "as_corpus({'en': None})": "CorpusError texts of en: None came; expected a list of texts",
    "bs.open_model(None)": "PrerequisiteError model None came; expected 'reference', a folder",
    "bs.open_model('')": "PrerequisiteError model '' came; expected 'reference', a folder",
    "bs.observe(model, None, texts)": "PrerequisiteError tokenizer None came; expected the tokenizer itself",
    "bs.observe(model, 'name', texts)": "PrerequisiteError tokenizer 'name' came; expected the tokenizer itself",
    "bs.observe(model, tok, texts, tokens_per_language=30.5)": "SiteError a pass cannot have tokens_per_language 30.5;",
    "bs.observe(model, tok, texts, shards='2')": "SiteError a pass cannot have shards '2'; expected whole numbers",
    "bs.load_corpus(None)": "CorpusError corpus None came; expected 'reference', a folder or a data set",
    "bs.load_corpus('reference', 1)": "LanguageError languages 1 came; expected a list of BCP-47 tags",
    "bs.Site('1', 'mlp_gate')": "SiteError layer '1' came; expected whole numbers",
    "bs.Site(1.0, 'mlp_gate')": "SiteError layer 1.0 came; expected whole numbers",
    "bs.Site.parse(3)": "SiteError site 3 is unreadable; expected a form such as",
    "bs.observe(model, tok, texts, part=3)": "SiteError part 3 came; expected two numbers, such as (0, 4)",
    "bs.observe(model, tok, texts, part=(0, '2'))": "SiteError part[1] '2' came; expected whole numbers",
    "bs.tokenize_prompt(tok, 3)": "CorpusError text 0: int came; expected a text",
    "bs.select_lape(texts)": "SelectionError a dict came; expected an Observation; make one of texts by observe(…)",
    "bs.select_lape(observation, top_rate='0.1')": "SelectionError top_rate '0.1' came; expected numbers",
    "direction.add('1')": "SteeringError strength '1' came; expected numbers",
    "direction.add(None)": "SteeringError strength None came; expected numbers",
    "bs.ablation_matrix(model, tok, sets, texts, draws='2')": "SelectionError draws '2' came; expected whole numbers",
    "bs.ablation_matrix(model, tok, sets, texts, draws=2, seed=1.5)": "SelectionError seed 1.5 came; expected whole",
    "bs.train_subnetwork(model, tok, sets['en'], ['a'], steps='2')": "MeasurementError steps '2' came; expected whole",
    "bs.train_subnetwork(model, tok, sets['en'], ['a'], steps=1, tokens_per_step='2')": "MeasurementError tokens_per",
    "bs.compare_answers(model, tok, 'recipe', ['a'])": "SteeringError a str came; expected operations, a recipe",
    "bs.compare_answers(model, tok, sets, ['a'])": "SteeringError a NeuronSet came; expected operations, a recipe",
    "evaluate_steering(model, tok, sets, [Prompt('0', 'en', 'a')], target='fi')": "SteeringError a NeuronSet came;",
    "language_effects(model, tok, 'recipe', texts)": "SteeringError a str came; expected operations, a recipe",
    "generate_answers(model, tok, [(Prompt('0', 'en', 'a'), 'fi')], lambda *_: sets, decoding=Decoding(2))": (
        "SteeringError a NeuronSet came; expected operations"
    ),
    "check_recipe(direction.add(1.0), model)": "SteeringError a Operation came; expected a SteeringRecipe",
    "bs.read_site(model, torch.arange(5), bs.Site(0, 'mlp_out'))": "SiteError ids of shape [5] came; expected rows of",
    "bs.read_site(model, torch.zeros(1, 0).long(), bs.Site(0, 'mlp_out'))": "SiteError ids of shape [1, 0] came;",
    "bs.select_lape('obs')": "SelectionError obs: a path came; expected an Observation",
}


def test_wrong_types_are_one_line_where_no_runner_checks_them():
    """In a process of its own: here annotations are checked before any of it runs."""
    script = f"""
import torch
import babelscope as bs
from babelscope.steering.checking import check_recipe
from babelscope.steering.sweeps import Decoding, Prompt, evaluate_steering, generate_answers, language_effects
from babelscope.corpus import as_corpus
from babelscope.errors import ToolkitError
model, tok = bs.open_model("reference")
texts = {{"en": ["a"]}}
observation = bs.observe(model, tok, {{"en": ["the cat"], "fi": ["kissa"]}}, sites=["mlp_gate", "resid_out"])
sets = bs.select_lape(observation, top_rate=0.5, min_count=0)
direction = bs.mean_direction(observation, target="fi", source="en", layer=1)
for call in {list(CALLS)!r}:
    try:
        print(eval(call))
    except ToolkitError as err:
        print(type(err).__name__, err)
"""
    lines = run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.splitlines()
    for line, (call, expected) in zip(lines, CALLS.items(), strict=True):
        assert line.startswith(expected), (call, line)


def test_sets_run_over_their_languages(opened):
    sets = select_lape(observe(*opened, TEXTS, sites=["mlp_gate"]), top_rate=0.9, min_count=0)
    assert list(sets) == ["en", "fi"] and "fi" in sets and "de" not in sets


def test_a_gate_takes_lists_as_tuples_and_refuses_what_is_no_number(opened):
    assert Gate(rows=[0, 1], positions=[-1, None]) == Gate(rows=(0, 1), positions=(-1, None))
    assert len({Gate(rows=[0, 1]), Gate(rows=(0, 1))}) == 1
    with pytest.raises(SteeringError, match="counted from 0"):
        Gate(rows=[0, -1])
    with pytest.raises(SteeringError, match="expected start and stop"):
        Gate(positions=(-1,))
    for numbers, line in (
        (1, r"gate rows 1 came; expected numbers in a tuple; write \(1,\)"),
        ("01", "gate rows '01' came"),
        ([0, "a"], r"gate rows\[1\] 'a' came"),
        ([0, 0.5], r"gate rows\[1\] 0.5 came"),
    ):
        with pytest.raises(SteeringError, match=line):
            numbers_of(numbers, "rows")


def test_what_is_no_model_says_how_to_hand_one_over(opened):
    model, tokenizer = opened
    with pytest.raises(PrerequisiteError, match=r"a str came; .* babelscope.open_model\('reference'\)"):
        check_model("reference")
    with pytest.raises(PrerequisiteError, match="hand over the model first, then the tokenizer"):
        check_model(tokenizer)


@pytest.mark.parametrize("counts", [{"merges": 0}, {"resamples": -1}])
def test_counts_of_training_shares_are_counts(counts):
    with pytest.raises(MeasurementError, match="expected merges of 1 or more"):
        infer_training_shares(tiny_tokenizer(), TEXTS, **counts)
