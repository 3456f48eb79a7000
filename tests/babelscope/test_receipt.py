"""A steering says what it did, stops where it cannot know, and is never copied or shared by accident."""

import copy
import io
import threading

import pytest
import torch
from conftest import tiny_model, tiny_tokenizer
from steering_cases import MASK, MIDDLE, STEPS, answer, padded, push
from transformers import GenerationConfig

from babelscope import Gate, Operation, Schedule, Site, layout_of, observe, read_site, steer
from babelscope.artifacts import Condition
from babelscope.errors import MeasurementError, PrerequisiteError, SiteError, SteeringError
from babelscope.languages import Language
from babelscope.models.modes import eval_mode
from babelscope.steering.columns import Columns
from babelscope.steering.ready_operation import ReadyOperation
from babelscope.steering.sweeps import Decoding, Prompt, generate_answers, steered_tokens
from babelscope.upstream.forward import ForwardInputs

IDS = torch.arange(10, 31).view(3, 7)


@pytest.fixture
def model():
    return tiny_model("llama")


def rows_of(receipt, phase):
    (row,) = [row for row in receipt.rows if row.phase == phase]
    return row


# Receipts


def test_tokens_are_counted_by_phase_and_reason(model):
    with steer(model, push(phase="generated")) as receipt:
        answer(model, padded(IDS), MASK)
    prompt, generated = rows_of(receipt, "prompt"), rows_of(receipt, "generated")
    pads = int((MASK == 0).sum())
    assert (prompt.seen, prompt.edited, prompt.skipped) == (21, 0, {"pad": pads, "phase": 21 - pads})
    assert (generated.seen, generated.edited, generated.skipped) == (3 * (STEPS - 1), 3 * (STEPS - 1), {})
    assert receipt.passes == STEPS and receipt.columns == 21 + 3 * (STEPS - 1)
    receipt.check_answers(3 * (STEPS - 1))


@pytest.mark.parametrize(
    "way", [{"prefill_chunk_size": 3}, {"cache_implementation": "static"}, {"num_beams": 1}], ids=str
)
def test_every_way_of_generating_gives_the_same_receipt(model, way):
    counts = []
    for options in ({}, way):
        with steer(model, push(positions=(1, None))) as receipt:
            answer(model, padded(IDS), MASK, **options)
        counts.append([(row.phase, row.seen, row.edited, row.skipped) for row in receipt.rows])
    assert counts[0] == counts[1]


def test_what_is_edited_is_what_moves(model):
    """The receipt's count against the tokens whose value at the site really changed."""
    cases = [
        {"positions": (2, 5)},
        {"positions": (-2, None)},
        {"phase": "prompt"},
        {"rows": (0, 2)},
        {"skip_special": True},
    ]
    ids = padded(IDS).clone()
    ids[:, -2] = 1
    for gate in cases:
        with steer(model, push(**gate), tokenizer=tiny_tokenizer()) as receipt:
            steered = read_site(model, ids, MIDDLE, attention_mask=MASK)
        plain = read_site(model, ids, MIDDLE, attention_mask=MASK)
        assert receipt.edited() == int((steered != plain).any(dim=-1).sum()), gate


def test_each_row_has_its_reason(model):
    with steer(model, rows=[push(), None, push(phase="prompt")]) as receipt:
        answer(model, padded(IDS), MASK)
    by_phase = {phase: [row for row in receipt.rows if row.phase == phase] for phase in ("prompt", "generated")}
    assert sum(row.edited for row in by_phase["prompt"]) == int(MASK[0].sum() + MASK[2].sum())
    assert sum(row.edited for row in by_phase["generated"]) == STEPS - 1
    assert all(row.skipped["row"] for row in receipt.rows)


def test_a_schedule_that_has_ended_is_a_reason(model):
    with steer(model, push(phase="generated", schedule=Schedule("first", 2))) as receipt:
        answer(model, IDS)
    generated = rows_of(receipt, "generated")
    assert generated.edited == 3 and generated.skipped == {"schedule": 3 * (STEPS - 2)}


def test_a_condition_that_is_not_met_is_a_reason(model):
    never = Condition(MIDDLE, torch.ones(32), threshold=2.0)
    with steer(model, push(condition=never)) as receipt:
        answer(model, IDS)
    assert receipt.edited() == 0
    assert rows_of(receipt, "prompt").skipped == {"condition": 21}


def test_a_receipt_prints_and_is_plain_data(model):
    with steer(model, push()) as receipt:
        answer(model, IDS)
    assert "1.resid_out add, generated: 9 of 9 edited" in str(receipt)
    assert receipt.as_dict()["operations"][0]["site"] == "1.resid_out"


def test_a_site_that_was_passed_by_is_refused(model):
    layer = layout_of(model).layer(1)
    plain = type(layer).forward
    with steer(model, push()) as receipt:
        answer(model, IDS)
        layer.forward = lambda *args, **kwargs: plain(layer, *args, **kwargs)
        hooks, layer._forward_hooks = layer._forward_hooks, type(layer._forward_hooks)()
        answer(model, IDS)
        layer._forward_hooks = hooks
        del layer.forward
    with pytest.raises(SteeringError, match=r"met 30 tokens in 4 passes, the model ran 60 in 8"):
        receipt.check()


def test_answers_that_were_not_all_met_are_refused(model):
    with steer(model, push()) as receipt:
        answer(model, IDS)
    with pytest.raises(SteeringError, match="met 9 generated tokens, 12 were drawn"):
        receipt.check_answers(12)


# The guard


def inputs(mask=None):
    return ForwardInputs(None, None, mask, None, None)


@pytest.mark.parametrize(
    "passes",
    [
        [(0, 5), (5, 6), (6, 7)],
        [(0, 5), (0, 6), (0, 7)],
        [(0, 3), (3, 6), (6, 7)],
        [(0, 9), (7, 10), (8, 11)],
        [(4, 9), (9, 10)],
    ],
    ids=["cached", "uncached", "chunks", "lookup", "going on"],
)
def test_passes_that_follow_each_other_go_on(passes):
    columns = Columns()
    for start, end in passes:
        columns.check(inputs(torch.ones(2, end)), start, end)


@pytest.mark.parametrize(
    "passes", [[(0, 5), (0, 1)], [(0, 5), (6, 7)], [(0, 5), (5, 6), (5, 6)], [(0, 5), (0, 5)]], ids=str
)
def test_a_pass_that_does_not_follow_stops_the_run(passes):
    columns = Columns()
    *before, (start, end) = passes
    for pair in before:
        columns.check(inputs(), *pair)
    with pytest.raises(SteeringError, match="expected the pass to go on") as caught:
        columns.check(inputs(), start, end)
    assert "\n" not in str(caught.value)


def test_a_mask_that_ends_elsewhere_stops_the_run():
    with pytest.raises(SteeringError, match="mask of 6 columns"):
        Columns().check(inputs(torch.ones(2, 6)), 0, 1)


@pytest.mark.parametrize("way", [{}, {"cache_implementation": "static"}], ids=str)
def test_a_cache_that_is_not_seen_stops_the_answer(model, monkeypatch, way):
    """What transformers 5.24 did to a library that read the cache by its old name."""
    plain = ForwardInputs.cached.fget
    monkeypatch.setattr(ForwardInputs, "cached", property(lambda self: 0 * plain(self)))
    with pytest.raises(SteeringError, match="while generating"), steer(model, push()):
        answer(model, padded(IDS), MASK, **way)


def test_guidance_by_another_text_stops_the_answer(model):
    with pytest.raises(SteeringError, match="guidance_scale"), steer(model, push()):
        answer(model, IDS, generation_config=GenerationConfig(guidance_scale=2.0))


# Values, copies, threads


@pytest.mark.parametrize("site", [MIDDLE, Site(None, "logits")], ids=str)
def test_infinity_stops_the_run(model, site):
    model.half() if site == MIDDLE else None
    width = layout_of(model).width(site.at)
    vector = torch.full((width,), 3e38, dtype=torch.float32)
    twice = [Operation(site, "add", vector, strength=1.0, unit="raw")] * 2
    with pytest.raises(SteeringError, match=f"steered at {site}, the model gave NaN or infinity"), steer(model, twice):
        answer(model, IDS)


def test_padding_may_hold_anything(model):
    """Rows of nothing but pads come out as NaN in some attentions; real tokens count."""
    with steer(model, push()):
        answer(model, padded(IDS), MASK)


@pytest.mark.parametrize("take", [copy.deepcopy, lambda model: torch.save(model, io.BytesIO())], ids=["copy", "pickle"])
def test_a_model_is_not_copied_with_its_hooks(model, take):
    layout = layout_of(model)
    for opened in (
        steer(model, push()),
        steer(model),
        layout.watch(MIDDLE, lambda *_: None),
        layout.edit(Site(0, "mlp_gate"), lambda value: value),
    ):
        with opened, pytest.raises(PrerequisiteError, match="before the with-block") as caught:
            take(model)
        assert "\n" not in str(caught.value)
    assert type(take(model)) in (type(model), type(None))
    assert not any(module._load_state_dict_post_hooks for module in model.modules())


def test_a_layer_is_not_copied_with_its_hooks(model):
    layer = layout_of(model).layer(1)
    with steer(model, push()), pytest.raises(PrerequisiteError, match="copied"):
        copy.deepcopy(layer)


def test_weights_can_be_taken_while_steered(model, tmp_path):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with steer(model, push()):
        model.save_pretrained(tmp_path / "saved")
        buffer = io.BytesIO()
        torch.save(model.state_dict(), buffer)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def in_thread(work):
    caught = []

    def run():
        try:
            work()
        except Exception as err:  # noqa: BLE001 - handed to the test
            caught.append(err)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return caught


def test_two_threads_do_not_steer_one_model(model):
    def work():
        with steer(model, push(1)):
            answer(model, IDS)

    with steer(model, push(0)):
        expected = answer(model, IDS)
        (error,) = in_thread(work)
        assert isinstance(error, SteeringError) and "another thread" in str(error)
        assert torch.equal(answer(model, IDS), expected)
    assert in_thread(work) == []


def test_a_model_is_not_measured_in_one_thread_and_steered_in_another(model):
    """The counts would be those of a steered model, without a word."""
    texts = {"en": ["the cat sat on the mat"], "fi": ["kissa istui matolla"]}
    with steer(model, push(0)):
        (error,) = in_thread(lambda: observe(model, tiny_tokenizer(), texts, shards=2))
        assert isinstance(error, MeasurementError) and "another thread or task steers this model" in str(error)
        observe(model, tiny_tokenizer(), texts, shards=2)  # its own thread may: a steered model is what it asks for
    with eval_mode(model):
        (error,) = in_thread(lambda: steer(model, push(0)).__enter__())
        assert isinstance(error, SteeringError) and "another thread measures this model" in str(error)
        with steer(model, push(0)):
            answer(model, IDS)
    assert in_thread(lambda: observe(model, tiny_tokenizer(), texts, shards=2)) == []


def test_a_thread_does_not_see_the_passes_of_another(model):
    with layout_of(model).watch(MIDDLE, lambda *_: None):
        (error,) = in_thread(lambda: model(input_ids=IDS))
    assert isinstance(error, SiteError) and "another ran the model" in str(error)


def test_a_pass_over_text_is_not_mixed_with_another_threads(model):
    """Its counts are those of its own text, or the other thread is told."""
    texts = {"en": ["the cat sat on the mat"] * 20, "fi": ["kissa istui matolla"] * 20}
    alone = observe(model, tiny_tokenizer(), texts, shards=2).active
    errors = []
    stop = threading.Event()

    def other():
        while not stop.is_set():
            errors.extend(in_thread(lambda: model(input_ids=IDS)))

    thread = threading.Thread(target=other)
    thread.start()
    try:
        together = observe(model, tiny_tokenizer(), texts, shards=2).active
    finally:
        stop.set()
        thread.join()
    assert torch.equal(alone, together)


def test_steering_by_a_gate_leaves_a_receipt_with_beams(model):
    with steer(model, Operation(MIDDLE, "add", torch.ones(32), strength=1.0, unit="raw", gate=Gate())) as receipt:
        answer(model, IDS, num_beams=2)
    assert rows_of(receipt, "prompt").seen % 3 == 0
    receipt.check()


def test_measured_answers_carry_what_steering_did():
    model, tokenizer = tiny_model("llama"), tiny_tokenizer()
    requests = [(Prompt(str(n), Language("en"), "the cat" * (n + 1)), Language("fi")) for n in range(5)]
    decoding = Decoding(new_tokens=4, temperature=0.0, batch_size=2)
    answers = generate_answers(model, tokenizer, requests, lambda *_: [push(phase="generated")], decoding=decoding)
    totals = steered_tokens(answers)
    assert totals["generated"] == {"seen": 15, "edited": 15}
    assert totals["prompt"]["edited"] == 0 and totals["prompt"]["phase"] > 0
    assert steered_tokens(generate_answers(model, tokenizer, requests, decoding=decoding)) == {}


def test_measured_answers_that_steering_missed_are_refused(monkeypatch):
    monkeypatch.setattr(ReadyOperation, "apply", lambda self, value, *_: value)
    with pytest.raises(SteeringError, match="met 0 tokens in 0 passes"):
        generate_answers(
            tiny_model("llama"),
            tiny_tokenizer(),
            [(Prompt("0", Language("en"), "the cat"), Language("fi"))],
            lambda *_: [push()],
            decoding=Decoding(new_tokens=4),
        )
