"""lm-evaluation-harness over a steered model: the recipe is on, and its cache is its own."""

import json
import warnings
from contextlib import nullcontext

import pytest
import torch
from conftest import as_glm, tiny_model, tiny_tokenizer
from tokenizers import Tokenizer, processors
from transformers import PreTrainedTokenizerFast

pytest.importorskip("lm_eval", reason="lm-eval is not installed")
with warnings.catch_warnings():
    # The harness's imports warn of others' deprecations.
    warnings.simplefilter("ignore")
    import lm_eval
    from lm_eval.api.instance import Instance
    from lm_eval.tasks import TaskManager

    from babelscope.adapters.lm_eval import SteeredLM, cache_name, evaluate_harness
    from babelscope.artifacts.recipe_hashes import recipe_hash

from babelscope import (
    Direction,
    Gate,
    Operation,
    Schedule,
    Site,
    SteeringRecipe,
    open_model,
    origin_of,
    steer,
    tokenize_prompt,
)
from babelscope.errors import SteeringError

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")


def made_recipe(model, tokenizer, strength=8.0, schedule=Schedule(), **gate):  # noqa: B008
    origin = origin_of(model, tokenizer)
    vector = torch.randn(32, generator=torch.Generator().manual_seed(0))
    place = {"gate": Gate(**gate), "schedule": schedule, "origin": origin}
    return SteeringRecipe((Operation(Site(1, "resid_out"), "add", vector, strength=strength, **place),), origin)


@pytest.fixture
def parts():
    model, tokenizer = tiny_model("llama"), tiny_tokenizer()
    return model, tokenizer


def steered(parts, recipe=None, **options):
    model, tokenizer = parts
    chosen = made_recipe(model, tokenizer) if recipe is None else recipe
    return SteeredLM(model, tokenizer, chosen, **{"max_length": 100, "batch_size": 2, **options})


def asked(kind, *arguments):
    return [Instance(request_type=kind, doc={}, arguments=pair, idx=i) for i, pair in enumerate(arguments)]


@torch.no_grad()
def by_hand(model, tokenizer, context, continuation):
    head, tail = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in (context, continuation))
    ids = torch.tensor([[1, *head, *tail]])
    scores = model(input_ids=ids).logits.log_softmax(dim=-1)[0, -len(tail) - 1 : -1]
    return float(scores.gather(1, torch.tensor(tail)[:, None]).sum())


PAIRS = (("the cat", " sat on"), ("rain", " falls"), ("we walk home", " now"))


def test_log_likelihoods_are_those_of_the_steered_model(parts):
    model, tokenizer = parts
    lm = steered(parts)
    found = [value for value, _ in lm.loglikelihood(asked("loglikelihood", *PAIRS), disable_tqdm=True)]
    with steer(model, lm.recipe, tokenizer=tokenizer):
        want = [by_hand(model, tokenizer, *pair) for pair in PAIRS]
    plain = [by_hand(model, tokenizer, *pair) for pair in PAIRS]
    assert found == pytest.approx(want, rel=1e-4)
    assert found != pytest.approx(plain, rel=1e-2)


def test_generation_in_left_padded_batches_is_steered_row_by_row(parts):
    model, tokenizer = parts
    recipe = made_recipe(model, tokenizer, phase="generated")
    options = {"until": ["\n\n"], "max_gen_toks": 6, "do_sample": False}
    requests = asked("generate_until", ("the cat sat", options), ("rain", options))
    found = steered(parts, recipe).generate_until(requests, disable_tqdm=True)
    want = []
    for text in ("the cat sat", "rain"):
        ids = torch.tensor([[1, *tokenizer(text, add_special_tokens=False)["input_ids"]]])
        with steer(model, recipe, tokenizer=tokenizer):
            out = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=6, do_sample=False)
        want.append(tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True))
    assert found == want


def test_a_log_likelihood_refuses_what_needs_the_end_of_the_prompt(parts):
    for more in ({"phase": "generated"}, {"positions": (-1, None)}, {"schedule": Schedule.first(3)}):
        lm = steered(parts, made_recipe(*parts, **more))
        with pytest.raises(SteeringError, match="no end of the prompt"):
            lm.loglikelihood(asked("loglikelihood", PAIRS[0]), disable_tqdm=True)


def test_another_models_recipe_is_refused(parts):
    with pytest.raises(SteeringError, match="open the model it was made with"):
        steered(parts, made_recipe(tiny_model("gpt2"), parts[1]))


def test_the_hash_sees_every_number_and_survives_saving(parts, tmp_path):
    recipe = made_recipe(*parts)
    for number, saved in enumerate((recipe, made_recipe(*parts, strength=8))):
        saved.save(tmp_path / f"recipe{number}")
        assert recipe_hash(SteeringRecipe.load(tmp_path / f"recipe{number}")) == recipe_hash(saved)
    assert recipe_hash(made_recipe(*parts, strength=8)) == recipe_hash(recipe)
    others = [made_recipe(*parts, strength=7.0), made_recipe(*parts, phase="prompt"), recipe + recipe]
    others.append(made_recipe(*parts, schedule=Schedule.first(2)))
    assert len({recipe_hash(other) for other in (recipe, *others)}) == 5


def task(folder):
    """Two questions with two choices each, from a file."""
    folder.mkdir()
    rows = ['{"q": "the cat", "a": [" sat", " ran"], "y": 0}', '{"q": "rain", "a": [" falls", " is"], "y": 1}']
    (folder / "rows.jsonl").write_text("\n".join(rows) + "\n")
    return {
        "task": "made_choice",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(folder / "rows.jsonl")}},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "{{q}}",
        "doc_to_choice": "{{a}}",
        "doc_to_target": "{{y}}",
        "metric_list": [{"metric": "acc"}],
        "target_delimiter": "",
    }


def test_a_made_task_runs_offline_and_each_recipe_has_its_cache(parts, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    first, second = steered(parts), steered(parts, made_recipe(*parts, strength=1.0))
    assert cache_name(first, tmp_path) != cache_name(second, tmp_path)
    # Without it the harness reads all of its own tasks first.
    tasks, scores = TaskManager(include_defaults=False), []
    for number, lm in enumerate((first, second, first)):
        found = evaluate_harness(
            lm,
            [task(tmp_path / f"task{number}")],
            cache=tmp_path / "caches",
            task_manager=tasks,
            bootstrap_iters=0,
        )
        scores.append([sample["resps"] for sample in found["samples"]["made_choice"]])
    assert scores[0] == scores[2] != scores[1]
    assert len(list((tmp_path / "caches").glob("*.db"))) == 2


@pytest.mark.parametrize("text", ["<s>rain", "a </s> b", "rain <pad>"])
def test_the_harness_gets_ids_by_our_own_rule(parts, text):
    _, tokenizer = parts
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    lm = steered(parts)
    want = tokenize_prompt(tokenizer, text)
    assert lm.tok_encode(text) == want and not {0, 1, 2} & set(want[1:])
    assert lm.tok_encode(text, add_special_tokens=False) == want[1:] and lm.tok_encode(text, left_truncate_len=3) == [
        1,
        *want[-2:],
    ]
    ids, mask = lm.tok_batch_encode([text, text + "s and more"], left_truncate_len=40)
    assert ids[0][mask[0].bool()].tolist() == want and int(mask[0, 0]) == 0
    assert torch.equal(lm.tok_batch_encode([text, "x"], padding_side="right")[1][1, :2], torch.tensor([1, 1]))


def test_a_continuation_is_scored_where_the_tokenizer_would_add_an_end(parts):
    """The harness cuts the whole text's ids at the length of the context's: an end there shifts what is scored."""
    _, tokenizer = parts
    lm = steered(parts)
    plain = [value for value, _ in lm.loglikelihood(asked("loglikelihood", *PAIRS), disable_tqdm=True)]
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    ending = [value for value, _ in lm.loglikelihood(asked("loglikelihood", *PAIRS), disable_tqdm=True)]
    assert ending == pytest.approx(plain)


@torch.no_grad()
def test_a_rolling_likelihood_begins_with_one_bos(parts):
    model, tokenizer = parts
    lm, text = steered(parts), "rain falls on us"
    ids = torch.tensor([tokenize_prompt(tokenizer, text)])
    with steer(model, lm.recipe, tokenizer=tokenizer):
        scores = model(input_ids=ids).logits.log_softmax(dim=-1)[0, :-1]
    want = float(scores.gather(1, ids[0, 1:, None]).sum())
    assert lm.loglikelihood_rolling(asked("loglikelihood_rolling", (text,)), disable_tqdm=True) == pytest.approx([want])
    assert lm.tok_encode(text) == ids[0].tolist()


@torch.no_grad()
def test_what_is_too_long_is_cut_from_the_left_after_bos_and_said(parts, caplog):
    model, tokenizer = parts
    lm = steered(parts, max_length=9)
    ids = lm.tok_batch_encode(["a long text of many letters", "ab"], left_truncate_len=5)[0]
    assert (
        ids[:, 0].tolist()[0] == 1 and ids.shape == (2, 5) and ids[1].tolist()[2:] == tokenize_prompt(tokenizer, "ab")
    )
    caplog.clear()
    found = lm.loglikelihood(asked("loglikelihood", ("abcdefghijklmnop", " x")), disable_tqdm=True)
    row = [1, *tokenizer("abcdefghijklmnop x", add_special_tokens=False)["input_ids"][-9:]]
    with steer(model, lm.recipe, tokenizer=tokenizer):
        scores = model(input_ids=torch.tensor([row])).logits.log_softmax(dim=-1)[0, -3:-1]
    assert found[0][0] == pytest.approx(float(scores.gather(1, torch.tensor(row[-2:])[:, None]).sum()))
    said = [record.getMessage() for record in caplog.records if record.name.startswith("babelscope")]
    assert said == [
        "1 of 1 texts are longer than the model reads; their beginning was left out, what begins a text stays in front"
    ]


def test_a_token_over_the_border_of_context_and_continuation_is_said(parts, caplog):
    model, tokenizer = parts
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    state["model"]["merges"], state["model"]["vocab"]["ab"] = [["a", "b"]], 259
    backend = Tokenizer.from_str(json.dumps(state))
    merging = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", pad_token="<pad>", eos_token="</s>")
    lm = SteeredLM(model, merging, made_recipe(model, merging), max_length=100, batch_size=2)
    lm.loglikelihood(asked("loglikelihood", ("xa", "b"), ("xa", "c")), disable_tqdm=True)
    assert sum("in 1 of 2 requests a token" in record.getMessage() for record in caplog.records) == 1


def test_a_chat_that_the_harness_rendered_keeps_its_control_tokens(parts):
    _, tokenizer = parts
    tokenizer.chat_template = "<s>{% for m in messages %}{{ m.content }}</s>{% endfor %}"
    lm = steered(parts)
    text = lm.apply_chat_template([{"role": "user", "content": "hi"}])
    assert lm.tok_encode(text) == [1, *tokenizer("hi", add_special_tokens=False)["input_ids"], 2]
    lm.expect_plain_text()
    assert lm.tok_encode(text).count(2) == 0


@torch.no_grad()
@pytest.mark.parametrize(("text", "length"), [("rain falls on us", 100), ("rain falls", 10)])
def test_two_tokens_that_begin_a_text_stand_once_before_every_request(text, length):
    model, tokenizer = tiny_model("llama"), as_glm()
    lm = steered((model, tokenizer), max_length=length)
    prefix = tokenizer.convert_tokens_to_ids(["[gMASK]", "<sop>"])
    plain = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert lm.tok_encode(text) == [*prefix, *plain]
    assert lm.tok_encode(text, left_truncate_len=4) == [*prefix, *plain[-2:]]
    ids = torch.tensor([[*prefix, *plain]])[:, : length + 1]
    with steer(model, lm.recipe, tokenizer=tokenizer):
        scores = model(input_ids=ids).logits.log_softmax(dim=-1)[0, 1:-1]
    want = float(scores.gather(1, ids[0, 2:, None]).sum())
    if len(plain) < length:
        (found,) = lm.loglikelihood(asked("loglikelihood", ("", text)), disable_tqdm=True)
        assert found[0] == pytest.approx(want)
        assert lm.loglikelihood_rolling(asked("loglikelihood_rolling", (text,)), disable_tqdm=True) == [
            pytest.approx(want)
        ]
        return
    # The first window of a text that is too long holds both tokens, and nine of the text's.
    with steer(model, lm.recipe, tokenizer=tokenizer):
        last = model(input_ids=torch.tensor([plain[:-1][-length:]])).logits.log_softmax(dim=-1)[0, -1, plain[-1]]
    found = lm.loglikelihood_rolling(asked("loglikelihood_rolling", (text,)), disable_tqdm=True)
    assert found == [pytest.approx(want + float(last))]


@pytest.fixture
def saved(parts, tmp_path):
    """A model, a recipe and a direction on the disk, and a task of one generation."""
    model, tokenizer = parts
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    opened, tokenizer = open_model(str(tmp_path / "model"), device="cpu")
    recipe = made_recipe(opened, tokenizer)
    recipe.save(tmp_path / "recipe")
    (operation,) = recipe
    Direction(operation.vector, operation.site, "fi", ("en",), 1.0, recipe.origin).save(tmp_path / "direction")
    (tmp_path / "task").mkdir()
    (tmp_path / "task" / "doc.jsonl").write_text(json.dumps({"asked": "the cat sat", "target": "x"}) + "\n")
    (tmp_path / "task" / "made.yaml").write_text(
        f"task: made_answer\ndataset_path: json\ndataset_kwargs:\n  data_files:\n    test: {tmp_path}/task/doc.jsonl\n"
        "test_split: test\noutput_type: generate_until\ndoc_to_text: '{{asked}}'\ndoc_to_target: '{{target}}'\n"
        "generation_kwargs:\n  until: ['zzz']\n  max_gen_toks: 6\n  do_sample: false\n"
        "metric_list:\n  - metric: exact_match\n"
    )
    return tmp_path


def test_the_harness_finds_the_model_by_its_name_and_generates_steered(saved, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(saved / "hf"))
    answers = {}
    for steering, more in (("recipe", ""), ("direction", ",strength=8"), ("direction", ",strength=0")):
        found = lm_eval.simple_evaluate(
            model="babelscope",
            model_args=f"pretrained={saved}/model,steering={saved}/{steering},device=cpu,max_length=100{more}",
            tasks=["made_answer"],
            task_manager=TaskManager(include_path=str(saved / "task"), include_defaults=False),
            bootstrap_iters=0,
        )
        answers[steering + more] = found["samples"]["made_answer"][0]["resps"][0][0]
    model, tokenizer = open_model(str(saved / "model"), device="cpu")
    ids = torch.tensor([tokenize_prompt(tokenizer, "the cat sat")])
    for name, recipe in (("recipe", SteeringRecipe.load(saved / "recipe")), ("direction,strength=0", None)):
        with steer(model, recipe, tokenizer=tokenizer) if recipe else nullcontext():
            out = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=6, do_sample=False)
        assert answers[name] == tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)
    assert answers["recipe"] == answers["direction,strength=8"] != answers["direction,strength=0"]


def test_model_arguments_that_lack_a_name_are_one_line():
    with pytest.raises(SteeringError, match="expected pretrained=MODEL and steering=ARTIFACT"):
        SteeredLM.create_from_arg_string("pretrained=gpt2")
