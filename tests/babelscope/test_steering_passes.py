"""The parts of steering by hand: which tokens a pass holds, what a receipt counts, and what is refused beforehand."""

import threading
from dataclasses import replace

import pytest
import torch
from conftest import tiny_model
from steering_cases import push, vector

from babelscope import Gate, Operation, Site
from babelscope.artifacts import Schedule
from babelscope.errors import ArtifactError, SiteError, SteeringError
from babelscope.models import layout_of
from babelscope.steering.checking import check_operations
from babelscope.steering.compiled import fresh_graphs
from babelscope.steering.frame import Frame, PromptShape
from babelscope.steering.receipt import REASONS, count_masked, count_plain
from babelscope.steering.session import check_finite, follow_calls
from babelscope.upstream.forward import ForwardInputs

MASK = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]])


def inputs(rows=2, tokens=5, mask=MASK):
    ids = torch.arange(rows * tokens).reshape(rows, tokens)
    return ForwardInputs(ids=ids, embeds=None, mask=mask, positions=None, cache=None)


def test_a_frame_tells_prompt_from_generated_tokens_and_pads_from_words():
    prompt = PromptShape(rows=1, length=3, mask=torch.tensor([[0, 1, 1]]))
    frame = Frame(inputs(mask=torch.tensor([[0, 1, 1, 1, 1]] * 2)), prompt)
    assert (frame.prompt_tokens, frame.repeats, frame.end) == (3, 2, 5)
    assert frame.real.tolist() == [[False, True, True, True, True]] * 2
    assert frame.position.tolist() == [[-1, 0, 1, 2, 3]] * 2
    assert frame.prompt_size.tolist() == [[2], [2]]
    assert frame.open_phase(Gate(phase="generated")) == [False] * 3 + [True] * 2


def test_a_schedule_begins_at_the_first_generated_column():
    frame = Frame(inputs(), PromptShape(rows=2, length=3, mask=None))
    # The prompt is step 0; columns 3 and 4 are steps 1 and 2.
    assert frame.factors(Gate(), Schedule.first(2)) == [1.0, 1.0, 1.0, 1.0, 0.0]
    assert frame.factors(Gate(phase="generated"), Schedule()) == [0.0, 0.0, 0.0, 1.0, 1.0]
    assert frame.factors(Gate(), Schedule()) == [1.0], "one factor where all columns have the same"


def test_positions_are_counted_among_a_rows_own_words():
    frame = Frame(inputs(), PromptShape(rows=2, length=5, mask=MASK))
    assert frame.between(Gate(positions=(-1, None))).tolist() == [[False] * 4 + [True]] * 2
    assert frame.selected(Gate(positions=(1, 3)), None).tolist() == [
        [False, False, False, True, True],
        [False, True, True, False, False],
    ]


def test_special_tokens_are_left_alone_where_they_are_known():
    frame = Frame(inputs(mask=None), None)
    ordinary = torch.ones(10, dtype=torch.bool).index_fill(0, torch.tensor([0, 7]), False)
    assert frame.ordinary(Gate(), ordinary).tolist() == [[False] + [True] * 4, [True, True, False, True, True]]
    assert frame.ordinary(Gate(skip_special=False), ordinary) is None


def test_a_frame_refuses_rows_that_are_no_multiple_of_the_prompts():
    with pytest.raises(ArtifactError, match="a pass of 2 rows came for 3 prompts"):
        Frame(inputs(), PromptShape(rows=3, length=5, mask=None))
    with pytest.raises(SteeringError, match="neither ids nor embeddings"):
        Frame(ForwardInputs(None, None, None, None, None), None)


def test_counts_by_columns_and_counts_by_masks_agree_where_no_mask_is_given():
    frame = Frame(inputs(mask=None), PromptShape(rows=2, length=3, mask=None))
    factors, phase = [1.0, 1.0, 1.0, 1.0, 0.0], [True] * 5
    prompt, generated = count_plain(frame, factors, phase, rows_on=1)
    # One of two rows has a strength: three prompt columns; of two generated ones the second is past the schedule.
    order = ("edited", *REASONS)
    assert dict(zip(order, prompt, strict=True)) == {**dict.fromkeys(order, 0), "row": 3, "edited": 3}
    assert dict(zip(order, generated, strict=True)) == {**dict.fromkeys(order, 0), "row": 2, "edited": 1, "schedule": 1}
    rows = torch.tensor([[True], [False]])
    masked = count_masked(frame, factors, phase, rows=rows, special=None, positions=None, condition=None)
    assert masked.tolist() == [[3, 0, 3, 0, 0, 0, 0, 0], [1, 0, 2, 0, 1, 0, 0, 0]]


def test_of_several_reasons_the_first_counts():
    frame = Frame(inputs(), None)
    closed = torch.zeros(2, 5, dtype=torch.bool)
    masked = count_masked(frame, [1.0] * 5, [True] * 5, rows=None, special=closed, positions=closed, condition=None)
    assert masked[0].tolist() == [0, 2, 0, 0, 0, 8, 0, 0], "two pads, and eight special tokens at closed positions"


def test_operations_are_checked_against_the_model_before_anything_runs():
    layout = layout_of(tiny_model("llama"))
    check_operations(layout, [push(), push(phase="generated")])
    with pytest.raises(SiteError, match="has layers 0–2"):
        check_operations(layout, [push(site=Site(9, "resid_out"))])
    with pytest.raises(SteeringError, match="8 values came; the model has 32 units there"):
        check_operations(layout, [Operation(Site(1, "resid_out"), "add", vector(width=8))])
    one_unit = Operation(Site(1, "mlp_gate"), "add", torch.ones(1), indices=torch.tensor([48]))
    with pytest.raises(SteeringError, match="unit 48 came; expected 0–47"):
        check_operations(layout, [one_unit])
    check_operations(layout, [replace(one_unit, indices=torch.tensor([47]))])


def test_a_value_that_is_no_number_stops_the_run():
    check_finite(torch.ones(3), ["1.resid_out"])
    check_finite(torch.zeros(0), [])
    for bad in (float("nan"), float("inf"), float("-inf")):
        with pytest.raises(SteeringError, match="steered at 1.resid_out, 2.mlp_out, the model gave NaN or infinity"):
            check_finite(torch.tensor([0.0, bad]), ["2.mlp_out", "1.resid_out"])


def test_a_session_stands_at_generate_until_the_last_context_leaves():
    model = tiny_model("llama")
    layout = layout_of(model)
    with follow_calls(layout) as outer:
        assert model.generate is outer
        with follow_calls(layout) as inner:
            assert inner is outer and outer.users == 2
        assert model.generate is outer
    assert "generate" not in vars(model)


def test_a_second_thread_is_told_that_the_model_is_steered():
    layout, errors = layout_of(tiny_model("llama")), []

    def steer_too():
        try:
            with follow_calls(layout):
                pass
        except SteeringError as err:
            errors.append(str(err))

    with follow_calls(layout):
        thread = threading.Thread(target=steer_too)
        thread.start()
        thread.join()
    assert len(errors) == 1 and "steered by another thread or task already" in errors[0]


def test_graphs_that_were_compiled_without_hooks_are_dropped(monkeypatch):
    from babelscope.steering import compiled

    dropped = []
    monkeypatch.setattr(compiled, "compiled_frames", lambda: 1 + len(dropped))
    monkeypatch.setattr(compiled, "drop_graphs", lambda: dropped.append(True))
    monkeypatch.setitem(compiled._dropped, "frames", 0)
    with fresh_graphs():
        assert len(dropped) == 1, "on entry"
    assert len(dropped) == 2, "and on exit, as something was compiled in between"
    monkeypatch.setattr(compiled, "compiled_frames", lambda: 2)
    with fresh_graphs():
        pass
    assert len(dropped) == 2, "nothing where nothing was compiled since"
